"""Forwarding of every event to an event sink: Amazon Personalize, or another one.

The life of an event:

* Faust hands over a batch of messages. Each is queued for its partition, and in the line of its
  tracker. No more are read while the queues are full.
* Each tracker is served by itself. The events of a session go out in order, in calls of one user;
  sessions go out in parallel, at the tracker's rate.
* Before each attempt the events of erased users are withheld; while they wait, too.
* A failed call is tried again, with exponential backoff, for as long as it takes: Kafka is the
  buffer. A refused call is bisected until the refused events stand alone, as dead letters.
* A partition's position moves only past messages whose events are all settled: forwarded, refused
  or withheld. It is saved in the ledger with the counts, and committed to Kafka for lag tools.

Events are sent at least once; the same event always has the same eventId, by which the sink ignores
repetitions. The app has a consumer group of its own, so that an outage of the sink delays nothing
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import tenacity

from models.errors import Unavailable
from models.log_throttle import LogThrottle
from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.operations.forwarding_ledger import forward_positions, save_forward
from streams.event_sinks import EventSink, SendFailed, SinkAnswer
from streams.forwarding.daemon_threads import in_thread
from streams.forwarding.erasures import KnownErasures, is_before
from streams.forwarding.queues import OVERHEAD_BYTES, ForwardQueues, erased_events
from streams.forwarding.rate_limit import RateLimit
from streams.forwarding.sink_calls import (
    Call,
    Pending,
    QueuedMessage,
    bisect,
    event_batch,
    pending,
    plan_calls,
    single_event_message,
)
from streams.forwarding.tracker_stats import TrackerStats
from streams.kafka.consuming.assignment import Partition
from streams.kafka.dead_letters import envelope, letter_key
from streams.kafka.faust_clients.faust_consumer import EARLIEST
from streams.kafka.topics import topic_ids
from streams.retry_policy import failure_of, jittered_backoff

SAVE_EVERY_S = 1.0
COMPLAIN_EVERY_S = 60.0

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 10.0
"""Waits after failed attempts double between these, times a random number in [0, 1)."""

FIND_ERASED_EVERY_S = 60.0
"""Interval of searches in Redis for erasures of the owners of queued messages."""

LEDGER_TASK = ""
"""Key of the task that saves the ledger, beside those of the trackers: no tracker has this name."""

LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Forwarder:
    """Sends batches of messages to a sink, and keeps the ledger of it.

    Parameters
    ----------
    settings
        Limits, the tracking ids here and at the sink, and the events that are left out.
    client
        Redis, for the ledger.
    sink
        Takes batches of events.
    dead_letter
        Produces a letter under a key; returns when Kafka has acknowledged, raises `Unavailable`
        otherwise.
    commit
        Called with the positions that the ledger has.
    crash
        Called with an error after which nothing may go on.
    erasures
        Erased users; by default as the store alone knows them.
    """

    def __init__(
        self,
        settings: Settings,
        client: RedisClient,
        *,
        sink: EventSink,
        dead_letter: Callable[[bytes | None, bytes], Awaitable[None]],
        commit: Callable[[Mapping[Partition, int]], Awaitable[None]],
        crash: Callable[[BaseException], Awaitable[None]],
        erasures: KnownErasures | None = None,
    ) -> None:
        self._incarnations: dict[str, str] = {}
        self._settings = settings
        self._client = client
        self._sink = sink
        self._dead_letter_to = dead_letter
        self._commit = commit
        self._crash = crash
        self._erasures = erasures or KnownErasures(settings, client)
        self._queues = ForwardQueues()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._settled, self._saved = asyncio.Event(), asyncio.Event()
        self._trackers = settings.forwarded_trackers
        self._stats = TrackerStats(self._trackers)
        # Several trackers here may forward to one of the sink: that one's limit counts.
        self._rates = {
            id_: RateLimit(settings.forward_calls_per_s) for id_ in self._trackers.values()
        }
        self._complaints = LogThrottle(COMPLAIN_EVERY_S)
        self._n_erasures, self._searched_s = 0, -math.inf

    async def load_positions(self, assigned: set[Partition]) -> Mapping[Partition, int]:
        """First offset to read of each partition; waits for Kafka and Redis."""
        names = sorted({topic for topic, _ in assigned})
        group = self._settings.group
        # Added, because messages of partitions that were revoked may still be under way.
        self._incarnations |= await self._until_available(
            lambda: in_thread(lambda: topic_ids(self._settings, names))
        )
        stored = await self._until_available(lambda: forward_positions(self._client, group))
        # Queued messages are read again behind themselves: settled twice, they count once.
        self._queues.counted = {each: stored.get(self._field(each), 0) for each in assigned}
        return {each: stored.get(self._field(each), EARLIEST) for each in assigned}

    async def forward(self, messages: Sequence[QueuedMessage]) -> None:
        """Queue messages; returns once there is room for others.

        The messages of a tracker are forwarded in order.
        """
        for message in messages:
            self._queues.add(message)
            for outcome, n in message.outcomes.items():
                self._stats.events(message.tracker, outcome, n)
        self._withhold_as_read()
        for tracker, line in self._queues.lines.items():
            if line:
                self._ensure_task(tracker, partial(self._serve, tracker))
        self._ensure_task(LEDGER_TASK, self._keep_ledger)
        if not all(message.unsettled for message in messages):
            self._settled.set()
        while self._queues.is_full:
            self._saved.clear()
            await self._saved.wait()

    async def next_offset(self, partition: Partition) -> int:
        """Next offset to forward, as the ledger has it; raises `Unavailable`."""
        stored = await forward_positions(self._client, self._settings.group)
        return stored.get(self._field(partition), 0)

    def close(self) -> None:
        """Cancel all tasks; their messages are read again."""
        for task in self._tasks.values():
            task.cancel()

    def _ensure_task(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Start a task unless it runs; an error in it ends the app."""

        async def watched() -> None:
            try:
                await work()
            except Exception as error:  # noqa: BLE001  after any error, nothing may be skipped
                await self._crash(error)

        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(watched())

    async def _serve(self, tracker: str) -> None:
        """Forward a tracker's line, one round after another."""
        settings = self._settings
        while messages := self._queues.take(tracker, settings.batch_events):
            # A sender that waits to retry takes no other session, so the worse the sink answers,
            # the fewer calls are under way.
            sessions = iter(plan_calls(pending(messages)))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(settings.forward_parallel, len(messages))):
                    group.create_task(self._send_sessions(sessions))
            self._settled.set()

    async def _send_sessions(self, sessions: Iterator[Sequence[Call]]) -> None:
        for calls in sessions:
            for call in calls:
                await self._send_all(call)

    async def _send_all(self, call: Call) -> None:
        """Return when every event of the call is settled."""
        parts = [call]
        while parts:
            part, refusal = await self._send(parts.pop())
            if not part:
                continue
            if refusal is None:
                self._settle(part, "forwarded")
            elif len(part) > 1:
                parts.extend(reversed(bisect(part)))
            else:
                await self._dead_letter(part[0], refusal)
                self._settle(part, "refused")
            self._queues.end_call(part)

    async def _send(self, call: Call) -> tuple[Call, str | None]:
        """Send a call until the sink takes or refuses it; returns it, and the reason of a refusal.

        Events of users who are erased meanwhile are left out; the call may be empty in the end.
        """
        tracker = call[0].message.tracker
        rate = self._rates[self._trackers[tracker]]
        left = call

        async def attempt() -> str | None:
            nonlocal left
            await asyncio.sleep(rate.reserve(time.monotonic()))
            left = await self._without_erased(left)
            return await self._send_once(tracker, left) if left else None

        refusal: str | None = await self._retrying(SendFailed)(attempt)
        return left, refusal

    async def _send_once(self, tracker: str, call: Call) -> str | None:
        """Send a call; returns the reason of a refusal, raises `SendFailed` for another failure."""
        batch = event_batch(call, self._trackers[tracker])
        self._stats.call(tracker)
        self._queues.begin_call(call)
        try:
            await in_thread(partial(self._sink.send, batch))
        except SendFailed as failure:
            self._queues.end_call(call)
            self._stats.failure(tracker, failure)
            if failure.answer is SinkAnswer.REFUSED:
                return failure.text
            raise
        self._stats.success(tracker)
        return None

    async def _dead_letter(self, refused: Pending, detail: str) -> None:
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
        await self._until_available(lambda: self._dead_letter_to(letter_key(key), letter))

    def _settle(self, call: Call, outcome: str) -> None:
        self._stats.events(call[0].message.tracker, outcome, len(call))
        for one in call:
            one.message.settle(one.number, outcome)

    async def _without_erased(self, call: Call) -> Call:
        """The unsettled events of a call, without those that an erasure covers.

        An outage of Redis delays nothing: then only erasures that were read from the log count.
        """
        call = [one for one in call if one.is_open]
        if not call:
            return call
        until_ms, away = await self._erasures.until_ms(call[0].put, now_s=time.time())
        # Others may have been withheld meanwhile, as an erasure was read.
        call = [one for one in call if one.is_open]
        if away is not None:
            self._complain(f"Redis does not answer, recent erasures may be unknown: {away}")
        erased = [one for one in call if is_before(one.event, one.put, until_ms)]
        if erased:
            self._settle(erased, "withheld")
        return [one for one in call if one not in erased]

    def _withhold_as_read(self) -> None:
        """Withhold queued events whose owner's erasure was just read from the log."""
        if self._erasures.n_noted == self._n_erasures:
            return
        self._n_erasures = self._erasures.n_noted
        for message in self._queues.idle():
            if message.put is not None:
                self._withhold(message, self._erasures.read_until_ms(message.put))

    async def _withhold_as_stored(self) -> None:
        """Withhold queued events whose owner's erasure only the store knows.

        During an outage of the sink all messages are queued. Without Redis, nothing is withheld
        until the next search.
        """
        known: dict[tuple[str, str, str | None], int] = {}
        for message in self._queues.idle():
            put = message.put
            if put is None:
                continue  # settled during an earlier await
            owner = message.tracker, put.session_id if not put.user_id else "", put.user_id
            if owner not in known:
                known[owner], away = await self._erasures.until_ms(put, now_s=time.time())
                if away is not None:
                    return
            if not self._queues.is_sending(message):
                self._withhold(message, known[owner])

    def _withhold(self, message: QueuedMessage, until_ms: int) -> None:
        """Withhold a message's events that its owner's erasure covers."""
        for call in erased_events(message, until_ms):
            self._settle(call, "withheld")
        if not message.unsettled:
            message.size = OVERHEAD_BYTES
            self._settled.set()

    async def _keep_ledger(self) -> None:
        """Save the ledger about once a second, while anything is queued."""
        while self._queues:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_EVERY_S):
                    await self._settled.wait()
            self._settled.clear()
            if time.monotonic() - self._searched_s >= FIND_ERASED_EVERY_S:
                self._searched_s = time.monotonic()
                await self._withhold_as_stored()
            await self._save()
            self._saved.set()

    async def _save(self) -> None:
        moves, waiting = self._queues.pop_settled()
        calls, notes = self._stats.pop()
        self._stats.waiting = self._queues.waiting()
        await self._until_available(
            lambda: save_forward(
                self._client,
                self._settings.group,
                moves={self._field(partition): move for partition, move in moves.items()},
                calls=calls,
                notes=notes,
                waiting={self._field(each): found for each, found in waiting.items()},
            )
        )
        await self._commit({partition: move.offset for partition, move in moves.items()})
        self._queues.forget_empty([*waiting])

    def _field(self, partition: Partition) -> str:
        topic, number = partition
        return f"{self._incarnations[topic]}/{number}"

    async def _until_available(self, action: Callable[[], Awaitable[T]]) -> T:
        """The result of an action on Kafka or Redis, repeated while it raises `Unavailable`."""

        async def attempt() -> T:
            return await action()

        return await self._retrying(Unavailable)(attempt)

    def _retrying(self, error: type[Exception]) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(error),
            wait=jittered_backoff(FIRST_BACKOFF_S, MAX_BACKOFF_S),
            before_sleep=lambda attempt: self._complain(str(failure_of(attempt))),
        )

    def _complain(self, text: str) -> None:
        if self._complaints.suppressed("waits", time.monotonic()) is not None:
            LOG.warning("forwarding to %s waits: %s", self._settings.forward_sink, text)
