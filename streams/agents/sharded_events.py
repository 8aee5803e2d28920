"""The first hop of a group of several shards: each session shard applies its messages.

A step of one partition moves its watermark in every session shard, so that a shard that has fallen
back to an earlier state is noticed by it. What shards leave for others is published once a step is
in effect; whatever is not, the outboxes keep (`streams.agents.outboxes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client import Counter

from models.state.clients.redis_errors import AWAY_ERRORS, NotNow
from models.state.messages import BehindResult, Part, PartResult, StoredMessage
from models.state.shards.shard_names import (
    by_shard,
    names_value,
    owner_shard,
    shard_name,
    unknown_names,
    with_last,
)
from models.state.shards.sharded_steps import ShardedSteps
from models.waits import waits_s
from streams.agents.contracts import BatchPart, StepObserver
from streams.agents.events import FRESHNESS, STEP, count_applied

LOG = logging.getLogger(__name__)

SHARD_CHANGES = Counter(
    "recommender_shard_changes_total", "Events and deltas that shards have applied", ["shard"]
)

PublishDeltas = Callable[[Sequence[tuple[str, bytes]]], Coroutine[Any, Any, None]]
"""Produces values to shards, `i03` or `u00`; returns when Kafka has acknowledged all."""

POLL_S, MOST_POLL_S = 0.002, 0.01
"""Pauses between two looks for the indexes of new items: at first, and at most. A hop takes some 20
ms; all events of the batch wait for it."""

ASK_AGAIN_S = 2.0
"""An item shard that has given no index for so long is asked again."""

MOST_PUBLICATIONS = 16
"""Steps at most whose deltas Kafka has yet to acknowledge."""

MAX_NAMES = 1_000_000
"""Indexes of items that a worker remembers; then it begins anew."""


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
            _joined([results[number] for results, _ in done], part, is_behind=bool(failed))
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
            taken = max(taken, _before(self._part, result.offset))
        return _Mark(result.watermark, taken)


def _before(part: BatchPart[StoredMessage], offset: int) -> int:
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


class ItemNames:
    """Indexes of items and codes of event types, which item shards give; they never change."""

    def __init__(self, steps: ShardedSteps, publish: PublishDeltas) -> None:
        self._steps = steps
        self._publish = publish
        self._indexes: dict[str, int] = {}
        self._types: dict[str, int] = {}

    def indexes_among(self, names: Iterable[str]) -> Mapping[str, int]:
        """Known indexes of items."""
        return {name: self._indexes[name] for name in names if name in self._indexes}

    def types_among(self, names: Iterable[str]) -> Mapping[str, int]:
        """Codes of event types; 0 for one that has found no room."""
        return {name: self._types.get(name, 0) for name in names}

    async def learn(self, messages: Sequence[StoredMessage]) -> Collection[str]:
        """Ask for the indexes and codes that the messages need and nobody has given, and wait.

        They are asked for on the item shards' partitions of deltas, whose order is that in which
        they are given. A name for which its shard has no room gets none. Returns the names whose
        shards are away, event types as `type_mark` of them.
        """
        items, types = unknown_names(messages, self._indexes, self._types)
        if not items and not types:
            return ()
        if len(self._indexes) > MAX_NAMES:
            self._indexes.clear()
            items, _ = unknown_names(messages, self._indexes, self._types)
        loop = asyncio.get_running_loop()
        asked_s = -ASK_AGAIN_S
        away: set[str] = set()
        for pause_s in waits_s(POLL_S, MOST_POLL_S):
            away |= await self._read(items, types)
            items, types = unknown_names(messages, self._indexes, self._types)
            items = [name for name in items if name not in away]
            types = [name for name in types if type_mark(name) not in away]
            if (items or types) and loop.time() >= asked_s + ASK_AGAIN_S:
                asked_s = loop.time()
                items, types, more = await self._with_room(items, types)
                away |= more
                await self._ask(items, types)
            if not items and not types:
                return away
            await asyncio.sleep(pause_s)

        raise AssertionError("waits have no end")

    async def _read(self, items: Sequence[str], types: Sequence[str]) -> set[str]:
        """Read what shards have given; the names whose shards are away."""
        of_shards = {
            shard: [*names]
            for shard, names in itertools.groupby(sorted(items, key=self._shard), self._shard)
        }
        asked = [self._steps.indexes_of(names) for names in of_shards.values()]
        *found, codes = await asyncio.gather(
            *asked, self._type_codes(types), return_exceptions=True
        )
        away = set[str]()
        for names, indexes in zip(of_shards.values(), found, strict=True):
            if isinstance(indexes, dict):
                self._indexes |= indexes
            else:
                away.update(self._if_away(indexes, names))
        if isinstance(codes, dict):
            self._types |= codes
        else:
            away.update(self._if_away(codes, map(type_mark, types)))
        return away

    async def _type_codes(self, types: Sequence[str]) -> dict[str, int]:
        return await self._steps.type_codes() if types else {}

    async def _with_room(
        self, items: Sequence[str], types: Sequence[str]
    ) -> tuple[list[str], list[str], set[str]]:
        """The names whose shards have room for more, and those whose shards are away."""
        shards = sorted({self._shard(name) for name in items})
        asked = [self._steps.is_full(shard) for shard in shards]
        *full, are_full = await asyncio.gather(
            *asked, self._are_types_full(types), return_exceptions=True
        )
        room = dict(zip(shards, full, strict=True))
        away = set[str]()
        left = []
        for name in items:
            is_full = room[self._shard(name)]
            if isinstance(is_full, BaseException):
                away.update(self._if_away(is_full, [name]))
            elif not is_full:
                left.append(name)
        if isinstance(are_full, BaseException):
            away.update(self._if_away(are_full, map(type_mark, types)))
            types = []
        return left, [] if are_full else list(types), away

    async def _are_types_full(self, types: Sequence[str]) -> bool:
        return bool(types) and await self._steps.are_types_full()

    def _if_away(self, error: BaseException, names: Iterable[str]) -> Iterable[str]:
        """The names, if the error is that of a shard that is away; raises any other."""
        if not self._steps.is_absence(error):
            raise error
        return names

    async def _ask(self, items: Sequence[str], types: Sequence[str]) -> None:
        by_item_shard: dict[int, list[str]] = {0: []} if types else {}
        for name in items:
            by_item_shard.setdefault(self._shard(name), []).append(name)
        await self._publish(
            [
                (shard_name("i", shard), names_value(names, types if shard == 0 else []))
                for shard, names in by_item_shard.items()
            ]
        )

    def _shard(self, name: str) -> int:
        return owner_shard(name, self._steps.shards)


def type_mark(name: str) -> str:
    """An event type among ids of items, which hold no such character."""
    return f"\0{name}"


def _joined(
    of_shards: Sequence[PartResult], part: BatchPart[StoredMessage], *, is_behind: bool
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
        return kind(first.status, _before(part, first.offset), first.offset, first.refused)
    return kind("applied", last, -1, [])
