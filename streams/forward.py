"""Forwarding to Amazon Personalize: every event, to a real event tracker, with PutEvents.

Its own Faust app and consumer group, so that an AWS outage delays nothing else. A partition's
position moves on only past messages whose events AWS has all taken or refused; what it refuses
goes to the dead letters. Everything else that goes wrong is tried again, for ever: Kafka is the
buffer. Events are sent at least once; the same event always carries the same eventId, by which
AWS ignores repetitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import faust
import prometheus_client
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from models.errors import InvalidEvent, NotConfigured, Unavailable
from models.events import parse
from models.ledger import Client, Waiting, forward_positions, save_forward
from models.settings import Settings
from models.store import connect
from streams.app import EARLIEST, add_agent, commit, create_app
from streams.calls import (
    Call,
    Message,
    Partition,
    Pending,
    alone,
    halves,
    parameters,
    passed,
    pending,
    plan,
    waiting,
)
from streams.dead_letters import envelope
from streams.personalize import Answer, CallFailed, Tracker
from streams.selection import selected
from streams.topics import Topics, topic_ids

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 10.0
BURST_S = 0.1
"""Calls not made during this long may be made up for at once."""

SAVE_EVERY_S = 1.0
COMPLAIN_EVERY_S = 60.0

EVENTS = prometheus_client.Counter(
    "recommender_forward_events_total",
    "Events by tracker and what became of them at AWS.",
    ["tracker", "outcome"],
)
CALLS = prometheus_client.Counter(
    "recommender_forward_calls_total",
    "PutEvents calls to AWS by tracker and answer.",
    ["tracker", "outcome"],
)
WAITING = prometheus_client.Gauge(
    "recommender_forward_waiting_events",
    "Events that were read from Kafka and AWS has not answered for.",
    ["tracker"],
)
WAITING_AGE = prometheus_client.Gauge(
    "recommender_forward_oldest_waiting_age_seconds",
    "How long the oldest of them has been in Kafka; 0 without any.",
    ["tracker"],
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


def backoff_s(attempt: int, chance: float) -> float:
    """How long to wait after failed attempt 0, 1, …: doubling, times a `chance` in [0, 1].

    >>> backoff_s(3, 0.5)
    0.4
    """
    return chance * min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 30))


class Pace:
    """A token bucket: at most `per_s` calls a second, after at most `BURST_S` worth at once."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next_s = -math.inf

    def reserve(self, now_s: float) -> float:
        """Take the next free moment; gives how long to wait for it."""
        start_s = max(self._next_s, now_s - BURST_S)
        self._next_s = start_s + self._interval_s
        return max(0.0, start_s - now_s)


