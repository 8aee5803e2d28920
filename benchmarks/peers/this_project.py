"""Our own stack as `recommender up` runs it: embedded broker and Redis, one worker, one API."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.conditions import command, servers, until
from benchmarks.loaded import is_caught_up
from benchmarks.peers.http_answers import answers, fetched
from benchmarks.peers.peer import Click, K, Running, Sent, get, post
from models.events import Event, PutEvents
from models.settings import Settings
from ops.ports import free_port
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import ensure_topics


@dataclass(frozen=True)
class ThisProject:
    """Its events come through Kafka, a session's up to ten in one message, as a replay's do.

    Attributes
    ----------
    environment
        Settings of the worker and the API other than their defaults, as variables.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    name = "streaming-recommender"
    learns = "every event"

    def missing(self) -> str | None:
        """None: it is here."""
        return None

    @contextlib.contextmanager
    def run(self, train: Sequence[Click], folder: Path) -> Iterator[Running]:  # noqa: ARG002
        """Start all of it, and have the training clicks take effect."""
        with servers() as found, contextlib.ExitStack() as stack:
            settings = found.model_copy(update={"port": free_port()})
            ensure_topics(settings)
            for name in ("worker", "api"):
                variables = {"RECOMMENDER_ACCESS": "open", **self.environment}
                stack.enter_context(command(name, settings, **variables))
            until(lambda: answers(settings.port, "/healthz"), within_s=300)
            begun_s = time.perf_counter()
            after = _sent(train, settings)
            until(lambda: _is_in_effect(settings.port, after), within_s=3600)
            yield Running(
                port=settings.port,
                pids=[os.getpid()],
                ingest_per_s=len(train) / (time.perf_counter() - begun_s),
                ask=_ask,
                items=_items,
                tell=_tell,
                similar=lambda item: get(f"/similar/{item}?num_results={K}"),
                caught_up=lambda: until(lambda: is_caught_up(settings), within_s=3600),
                settled=lambda body: until(
                    lambda: _is_in_effect(settings.port, [str(json.loads(body)["after"])])
                ),
            )


def _sent(train: Sequence[Click], settings: Settings) -> list[str]:
    """Send all clicks; gives the tokens of the last messages of each partition."""
    by_session: dict[str, list[Event]] = {}
    for one in train:
        by_session.setdefault(one.session, []).append(Event("click", one.at_s, item_id=one.item))
    latest: dict[int, tuple[int, str]] = {}
    with Tracker(settings, linger_ms=20) as tracker:
        receipts = []
        for number, (session, events) in enumerate(by_session.items()):
            receipts += [
                tracker.put_events(PutEvents(session, events[at : at + 10]))
                for at in range(0, len(events), 10)
            ]
            if number % 500 == 0:
                tracker.flush()
        tracker.flush()
        for receipt in receipts:
            known = receipt.result()
            for message in known.published:
                latest[message.partition] = max(
                    latest.get(message.partition, (-1, "")), (message.offset, known.token())
                )
    return [token for _, token in latest.values()]


def _is_in_effect(port: int, tokens: Sequence[str]) -> bool:
    for token in tokens:
        status, body = fetched(port, get(f"/recommend?{urlencode({'after': token})}"))
        if status != 200 or not json.loads(body)["freshness"]["afterReached"]:
            return False
    return True


def _ask(session: str, _: str) -> Sent:
    return get(f"/recommend?{urlencode({'session_id': session, 'num_results': K})}")


def _items(body: bytes) -> list[str]:
    return [one["itemId"] for one in json.loads(body)["items"]]


def _tell(click: Click) -> Sent:
    event = {"eventType": "click", "itemId": click.item, "sentAt": click.at_s}
    return post("/events", {"sessionId": click.session, "eventList": [event]})
