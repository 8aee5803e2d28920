"""The first hop of a group of several shards: each session shard applies its messages.

A step of one partition moves its watermark in every session shard, so that a shard that has fallen
back to an earlier state is noticed by it. What shards leave for others is published once a step is
in effect; whatever is not, the outboxes keep (`streams.agents.shards.outboxes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import Counter

from models.state.clients.redis_errors import AWAY_ERRORS, NotNow
from models.state.messages import BehindResult, Part, PartResult, StoredMessage
from models.state.shards.shard_names import by_shard, shard_name, with_last
from models.state.shards.sharded_steps import ShardedSteps
from streams.agents.contracts import BatchPart, StepObserver
from streams.agents.events import FRESHNESS, STEP, count_applied
from streams.agents.shards.item_names import ItemNames, PublishDeltas, type_mark

LOG = logging.getLogger(__name__)

SHARD_CHANGES = Counter(
    "recommender_shard_changes_total", "Events and deltas that shards have applied", ["shard"]
)

MOST_PUBLICATIONS = 16
"""Steps at most whose deltas Kafka has yet to acknowledge."""


class ShardedEventWriter:
    """Writes events to the session shards: a `StepWriter`.

    A shard that is away is behind: the others go on, and it gets its messages in a later read of
    them, and none before. Only offsets are held, so that a long absence takes no memory.

    Attributes
    ----------
    is_held
        True: it begins no step, as a server that is away would not.
    """

    def __init__(
        self, steps: ShardedSteps, publish: PublishDeltas, clock: Callable[[], float]
    ) -> None:
        self._steps = steps
        self._publish = publish
        self._clock = clock
        self._names = ItemNames(steps, publish)
        self._publications = deque[asyncio.Task[None]]()
        # By shard and partition, how far it was, which saves it what others read again; and the
        # last read in which it was away.
        self._marks: dict[tuple[int, str], _Mark] = {}
        self._behind: dict[tuple[int, str], int] = {}
        self.is_held = False

    async def write(self, parts: Sequence[BatchPart[StoredMessage]]) -> list[PartResult]:
        """Apply parts in one atomic step of each shard, all at once; one result for each part."""
        if self.is_held:
            raise NotNow("FROZEN the group moves to another number of shards")
        messages = [message for part in parts for message in part.messages]
        with STEP.time():
            unknown = await self._names.learn(messages)
            of_parts = [_OfShards(part, self._steps.shards, unknown) for part in parts]
            found = await asyncio.gather(
                *(self._step(shard, of_parts) for shard in range(self._steps.shards)),
                return_exceptions=True,
            )
        done = [one for one in found if not isinstance(one, BaseException)]
        await self._leave([value for _, outbox in done for value in outbox])
        failed = [one for one in found if isinstance(one, BaseException)]
        wrong = [one for one in failed if not self._steps.is_absence(one)]
        if wrong or not done:
            raise [*wrong, *failed][0]
        for shard, one in enumerate(found):
            if isinstance(one, BaseException):
                LOG.debug("shard u%02d gets messages later: %s", shard, one)
                for part in parts:
                    self._behind[shard, part.field] = part.read
        return [
            joined_results([results[number] for results, _ in done], part, is_behind=bool(failed))
            for number, part in enumerate(parts)
        ]

    async def learn(self, messages: Sequence[StoredMessage]) -> None:
        """Have the names of messages known ahead of their step; that does what fails here."""
        if not self.is_held:
            with contextlib.suppress(*AWAY_ERRORS):
                await self._names.learn(messages)

    async def _leave(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Publish values; the next step does not wait until Kafka has acknowledged them.

        They are sent in order, and outboxes keep them. Only those of many steps ago are waited for.
        """
        self._publications.append(asyncio.create_task(self._publish(values)))
        await asyncio.sleep(0)  # they are on their way before anything else is
        while self._publications and (
            self._publications[0].done() or len(self._publications) > MOST_PUBLICATIONS
        ):
            await self._publications.popleft()

    async def _step(
        self, shard: int, of_parts: Sequence[_OfShards]
    ) -> tuple[list[PartResult], list[tuple[str, bytes]]]:
        """A shard's results of all parts, and what its step left; no step where it has them all."""
        wanted = [self._wanted(shard, one) for one in of_parts]
        parts = [one for one in wanted if one is not None]
        events = [event for part in parts for one in part.messages for event in one.events]
        results: Iterator[PartResult] = iter(())
        outbox: list[tuple[str, bytes]] = []
        if parts:
            done = await self._steps.apply_events(
                shard,
                parts,
                indexes=self._names.indexes_among(one.item_id for one in events),
                types=self._names.types_among(one.type for one in events),
                now_s=self._clock(),
            )
            SHARD_CHANGES.labels(shard_name("u", shard)).inc(done.counts["events"])
            count_applied(done.counts)
            results, outbox = iter(done.events), done.outbox
        found = []
        for one, part in zip(of_parts, wanted, strict=True):
            result = PartResult("applied", one.last, -1, [])
            if part is not None:
                result = next(results)
                self._observe_freshness(part, result)
                self._marks[shard, one.field] = one.mark(result)
            if one.is_cut(shard):
                self._behind[shard, one.field] = one.read
            is_behind = self._behind.get((shard, one.field)) == one.read
            found.append(BehindResult(*result) if is_behind else result)
        return found, outbox

    def _wanted(self, shard: int, of_shards: _OfShards) -> Part | None:
        """The part for a shard; None for nothing."""
        place = (shard, of_shards.field)
        if self._behind.get(place) == of_shards.read:
            return None
        return of_shards.part(shard, self._marks.get(place, NO_MARK))

    def _observe_freshness(self, part: Part, result: PartResult) -> None:
        now_s = self._clock()
        for message in part.messages:
            is_applied = part.expected < message.offset <= result.watermark
            if is_applied and message.accepted_at and result.status != "lost":
                FRESHNESS.observe(max(0.0, now_s - message.accepted_at))

    def on_applied(self, messages: Sequence[StoredMessage]) -> None:
        """Nothing: each shard's step tells the freshness of its own messages."""


