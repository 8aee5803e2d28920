"""Fixtures of the forwarder's tests: topics, keys, a stub of AWS, and forwarder processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from models.events import Event, PutEvents, encode
from models.settings import Settings
from models.state.clients.client import connect
from models.state.operations.forwarding_ledger import (
    ForwardCounts,
    forward_counts,
    forward_positions,
)
from ops.embedded_servers import Server, start_redis
from ops.forked_processes import ForkedProcess, fork
from streams.kafka.topics import Topics, ensure_topics
from tests.servers import own_port
from tests.streams.forwarding.personalize_stub import PersonalizeStub

PATIENCE_S = 180.0


def forward() -> None:
    """Run a forwarder with the settings of the environment."""
    from streams.forwarding.app import forward_app
    from streams.kafka.faust_clients.faust_app import run

    run(forward_app(Settings()))


def forward_hastily() -> None:
    """Run a forwarder that retries a hundred times as soon."""
    from streams.forwarding import forwarder

    forwarder.FIRST_BACKOFF_S, forwarder.MAX_BACKOFF_S = 0.001, 0.1
    forward()


def environment(stub: PersonalizeStub) -> dict[str, str]:
    """Environment of a forwarder to a stub of AWS, beside its servers."""
    return {
        "RECOMMENDER_FORWARD_TRACKING_ID": "real-tracker",
        "RECOMMENDER_FORWARD_TIMEOUT_S": "0.5",
        "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": stub.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def wait_for(claim: Callable[[], Any], meaning: str) -> None:
    """Wait until the claim holds; fails after `PATIENCE_S`."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline_s, f"never: {meaning}"
        time.sleep(0.02)


@dataclass
class Bench:
    """One test's topics, keys and stub of AWS, and its forwarder processes."""

    settings: Settings
    stub: PersonalizeStub
    folder: Path
    redis: Server
    workers: list[ForkedProcess] = field(default_factory=list)
    sent: dict[str, list[str]] = field(default_factory=dict)

    def start(self, *, function: Callable[[], None] = forward, **overrides: str) -> ForkedProcess:
        """Start a forwarder process."""
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "RECOMMENDER_KAFKA": self.settings.kafka,
            "RECOMMENDER_REDIS": self.settings.redis,
            "RECOMMENDER_GROUP": self.settings.group,
            "RECOMMENDER_TOPIC_PREFIX": self.settings.topic_prefix,
            "RECOMMENDER_PARTITIONS": str(self.settings.partitions),
            "RECOMMENDER_SESSION_TIMEOUT_S": "2",
            **environment(self.stub),
            **overrides,
        }
        log = self.folder / "forward.log"
        worker = fork(function, ["forward"], env, log, name="forward", directory=self.folder)
        self.workers.append(worker)
        return worker

    def send(self, n_sessions: int, n_messages: int, n_events: int = 1) -> None:
        """Produce messages of many sessions, one after another, to clicks."""
        messages = []
        for _ in range(n_messages):
            for session in (f"s{n}" for n in range(n_sessions)):
                known = self.sent.setdefault(session, [])
                ids = [f"{session}/{len(known) + n}" for n in range(n_events)]
                events = [Event("click", 1.7e9, event_id=event_id, item_id="i") for event_id in ids]
                known.extend(ids)
                put = PutEvents(session, events, user_id=f"u-{session}", tracking_id="shop")
                messages.append((session, encode(put)))
        self.produce(*messages)

    def produce(self, *messages: tuple[str, bytes]) -> None:
        """Produce bytes to the clicks topic, keyed by session."""
        producer = KafkaProducer(bootstrap_servers=self.settings.kafka, linger_ms=5)
        for session, raw in messages:
            producer.send(Topics.of(self.settings).clicks, key=session.encode(), value=raw)
        producer.flush()
        producer.close()

    async def counts(self) -> ForwardCounts:
        """The ledger's counters."""
        async with connect(self.settings.redis) as client:
            return await forward_counts(client, self.settings.group)

    async def positions(self) -> dict[str, int]:
        """The ledger's positions."""
        async with connect(self.settings.redis) as client:
            return await forward_positions(client, self.settings.group)

    async def until(self, claim: Callable[[ForwardCounts], bool], meaning: str) -> ForwardCounts:
        """Wait until the claim holds for the counters, and return them."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not claim(counts := await self.counts()):
            log = (self.folder / "forward.log").read_text()[-3000:]
            assert self.workers[-1].poll() is None, f"the forwarder has ended\n{log}"
            assert time.monotonic() < deadline_s, f"never: {meaning}; {counts}\n{log}"
            time.sleep(0.05)  # noqa: ASYNC251  nothing else runs in this loop
        return counts


@contextlib.contextmanager
def bench_on(broker: Server, folder: Path, name: str) -> Iterator[Bench]:
    """Topics and keys of one test; its forwarders are killed afterwards."""
    server = start_redis(folder, port=own_port())
    settings = Settings(
        kafka=broker.address,
        redis=server.url,
        topic_prefix=f"{name}.",
        group=name[:50],
        partitions=2,
    )
    ensure_topics(settings)
    with PersonalizeStub() as stub:
        made = Bench(settings, stub, folder, server)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
                worker.wait()
            made.redis.stop()
