"""Forwarding to Amazon Personalize: every event, to a real event tracker, with PutEvents.

Its own Faust app and consumer group, so that an AWS outage delays nothing else. Each tracker goes
on by itself, as far ahead of the others as messages may be held. A partition's position moves on
only past messages whose events AWS has all taken or refused; what it refuses goes to the dead
letters. Everything else that goes wrong is tried again, for ever: Kafka is the buffer. Events are
sent at least once; the same event always has the same eventId, by which AWS ignores repetitions.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import faust
import prometheus_client

from models.errors import InvalidEvent, NotConfigured, Unavailable
from models.events import parse, parse_erasure
from models.settings import Settings
from models.state.client import RedisClient, connect
from models.state.forwarding_ledger import WaitingEvents, forward_positions, save_forward
from streams.aws_personalize import AwsTracker, CallFailed, PutEventsAnswer
from streams.forwarding.daemon_threads import in_thread
from streams.forwarding.erasures import KnownErasures, is_before
from streams.forwarding.put_events_calls import (
    Call,
    Partition,
    Pending,
    QueuedMessage,
    bisect,
    parameters,
    pending,
    plan_calls,
    pop_settled,
    single_event_message,
    waiting,
)
from streams.forwarding.rate_limit import RateLimit, backoff_s
from streams.forwarding.selected_events import selected
from streams.kafka.assignment import ReadStart, next_read
from streams.kafka.consumer_log import ConsumerLog
from streams.kafka.dead_letters import envelope, letter_key
from streams.kafka.faust_app import add_agent, commit, create_app
from streams.kafka.faust_consumer import EARLIEST
from streams.kafka.faust_producing import keep_letter
from streams.kafka.standstill import Standstill
from streams.kafka.topics import Topics, topic_ids

SAVE_EVERY_S = 1.0
LOOK_EVERY_S = 1.0
COMPLAIN_EVERY_S = 60.0

LOOK_FOR_ERASED_EVERY_S = 60.0
"""How often Redis is asked whether owners of what is held were erased."""

HELD_BYTES = 4 * 1024 * 1024
"""Messages that are read and not passed, at most: one tracker may lag so far behind the others."""

OVERHEAD_BYTES = 500
"""What a message is counted for beside its bytes."""

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
    crash
        Told of an error after which nothing may go on.
    erasures
        Who was erased; if not given, as the store alone has it.
    """

    def __init__(
        self,
        settings: Settings,
        client: RedisClient,
        *,
        put: Callable[[dict[str, Any]], None],
        dead_letter: Callable[[bytes | None, bytes], Awaitable[None]],
        commit: Callable[[Mapping[Partition, int]], Awaitable[None]],
        crash: Callable[[BaseException], Awaitable[None]],
        erasures: KnownErasures | None = None,
    ) -> None:
        self._incarnations: dict[str, str] = {}
        self._settings = settings
        self._client = client
        self._put = put
        self._dead_letter = dead_letter
        self._commit = commit
        self._crash = crash
        self._erasures = erasures or KnownErasures(settings, client)
        self._queues: dict[Partition, deque[QueuedMessage]] = defaultdict(deque)
        self._lines: dict[str, deque[QueuedMessage]] = defaultdict(deque)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._counted: dict[Partition, int] = {}
        self._held_bytes = 0
        self._answered, self._saved = asyncio.Event(), asyncio.Event()
        self._trackers = settings.forwarded_trackers
        # Of several trackers here, one at AWS may get the events: its limit is what counts.
        self._paces = {
            id_: RateLimit(settings.forward_calls_per_s) for id_ in self._trackers.values()
        }
        self._calls: dict[str, Counter[str]] = defaultdict(Counter)
        self._notes: dict[str, dict[str, str | float]] = defaultdict(dict)
        self._waiting: dict[str, WaitingEvents] = {}
        self._complained_s = -math.inf
        self._sending: set[QueuedMessage] = set()
        self._n_noted, self._looked_s = 0, -math.inf
        for tracker in self._trackers:
            WAITING.labels(tracker).set_function(partial(self._n_waiting, tracker))
            WAITING_AGE.labels(tracker).set_function(partial(self._waiting_age_s, tracker))

    async def load_positions(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        """Where to read on; waits for Kafka and Redis as long as it takes."""
        names = sorted({topic for topic, _ in assigned})
        group = self._settings.group
        # Added, because messages of partitions that are gone may still be under way.
        self._incarnations |= await self._until_done(
            lambda: in_thread(lambda: topic_ids(self._settings, names))
        )
        stored = await self._until_done(lambda: forward_positions(self._client, group))
        # What is held comes again behind itself: passed twice, it counts once.
        self._counted = {each: stored.get(self._field(each), 0) for each in assigned}
        return {each: stored.get(self._field(each), EARLIEST) for each in assigned}

    async def forward(self, messages: Sequence[QueuedMessage]) -> None:
        """Take messages over; returns once so few are held that others may come.

        The messages of a tracker are forwarded in the order in which they came.
        """
        for message in messages:
            self._queues[message.topic, message.partition].append(message)
            self._held_bytes += message.size
            for outcome, n in message.outcomes.items():
                EVENTS.labels(message.tracker, outcome).inc(n)
            if message.unanswered:
                self._lines[message.tracker].append(message)
        self._drop_as_read()
        for tracker, line in self._lines.items():
            if line:
                self._go_on(tracker, self._serve, tracker)
        # No tracker has this name.
        self._go_on("", self._keep)
        if not all(message.unanswered for message in messages):
            self._answered.set()
        while self._held_bytes > HELD_BYTES:
            self._saved.clear()
            await self._saved.wait()

    async def next_offset(self, partition: Partition) -> int:
        """The next offset to forward, as the ledger has it; raises `Unavailable`."""
        stored = await forward_positions(self._client, self._settings.group)
        return stored.get(self._field(partition), 0)

    def close(self) -> None:
        """Leave what is under way."""
        for task in self._tasks.values():
            task.cancel()

    def _go_on(self, name: str, work: Callable[..., Awaitable[None]], *arguments: str) -> None:
        """See that a task is at work; an error in it ends everything."""

        async def watched() -> None:
            try:
                await work(*arguments)
            except Exception as error:  # noqa: BLE001  whatever it is, nothing may be skipped
                await self._crash(error)

        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(watched())

    async def _serve(self, tracker: str) -> None:
        """Forward what waits for a tracker, one round after another."""
        line, settings = self._lines[tracker], self._settings
        while line:
            some = [line.popleft() for _ in range(min(len(line), settings.batch_events))]
            # Sessions are handed out one by one; a sender that waits to try again takes no other,
            # so the worse AWS answers, the fewer calls are under way.
            sessions = iter(plan_calls(pending(some)))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(settings.forward_parallel, len(some))):
                    group.create_task(self._send(sessions))
            self._answered.set()

    async def _keep(self) -> None:
        """Keep the ledger, as long as anything is held."""
        while self._queues:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), SAVE_EVERY_S)
            self._answered.clear()
            if time.monotonic() - self._looked_s >= LOOK_FOR_ERASED_EVERY_S:
                self._looked_s = time.monotonic()
                await self._look_for_erased()
            await self._save()
            self._saved.set()

    def _held(self) -> list[QueuedMessage]:
        """What waits; what is in a call that is under way is looked at after AWS's answer."""
        held = itertools.chain.from_iterable(self._queues.values())
        return [each for each in held if each.unanswered and each not in self._sending]

    def _drop_as_read(self) -> None:
        """Drop what waits of those whose erasure was just read from the log."""
        if self._erasures.n_noted == self._n_noted:
            return
        self._n_noted = self._erasures.n_noted
        for message in self._held():
            if message.put is not None:
                self._withhold(message, self._erasures.read_until_ms(message.put))

    async def _look_for_erased(self) -> None:
        """Drop what waits of those whose erasure only the store knows; while AWS is away, all do.

        Without Redis nothing is dropped that the log has not told: it is tried again later.
        """
        known: dict[tuple[str, str, str | None], int] = {}
        for message in self._held():
            put = message.put
            if put is None:
                continue  # answered for while another was asked about
            owner = message.tracker, put.session_id if not put.user_id else "", put.user_id
            if owner not in known:
                known[owner], away = await self._erasures.until_ms(put, now_s=time.time())
                if away is not None:
                    return
            if message not in self._sending:
                self._withhold(message, known[owner])

    def _withhold(self, message: QueuedMessage, until_ms: int) -> None:
        """Drop a message's events that were sent before its owner was erased."""
        for one in list(pending([message])):
            if is_before(one.event, one.put, until_ms):
                self._settle([one], "withheld")
        if not message.unanswered:
            message.size = OVERHEAD_BYTES
            self._answered.set()

    async def _send(self, sessions: Iterator[Sequence[Call]]) -> None:
        for calls in sessions:
            for call in calls:
                await self._deliver(call)

    async def _deliver(self, call: Call) -> None:
        """Return when every event of the call is taken or, alone, refused."""
        parts = [call]
        while parts:
            part, detail = await self._answered_call(parts.pop())
            if not part:
                continue
            if detail is None:
                self._settle(part, "forwarded")
            elif len(part) > 1:
                parts.extend(reversed(bisect(part)))
            else:
                await self._bury(part[0], detail)
                self._settle(part, "refused")
            self._sending -= {one.message for one in part}

    async def _bury(self, refused: Pending, detail: str) -> None:
        message = refused.message
        source = message.topic, message.partition, message.offset
        raw, key = single_event_message(refused), refused.put.session_id.encode()
        letter = envelope(
            "forward",
            "refused",
            detail,
            source,
            raw,
            key=key,
            now_s=time.time(),
            payload_bytes=self._settings.dead_letter_payload_bytes,
        )
        await self._until_done(lambda: self._dead_letter(letter_key(key), letter))

    async def _kept(self, call: Call) -> Call:
        """The events of a call without those whose user was erased after they were sent.

        An outage of Redis delays nothing: then those erasures hold that were read from the log.
        """
        call = [one for one in call if one.is_open]
        if not call:
            return call
        until_ms, away = await self._erasures.until_ms(call[0].put, now_s=time.time())
        # Others may have been dropped meanwhile, as an erasure was read.
        call = [one for one in call if one.is_open]
        if away is not None:
            self._complain(f"Redis does not answer, it may not be known who was erased: {away}")
        erased = [one for one in call if is_before(one.event, one.put, until_ms)]
        if erased:
            self._settle(erased, "withheld")
        return [one for one in call if one not in erased]

    async def _answered_call(self, call: Call) -> tuple[Call, str | None]:
        """Try until AWS takes a call, which gives it and None, or refuses it, which gives why.

        Events of a user who is erased meanwhile are left out; there may be none in the end.
        """
        tracker = call[0].message.tracker
        tracking_id = self._trackers[tracker]
        for attempt in itertools.count():
            await asyncio.sleep(self._paces[tracking_id].reserve(time.monotonic()))
            call = await self._kept(call)
            if not call:
                return call, None
            request = parameters(call, tracking_id, self._settings.forward_without_properties)
            self._calls[tracker]["calls"] += 1
            sending = {one.message for one in call}
            self._sending |= sending
            try:
                await in_thread(partial(self._put, request))
            except CallFailed as error:
                failure = error
                self._sending -= sending
            else:
                CALLS.labels(tracker, "ok").inc()
                self._notes[tracker]["last_success_at"] = time.time()
                return call, None
            self._note(tracker, failure)
            if failure.answer is PutEventsAnswer.REFUSED:
                return call, failure.text
            self._complain(failure.text)
            await asyncio.sleep(backoff_s(attempt, random.random()))
        raise AssertionError

    def _note(self, tracker: str, failure: CallFailed) -> None:
        outcome = "failed" if failure.answer is PutEventsAnswer.DENIED else failure.answer.value
        CALLS.labels(tracker, outcome).inc()
        self._calls[tracker]["retries"] += failure.answer is not PutEventsAnswer.REFUSED
        self._calls[tracker]["throttles"] += failure.answer is PutEventsAnswer.THROTTLED
        self._notes[tracker] |= {"last_error": failure.text, "last_error_at": time.time()}

    def _n_waiting(self, tracker: str) -> float:
        return self._waiting[tracker].events if tracker in self._waiting else 0

    def _waiting_age_s(self, tracker: str) -> float:
        found = self._waiting.get(tracker)
        return max(0.0, time.time() - found.since_s) if found else 0.0

    def _settle(self, call: Call, outcome: str) -> None:
        EVENTS.labels(call[0].message.tracker, outcome).inc(len(call))
        for one in call:
            one.message.answer(one.place, outcome)

    async def _save(self) -> None:
        queues = dict(self._queues)
        moves = pop_settled(queues, self._counted)
        self._held_bytes = sum(each.size for queue in queues.values() for each in queue)
        self._counted |= {partition: move.offset for partition, move in moves.items()}
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
        # Others may have the partition by now: nothing is said of it any more once it is empty.
        for partition in [each for each, queue in queues.items() if not queue]:
            if not self._queues[partition]:
                del self._queues[partition]

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

    async def dead_letter(key: bytes | None, letter: bytes) -> None:
        await keep_letter(app, topics.dead_letters, key, letter)

    async def load(begin: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        return await forwarder.load_positions(set(begin))

    app, erasures = create_app("forward", settings, load), KnownErasures(settings, client)
    forwarder = Forwarder(
        settings,
        client,
        put=AwsTracker(settings).put,
        dead_letter=dead_letter,
        commit=lambda positions: commit(app, positions),
        crash=app.crash,
        erasures=erasures,
    )

    async def forward(batch: list[faust.EventT]) -> None:
        now_s = time.time()
        await forwarder.forward([_read(event, settings, erasures, now_s) for event in batch])

    add_agent(
        app,
        (topics.clicks, topics.purchases),
        forward,
        name="forward",
        limit=settings.batch_events,
        wait_s=settings.batch_wait_s,
    )

    standstill, log = Standstill(client, settings.group, "forwarder"), ConsumerLog(app)

    async def look_at_unreadable() -> None:
        """Tell where a partition stands still; go on where an operator has gone past it."""
        found = log.unreadable()
        due = await standstill.look(found, now_s=time.time())
        for error in found:
            partition = error.topic, error.partition
            try:
                position = await forwarder.next_offset(partition)
            except Unavailable as away:
                logger.warning("where to go on is asked later: %s", away)
                return
            if position > error.first or error in due:
                start = max(position, error.first)
                await log.seek({partition: ReadStart(start, next_read())})

    app.timer(LOOK_EVERY_S)(look_at_unreadable)

    async def close(*_: object, **__: object) -> None:
        forwarder.close()
        await client.aclose()

    app.on_before_shutdown.connect(close)
    return app


def _read(
    event: faust.EventT, settings: Settings, erasures: KnownErasures, now_s: float
) -> QueuedMessage:
    """The message in a Faust event, and which of its events are to be forwarded."""
    source, raw = event.message, event.value or b""
    try:
        erasure = parse_erasure(raw, now_s=now_s, future_limit_s=settings.future_limit_s)
        if erasure is not None:
            erasures.note(erasure)
            return QueuedMessage(source.topic, source.partition, source.offset, None)
        put = parse(raw, now_s=now_s, future_limit_s=settings.future_limit_s)
    except InvalidEvent:
        # The dead letters have it from the worker that applies events.
        return QueuedMessage(source.topic, source.partition, source.offset, None)
    known, events = selected(put, settings)
    at_s, size = source.timestamp or now_s, len(raw) + OVERHEAD_BYTES
    return QueuedMessage(source.topic, source.partition, source.offset, known, events, at_s, size)