class _Mark(NamedTuple):
    """Position of a shard in a partition: its watermark, and up to where it lacks nothing."""

    watermark: int
    taken: int


NO_MARK = _Mark(-1, -1)


class _OfShards:
    """A part by the shards that apply its messages.

    Attributes
    ----------
    field, last, read
        Its partition, the offset of its last message, and its read.
    """

    def __init__(
        self, part: BatchPart[StoredMessage], shards: int, unknown: Collection[str]
    ) -> None:
        self.field, self.read, self.last = part.field, part.read, part.messages[-1].offset
        self._part = part
        self._messages = by_shard(part.messages, shards)
        self._cut: set[int] = set()
        for shard, own in self._messages.items() if unknown else ():
            known = [*itertools.takewhile(lambda one: not _needs(one, unknown), own)]
            if len(known) < len(own):
                self._messages[shard] = known
                self._cut.add(shard)

    def is_cut(self, shard: int) -> bool:
        """True if a shard cannot have all yet: a message names an item whose shard is away."""
        return shard in self._cut

    def part(self, shard: int, mark: _Mark) -> Part | None:
        """The part for a shard that was at a mark; None for nothing.

        The last message of all, without its events, moves every shard's watermark, and tells of one
        that has fallen back.
        """
        expected, own = self._part.expected, self._messages.get(shard, [])
        if mark.taken >= expected:
            expected, own = mark.watermark, [one for one in own if one.offset > mark.taken]
        if shard not in self._cut:
            own = with_last(own, self._part.messages[-1])
        checksum = self._part.checksum if expected == self._part.expected else -1
        return Part(self.field, expected, own, checksum) if own else None

    def mark(self, result: PartResult) -> _Mark:
        """Position of a shard behind a step with this result."""
        taken = result.watermark
        if result.status == "full":
            taken = max(taken, before_offset(self._part, result.offset))
        return _Mark(result.watermark, taken)


def before_offset(part: BatchPart[Any], offset: int) -> int:
    """Offset of the message before one of a part."""
    return max((one.offset for one in part.messages if one.offset < offset), default=part.expected)


def _needs(message: StoredMessage, unknown: Collection[str]) -> bool:
    return any(one.item_id in unknown or type_mark(one.type) in unknown for one in message.events)


class LearningAhead:
    """A `StepObserver`: names are learned while another observer looks at the state.

    Either takes some round trips, and events of the partition wait for both.
    """

    def __init__(self, observer: StepObserver[StoredMessage], writer: ShardedEventWriter) -> None:
        self._observer = observer
        self._writer = writer

    async def before_step(self, messages: Sequence[StoredMessage]) -> Callable[[], None]:
        """Result of the other observer."""
        then, _ = await asyncio.gather(
            self._observer.before_step(messages), self._writer.learn(messages)
        )
        return then


def joined_results(
    of_shards: Sequence[PartResult], part: BatchPart[Any], *, is_behind: bool
) -> PartResult:
    """Results of a part in the shards that answer as one: of refused messages the first counts.

    What a shard refuses behind it, it refuses again.
    """
    last = part.messages[-1].offset
    kind = BehindResult if is_behind or any(one.is_behind for one in of_shards) else PartResult
    lost = [one.watermark for one in of_shards if one.status == "lost"]
    if lost:
        return PartResult("lost", min(lost), -1, [])
    # One that is behind refuses it again when it gets the others of its messages.
    full = [one for one in of_shards if one.status != "applied" and not one.is_behind]
    if full:
        first = min(full, key=lambda one: one.offset)
        return kind(first.status, before_offset(part, first.offset), first.offset, first.refused)
    return kind("applied", last, -1, [])
