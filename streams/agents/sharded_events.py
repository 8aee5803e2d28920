"""The first hop of a group of several shards: each session shard applies its messages.

A step of one partition moves its watermark in every session shard, so that a shard that has fallen
back to an earlier state is noticed by it. What shards leave for others is published once a step is
in effect; whatever is not, the outboxes keep (`streams.agents.outboxes`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import Counter

from models.state.clients.redis_errors import NotNow
from models.state.messages import Part, PartResult, StoredMessage
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import (
    by_shard,
    names_value,
    owner_shard,
    shard_name,
    unknown_names,
    with_last,
)
from models.state.shards.sharded_steps import SessionStepResult, ShardedSteps
from streams.agents.contracts import BatchPart
from streams.agents.events import FRESHNESS, STEP, count_applied
from streams.retry_policy import waits_s

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
        self.is_held = False

    async def write(self, parts: Sequence[BatchPart[StoredMessage]]) -> list[PartResult]:
        """Apply parts in one atomic step of each shard, all at once; one result for each part."""
        if self.is_held:
            raise NotNow("FROZEN the group moves to another number of shards")
        messages = [message for part in parts for message in part.messages]
        with STEP.time():
            await self._names.learn(messages)
            parts_of: list[list[Part]] = [[] for _ in range(self._steps.shards)]
            for field, expected, of_part, checksum in parts:
                messages_of = by_shard(of_part, self._steps.shards)
                for shard, own_parts in enumerate(parts_of):
                    # The last message of all, without its events, moves every shard's watermark.
                    own = with_last(messages_of.get(shard, []), of_part[-1])
                    own_parts.append(Part(field, expected, own, checksum))
            found = await asyncio.gather(
                *(self._step(shard, own_parts) for shard, own_parts in enumerate(parts_of)),
                return_exceptions=True,
            )
        done = [one for one in found if isinstance(one, SessionStepResult)]
        for one in done:
            count_applied(one.counts)
        await self._leave([value for one in done for value in one.outbox])
        for failed in found:
            if isinstance(failed, BaseException):
                raise failed
        return [
            _joined([one.events[number] for one in done], part.messages[-1].offset)
            for number, part in enumerate(parts)
        ]

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

    async def _step(self, shard: int, parts: Sequence[Part]) -> SessionStepResult:
        events = [event for part in parts for one in part.messages for event in one.events]
        done = await self._steps.apply_events(
            shard,
            parts,
            indexes=self._names.indexes_among(one.item_id for one in events),
            types=self._names.types_among(one.type for one in events),
            now_s=self._clock(),
        )
        SHARD_CHANGES.labels(shard_name("u", shard)).inc(done.counts["events"])
        return done

    def on_applied(self, messages: Sequence[StoredMessage]) -> None:
        """Record the freshness of messages that have come into effect in their session shards."""
        now_s = self._clock()
        for message in messages:
            if message.accepted_at:
                FRESHNESS.observe(max(0.0, now_s - message.accepted_at))


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

    async def learn(self, messages: Sequence[StoredMessage]) -> None:
        """Ask for the indexes and codes that the messages need and nobody has given, and wait.

        They are asked for on the item shards' partitions of deltas, whose order is that in which
        they are given. A name for which its shard has no room gets none.
        """
        items, types = unknown_names(messages, self._indexes, self._types)
        if not items and not types:
            return
        if len(self._indexes) > MAX_NAMES:
            self._indexes.clear()
            items, _ = unknown_names(messages, self._indexes, self._types)
        loop = asyncio.get_running_loop()
        asked_s = -ASK_AGAIN_S
        for pause_s in waits_s(POLL_S, MOST_POLL_S):
            self._indexes |= await self._steps.indexes_of(items)
            if types:
                self._types |= await self._steps.type_codes()
            items, types = unknown_names(messages, self._indexes, self._types)
            if (items or types) and loop.time() >= asked_s + ASK_AGAIN_S:
                asked_s = loop.time()
                items, types = await self._with_room(items, types)
                await self._ask(items, types)
            if not items and not types:
                return
            await asyncio.sleep(pause_s)

    async def _with_room(
        self, items: Sequence[str], types: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """The names whose shards have room for more."""
        shards = sorted({self._shard(name) for name in items})
        full = await at_once(map(self._steps.is_full, shards))
        has_room = {shard for shard, is_full in zip(shards, full, strict=True) if not is_full}
        if types and await self._steps.are_types_full():
            types = []
        return [name for name in items if self._shard(name) in has_room], list(types)

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


def _joined(of_shards: Sequence[PartResult], last: int) -> PartResult:
    """Results of a part in all shards as one: of refused messages the first counts.

    What a shard refuses behind it, it refuses again.
    """
    watermark = min(last, *(one.watermark for one in of_shards))
    if any(one.status == "lost" for one in of_shards):
        return PartResult("lost", watermark, -1, [])
    full = [one for one in of_shards if one.status != "applied"]
    if full:
        return min(full, key=lambda one: one.offset)._replace(watermark=watermark)
    return PartResult("applied", watermark, -1, [])
