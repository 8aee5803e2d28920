"""Indexes of items and codes of event types, for which a worker asks the item shards."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from models.state.messages import StoredMessage
from models.state.shards.shard_names import names_value, owner_shard, shard_name, unknown_names
from models.state.shards.sharded_steps import ShardedSteps
from models.waits import waits_s

PublishDeltas = Callable[[Sequence[tuple[str, bytes]]], Coroutine[Any, Any, None]]
"""Produces values to shards, `i03` or `u00`; returns when Kafka has acknowledged all."""

POLL_S, MOST_POLL_S = 0.002, 0.01
"""Pauses between two looks for the indexes of new items: at first, and at most. A hop takes some 20
ms; all events of the batch wait for it."""

ASK_AGAIN_S = 2.0
"""An item shard that has given no index for so long is asked again."""

MAX_NAMES = 1_000_000
"""Indexes of items that a worker remembers; then it begins anew."""


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
        return await self.learn_names(items, types)

    async def learn_names(self, items: Sequence[str], types: Sequence[str]) -> Collection[str]:
        """The same for some items and event types."""
        wanted_items, wanted_types = items, types
        loop = asyncio.get_running_loop()
        asked_s = -ASK_AGAIN_S
        away: set[str] = set()
        for pause_s in waits_s(POLL_S, MOST_POLL_S):
            away |= await self._read(items, types)
            items = [one for one in wanted_items if one not in self._indexes and one not in away]
            types = [
                one for one in wanted_types if one not in self._types and type_mark(one) not in away
            ]
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