class Forwarder:
    """Takes batches of messages to AWS, and keeps the ledger of it.

    Parameters
    ----------
    settings
        Limits, the tracking ids here and at AWS, and what is left out.
    client
        Redis, for the ledger.
    put
        Sends one PutEvents; blocking; raises `CallFailed`.
    dead_letter
        Keeps a letter under a key; returns when it is safe, raises `Unavailable` otherwise.
    commit
        Told the positions that the ledger holds.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        *,
        put: Callable[[dict[str, Any]], None],
        dead_letter: Callable[[bytes, bytes], Awaitable[None]],
        commit: Callable[[Mapping[Partition, int]], Awaitable[None]],
    ) -> None:
        self._incarnations: dict[str, str] = {}
        self._settings = settings
        self._client = client
        self._put = put
        self._dead_letter = dead_letter
        self._commit = commit
        self._trackers = settings.forwarded_trackers
        # Of several trackers here, one at AWS may get the events: its limit is what counts.
        self._paces = {id_: Pace(settings.forward_calls_per_s) for id_ in self._trackers.values()}
        self._calls: dict[str, Counter[str]] = defaultdict(Counter)
        self._notes: dict[str, dict[str, str | float]] = defaultdict(dict)
        self._waiting: dict[str, Waiting] = {}
        self._complained_s = -math.inf
        for tracker in self._trackers:
            WAITING.labels(tracker).set_function(partial(self._n_waiting, tracker))
            WAITING_AGE.labels(tracker).set_function(partial(self._waiting_age_s, tracker))

    async def load_positions(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        """Where to read on; waits for Kafka and Redis as long as it takes."""
        names = sorted({topic for topic, _ in assigned})
        group = self._settings.group
        # Added, because messages of partitions that are gone may still be under way.
        self._incarnations |= await self._until_done(
            lambda: _in_thread(lambda: topic_ids(self._settings, names))
        )
        stored = await self._until_done(lambda: forward_positions(self._client, group))
        return {each: stored.get(self._field(each), EARLIEST) for each in assigned}

    async def forward(self, messages: Sequence[Message]) -> None:
        """Return when AWS has answered for all of them, and the ledger and Kafka know."""
        queues: dict[Partition, deque[Message]] = defaultdict(deque)
        for message in messages:
            queues[message.topic, message.partition].append(message)
        for message in messages:
            for outcome, n in message.outcomes.items():
                EVENTS.labels(message.tracker, outcome).inc(n)
        # Sessions are handed out one by one; a sender that waits to try again takes no other,
        # so the worse AWS answers, the fewer calls are under way.
        sessions = iter(plan(pending(messages)))
        async with asyncio.TaskGroup() as group:
            senders = [
                group.create_task(self._send(sessions))
                for _ in range(min(self._settings.forward_parallel, len(messages)))
            ]
            while (await asyncio.wait(senders, timeout=SAVE_EVERY_S))[1]:
                await self._save(queues)
        await self._save(queues)

    async def _send(self, sessions: Iterator[Sequence[Call]]) -> None:
        for calls in sessions:
            for call in calls:
                await self._deliver(call)

    async def _deliver(self, call: Call) -> None:
        """Return when every event of the call is taken or, alone, refused."""
        parts = [call]
        while parts:
            part = parts.pop()
            detail = await self._refusal(part)
            if detail is None:
                self._settle(part, "forwarded")
            elif len(part) > 1:
                parts.extend(reversed(halves(part)))
            else:
                await self._bury(part[0], detail)
                self._settle(part, "refused")

    async def _bury(self, refused: Pending, detail: str) -> None:
        message = refused.message
        source = message.topic, message.partition, message.offset
        letter = envelope("forward", "refused", detail, source, alone(refused), now_s=time.time())
        key = refused.put.session_id.encode()
        await self._until_done(lambda: self._dead_letter(key, letter))

    async def _refusal(self, call: Call) -> str | None:
        """Try until AWS takes the call, which gives `None`, or refuses it, which gives why."""
        tracker = call[0].message.tracker
        tracking_id = self._trackers[tracker]
        request = parameters(call, tracking_id, self._settings.forward_without_properties)
        for attempt in itertools.count():
            await asyncio.sleep(self._paces[tracking_id].reserve(time.monotonic()))
            self._calls[tracker]["calls"] += 1
            try:
                await _in_thread(lambda: self._put(request))
            except CallFailed as error:
                failure = error
            else:
                CALLS.labels(tracker, "ok").inc()
                self._notes[tracker]["last_success_at"] = time.time()
                return None
            self._note(tracker, failure)
            if failure.answer is Answer.REFUSED:
                return failure.text
            self._complain(failure.text)
            await asyncio.sleep(backoff_s(attempt, random.random()))
        raise AssertionError

    def _note(self, tracker: str, failure: CallFailed) -> None:
        outcome = "failed" if failure.answer is Answer.DENIED else failure.answer.value
        CALLS.labels(tracker, outcome).inc()
        self._calls[tracker]["retries"] += failure.answer is not Answer.REFUSED
        self._calls[tracker]["throttles"] += failure.answer is Answer.THROTTLED
        self._notes[tracker] |= {"last_error": failure.text, "last_error_at": time.time()}

    def _n_waiting(self, tracker: str) -> float:
        return self._waiting[tracker].events if tracker in self._waiting else 0

    def _waiting_age_s(self, tracker: str) -> float:
        found = self._waiting.get(tracker)
        return max(0.0, time.time() - found.since_s) if found else 0.0

    def _settle(self, call: Call, outcome: str) -> None:
        EVENTS.labels(call[0].message.tracker, outcome).inc(len(call))
        for _, _, message in call:
            message.outcomes[outcome] += 1
            message.unanswered -= 1

    async def _save(self, queues: Mapping[Partition, deque[Message]]) -> None:
        moves = passed(queues)
        calls, self._calls = self._calls, defaultdict(Counter)
        notes, self._notes = self._notes, defaultdict(dict)
        self._waiting = waiting(itertools.chain.from_iterable(queues.values()))
        await self._until_done(
            lambda: save_forward(
                self._client,
                self._settings.group,
                moves={self._field(partition): move for partition, move in moves.items()},
                calls=calls,
                notes=notes,
                waiting={self._field(each): waiting(queue) for each, queue in queues.items()},
            )
        )
        await self._commit({partition: move.offset for partition, move in moves.items()})

    def _field(self, partition: Partition) -> str:
        topic, number = partition
        return f"{self._incarnations[topic]}/{number}"

    async def _until_done(self, step: Callable[[], Awaitable[T]]) -> T:
        for attempt in itertools.count():
            try:
                return await step()
            except Unavailable as error:
                self._complain(str(error))
            await asyncio.sleep(backoff_s(attempt, random.random()))
        raise AssertionError

    def _complain(self, text: str) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            logger.warning("forwarding to Amazon Personalize waits: %s", text)


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of blocking work, done in a daemon thread.

    The threads of an executor are waited for at exit, so that a hanging call would keep the
    process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        # Nobody waits any more once stopped, and then the loop may be closed, too.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if done.done() else outcome())

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  it is raised where it is awaited
            failure = error
            settle(lambda: done.set_exception(failure))
        else:
            settle(lambda: done.set_result(result))

    threading.Thread(target=run, name="forward", daemon=True).start()
    return await done


def forward_app(settings: Settings) -> faust.App:
    """The Faust app that forwards every event; starts nothing.

    Parameters
    ----------
    settings
        `kafka` and `redis` must name the servers, `forward_tracking_id` or `forward_tracking_ids`
        the trackers at AWS.

    Raises
    ------
    NotConfigured
        Without a tracker, or when boto3 does not find its own settings in order.
    """
    if not settings.forwarded_trackers:
        raise NotConfigured(
            "nothing is forwarded: set RECOMMENDER_FORWARD_TRACKING_ID to the tracking id of an"
            " Amazon Personalize event tracker, or RECOMMENDER_FORWARD_TRACKING_IDS to several"
        )
    topics = Topics.of(settings)
    client = connect(settings.redis)

    async def dead_letter(key: bytes, letter: bytes) -> None:
        try:
            await app.producer.send_and_wait(topics.dead_letters, key, letter, None, None, None)
        except (KafkaError, ProducerSendError) as error:
            raise Unavailable(f"Kafka did not keep a dead letter: {error}") from error

    async def load(assigned: set[Partition]) -> Mapping[Partition, int]:
        return await forwarder.load_positions(assigned)

    app = create_app("forward", settings, load)
    forwarder = Forwarder(
        settings,
        client,
        put=Tracker(settings).put,
        dead_letter=dead_letter,
        commit=lambda positions: commit(app, positions),
    )

    async def forward(batch: list[faust.EventT]) -> None:
        now_s = time.time()
        await forwarder.forward([_read(event, settings, now_s) for event in batch])

    add_agent(
        app,
        (topics.clicks, topics.purchases),
        forward,
        name="forward",
        limit=settings.batch_events,
        wait_s=settings.batch_wait_s,
    )

    async def close(*_: object, **__: object) -> None:
        await client.aclose()

    app.on_before_shutdown.connect(close)
    return app


def _read(event: faust.EventT, settings: Settings, now_s: float) -> Message:
    """The message in a Faust event, and which of its events are to be forwarded."""
    source = event.message
    try:
        put = parse(event.value or b"", now_s=now_s, future_limit_s=settings.future_limit_s)
    except InvalidEvent:
        # The dead letters have it from the worker that applies events.
        return Message(source.topic, source.partition, source.offset, None)
    known, events = selected(put, settings)
    at_s = source.timestamp or now_s
    return Message(source.topic, source.partition, source.offset, known, events, at_s)
