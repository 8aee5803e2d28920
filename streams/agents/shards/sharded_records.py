"""Metadata of a group of several shards: each applies the records of its items, or of its users.

A record replaces an older one of its id, so that there is nothing to leave for other shards, and a
part that is applied again changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from models.state.catalogue.metadata import RecordEntry, RecordPart
from models.state.catalogue.sharded_records import apply_shard_records
from models.state.clients.redis_errors import NotNow
from models.state.messages import PartResult
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import ShardKind, item_shard, mark_shard, owner_shard
from models.state.shards.sharded_steps import ShardedSteps
from streams.agents.contracts import BatchPart
from streams.agents.metadata import RECORDS
from streams.agents.shards.item_names import ItemNames, PublishDeltas
from streams.agents.shards.sharded_events import before_offset, joined_results


class ShardedRecordWriter:
    """Writes records of items to item shards, those of users to session shards: a `StepWriter`.

    A step of one partition is one in every shard of its kind, as with events; while one is away,
    all wait.

    Attributes
    ----------
    is_held
        True: it begins no step, as a server that is away would not.
    """

    def __init__(self, steps: ShardedSteps, publish: PublishDeltas) -> None:
        self._steps = steps
        self._publish = publish
        self.is_held = False

    async def write(self, parts: Sequence[BatchPart[RecordEntry]]) -> list[PartResult]:
        """Apply parts in one atomic step of each shard; one result for each part."""
        if self.is_held:
            raise NotNow("FROZEN the group moves to another number of shards")
        placed = await self._with_indexes(parts)
        found: dict[str, PartResult] = {}
        for kind in ("i", "u"):
            own = [part for part in placed if mark_shard(part.field)[0] == kind]
            if own:
                shards = range(self._steps.shards)
                results = await at_once(self._step(kind, shard, own) for shard in shards)
                for number, part in enumerate(own):
                    of_shards = [one[number] for one in results]
                    found[part.field] = joined_results(of_shards, part, is_behind=False)
        return [found[part.field] for part in parts]

    async def _with_indexes(
        self, parts: Sequence[BatchPart[RecordEntry]]
    ) -> list[BatchPart[RecordEntry]]:
        """The parts with the indexes of their items, which new ones with a record get now."""
        items = [e for part in parts for e in part.messages if e.kind == "items"]
        names = ItemNames(self._steps, self._publish)
        if await names.learn_names(list(dict.fromkeys(e.id for e in items if e.text)), []):
            raise NotNow("the shard of a new item is away")
        unknown = [e.id for e in items if not names.indexes_among([e.id])]
        indexes = {
            **names.indexes_among(e.id for e in items),
            **(await self._steps.indexes_of(list(dict.fromkeys(unknown))) if unknown else {}),
        }
        return [
            part._replace(
                messages=[
                    e._replace(item_index=indexes.get(e.id, 0)) if e.kind == "items" else e
                    for e in part.messages
                ]
            )
            for part in parts
        ]

    async def _step(
        self, kind: ShardKind, shard: int, parts: Sequence[BatchPart[RecordEntry]]
    ) -> list[PartResult]:
        """A shard's results of all parts."""
        own = [self._of_shard(part, shard) for part in parts]
        results = await self._apply(kind, shard, own)
        refused = [
            RecordPart(part.field, result.watermark, [_only_mark(part, result.offset)])
            for part, result in zip(parts, results, strict=True)
            if result.status not in {"applied", "lost"}
            and before_offset(part, result.offset) > result.watermark
        ]
        if refused:
            # What follows the refused record is sent again behind the one before it.
            await self._apply(kind, shard, refused)
        return results

    async def _apply(
        self, kind: ShardKind, shard: int, parts: Sequence[RecordPart]
    ) -> list[PartResult]:
        return await apply_shard_records(
            self._steps.redis, self._steps.settings, kind, shard, parts
        )

    def _of_shard(self, part: BatchPart[RecordEntry], shard: int) -> RecordPart:
        """A shard's records of a part; the last message of all moves every shard's watermark."""
        own = [e for e in part.messages if e.kind and self._shard(e) == shard]
        last = part.messages[-1]
        if not own or own[-1].offset != last.offset:
            own.append(_without_effects(last))
        return RecordPart(part.field, part.expected, own, part.checksum)

    def _shard(self, entry: RecordEntry) -> int:
        if entry.item_index:
            return item_shard(entry.item_index, self._steps.shards)
        return owner_shard(entry.id, self._steps.shards)

    def on_applied(self, messages: Sequence[RecordEntry]) -> None:
        """Count the records that have come into effect."""
        RECORDS.labels("applied").inc(sum(bool(entry.kind) for entry in messages))


def _only_mark(part: BatchPart[RecordEntry], offset: int) -> RecordEntry:
    """The entry before one of a part, without its effects."""
    before = itertools.takewhile(lambda one: one.offset < offset, part.messages)
    return _without_effects([*before][-1])


def _without_effects(entry: RecordEntry) -> RecordEntry:
    return RecordEntry(entry.offset, timestamp_ms=entry.timestamp_ms, checksum=entry.checksum)
