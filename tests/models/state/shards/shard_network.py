"""The shards of a group with a Kafka of lists: steps, redelivery and crashes in any order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from models.state.messages import Part, StoredMessage
from models.state.shards.shard_names import (
    DeltaMessage,
    DeltaPart,
    ShardKind,
    by_shard,
    mark_field,
    names_value,
    owner_shard,
    shard_prefix,
    split,
    unknown_names,
)
from models.state.shards.sharded_steps import ShardedSteps
from tests.models.state.reference import NOW
from tests.models.state.shards.sharded_reference import ShardedReference

Chance = Callable[[int], int]
"""A number below another one."""


class ShardNetwork:
    """Two partitions of events, one partition of deltas for each shard, and who applies them.

    Whoever works here keeps nothing: it reads marks and outboxes from Redis, as a worker that has
    just started. Each operation is one step, and what goes wrong is drawn: `chance`.
    """

    def __init__(self, steps: ShardedSteps, reference: ShardedReference, chance: Chance) -> None:
        self.steps = steps
        self.reference = reference
        self.chance = chance
        self.events: tuple[list[StoredMessage], ...] = ([], [])
        self.deltas: dict[str, list[bytes]] = defaultdict(list)
        self.late: list[tuple[str, bytes]] = []
        self.kept: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self.names = [f"{kind}{shard:02d}" for kind in "ui" for shard in range(steps.shards)]

    async def apply_events(self, partition: int, shard: int, most: int) -> bool:
        """A step of one session shard, with some messages again; what it leaves may get lost."""
        field = f"p/{partition}"
        log = by_shard(self.events[partition], self.steps.shards).get(shard, [])
        mark = await self.mark("u", shard, field)
        new = [message for message in log if message.offset > mark][:most]
        again = [message for message in log if message.offset <= mark][-self.chance(3) - 1 :]
        part = Part(field, mark, [*again[: self.chance(3)], *new])
        indexes, types = await self._known(part.messages)
        result = await self.steps.apply_events(
            shard, [part], indexes=indexes, types=types, now_s=NOW
        )
        assert [one.status for one in result.events] == ["applied"]
        self.reference.apply_events(shard, field, part.messages)
        self._publish(result.outbox)
        return bool(new)

    async def apply_deltas(self, name: str, most: int) -> bool:
        """A step of one shard with messages of its partition of deltas, some of them again."""
        kind, shard = name[0], int(name[1:])
        field, log = self.field(name), self.deltas[name]
        mark = await self.mark(kind, shard, field)
        messages = [
            DeltaMessage(offset, split(log[offset])[1])
            for offset in range(max(0, mark + 1 - self.chance(4)), min(len(log), mark + 1 + most))
        ]
        part = DeltaPart(field, mark, messages)
        if kind == "i":
            applied = await self.steps.apply_deltas(shard, [part], now_s=NOW)
            assert [one.status for one in applied.deltas] == ["applied"]
        else:
            result = await self.steps.apply_events(
                shard, [], [part], indexes={}, types={}, now_s=NOW
            )
            assert [one.status for one in result.deltas] == ["applied"]
            for message in messages:
                runs = split(log[message.offset])[0]
                self.reference.apply_deltas(shard, field, message.offset, runs)
            self._publish(result.outbox)
        return mark + 1 < len(log)

    async def send_again(self, shard: int, name: str, most: int) -> bool:
        """Publish what an outbox still has: whoever was to publish it may have died."""
        values = await self.steps.waiting_values(shard, name, most=most)
        self.deltas[name] += values
        return bool(values)

    async def trim(self, shard: int, *names: str) -> None:
        """Take what shards have applied from an outbox."""
        applied = {name: await self.steps.applied_sources(name) for name in names}
        await self.steps.trim_outbox(shard, applied)

    async def keep(self, name: str) -> None:
        """Remember the state of a shard, as its replica has it or its append-only file."""
        redis = self.steps.redis
        keys = [key async for key in redis.scan_iter(match=self._prefix(name) + "*", count=1000)]
        self.kept[name] = {key: await redis.dump(key) for key in keys}

    async def fall_back(self, name: str) -> None:
        """Put a shard back to the state that was kept of it; to none, if it was never kept."""
        redis = self.steps.redis
        keys = [key async for key in redis.scan_iter(match=self._prefix(name) + "*", count=1000)]
        kept = self.kept[name]
        await asyncio.gather(*map(redis.delete, keys))
        await asyncio.gather(*(redis.restore(key, 0, raw) for key, raw in kept.items()))

    async def do_something(self) -> None:
        """One operation."""
        what, shard = self.chance(9), self.chance(self.steps.shards)
        name = self.names[self.chance(len(self.names))]
        if what < 3:
            await self.apply_events(self.chance(2), shard, 1 + self.chance(4))
        elif what < 6:
            await self.apply_deltas(name, 1 + self.chance(3))
        elif what == 6:
            await self.send_again(shard, name, 1 + self.chance(3))
        elif what == 7:
            self.publish_late()
        else:
            await self.trim(shard, name)

    async def drain(self) -> None:
        """Everything in effect, and every outbox empty."""
        is_busy = True
        while is_busy:
            is_busy = bool(self.late)
            self.publish_late()
            for shard in range(self.steps.shards):
                for partition in range(2):
                    is_busy |= await self.apply_events(partition, shard, 100)
            for name in self.names:
                is_busy |= await self.apply_deltas(name, 100)
            for shard in range(self.steps.shards):
                await self.trim(shard, *self.names)
                for name in self.names:
                    is_busy |= await self.send_again(shard, name, 100)

    def field(self, name: str) -> str:
        """That of the watermark of a shard's partition of deltas."""
        return mark_field("u" if name[0] == "u" else "i", "k/t", int(name[1:]))

    def last_deltas(self) -> dict[str, int]:
        """Last offset of each partition of deltas."""
        return {self.field(name): len(log) - 1 for name, log in self.deltas.items() if log}

    def _publish(self, outbox: list[tuple[str, bytes]]) -> None:
        """Publish what a step left: at once, twice, later behind others, or not at all."""
        for name, value in outbox:
            fate = self.chance(6)
            self.deltas[name] += [value] * (1, 1, 1, 2, 0, 0)[fate]
            if fate == 4:
                self.late.append((name, value))

    def publish_late(self) -> None:
        """Publish one of what has been held up."""
        if self.late:
            name, value = self.late.pop(self.chance(len(self.late)))
            self.deltas[name].append(value)

    async def _known(self, messages: list[StoredMessage]) -> tuple[dict[str, int], dict[str, int]]:
        """Indexes and codes of the messages' names; item shards give them in the log's order."""
        items = [event.item_id for message in messages for event in message.events if event.item_id]
        indexes = await self.steps.indexes_of(list(dict.fromkeys(items)))
        types = await self.steps.type_codes()
        new_items, new_types = unknown_names(messages, indexes, types)
        if not new_items and not new_types:
            return indexes, types
        by_item_shard: dict[int, list[str]] = {0: []}
        for name in new_items:
            by_item_shard.setdefault(owner_shard(name, self.steps.shards), []).append(name)
        for shard, names in by_item_shard.items():
            value = names_value(names, new_types if shard == 0 else [])
            self.deltas[f"i{shard:02d}"] += [value] * (1 + self.chance(2))
            while await self.apply_deltas(f"i{shard:02d}", 100):
                pass
        return await self._known(messages)

    async def mark(self, kind: str, shard: int, field: str) -> int:
        """A shard's watermark of a partition; -1 without one."""
        prefix = self._prefix(f"{kind}{shard:02d}")
        raw = await self.steps.redis.hget(prefix + "watermarks", field)
        return -1 if raw is None else int(raw)

    def _prefix(self, name: str) -> str:
        kind: ShardKind = "u" if name[0] == "u" else "i"
        settings = self.steps.settings
        return shard_prefix(settings.group, kind, int(name[1:]), settings.generation)
