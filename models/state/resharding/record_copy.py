"""Copies metadata of items and users to other shards: records, and what is derived from them.

Records replace older ones of their id, so that shards of the new layout may begin anywhere behind
what all of them have: at the lowest of the watermarks of the shards before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import KeyWriter, asked, hash_fields, pieces
from models.state.shards.merged_answers import scored_members
from models.state.shards.merged_lists import merged_terms
from models.state.shards.shard_names import ShardKind, item_shard, own_places, owner_shard
from models.state.shared_reads import by_index

AT_ONCE = 200
"""Lists that are read at once."""

CHANGED = ("item_updates", "hidden_updates", "expiry_updates", "variant_updates", "term_updates")
"""Counts of changes: whoever reads the new shards reads all."""


class RecordMark(NamedTuple):
    """The watermark of a partition of metadata: its names in both layouts."""

    kind: ShardKind
    source: str
    target: str


class RecordCopy:
    """Copies metadata; of one task.

    Parameters
    ----------
    source, target
        Prefixes of the shards of both layouts, by kind.
    writer
        Makes a writer for a task.
    """

    def __init__(
        self,
        client: RedisClient,
        source: Mapping[ShardKind, Sequence[str]],
        target: Mapping[ShardKind, Sequence[str]],
        writer: Callable[[], KeyWriter],
    ) -> None:
        self._client = client
        self._source, self._target = source, target
        self._writer = writer

    async def run(self, marks: Sequence[RecordMark]) -> None:
        """Copy all; watermarks come last."""
        writer = self._writer()
        for prefix in self._source["u"]:
            async for fields in hash_fields(self._client, prefix + "users"):
                for name, record in fields:
                    shard = owner_shard(name.decode(), len(self._target["u"]))
                    await writer.put(self._target["u"][shard], "HSET", "users", name, record)
        for prefix in self._source["i"]:
            async for fields in hash_fields(self._client, prefix + "properties"):
                for index, record in fields:
                    await writer.put(self._of(int(index)), "HSET", "properties", index, record)
            await self._copy_categories(prefix, writer)
            await self._copy_terms(prefix, writer)
        await self._copy_strings(writer)
        await writer.flush()
        await self._copy_marks(marks, writer)

    def _of(self, index: int) -> str:
        return self._target["i"][item_shard(index, len(self._target["i"]))]

    async def _copy_categories(self, prefix: str, writer: KeyWriter) -> None:
        names = set[str]()
        async for fields in hash_fields(self._client, prefix + "categories"):
            for index, packed in fields:
                await writer.put(self._of(int(index)), "HSET", "categories", index, packed)
                names.update(msgspec.msgpack.decode(packed, type=list[str]))
        for some in pieces(sorted(names), AT_ONCE):
            keys = [f"category:{name}" for name in some]
            lists = await asked(
                self._client, *(("ZRANGE", prefix + key, 0, -1, "WITHSCORES") for key in keys)
            )
            for key, listed in zip(keys, lists, strict=True):
                for index, score in scored_members(listed):
                    await writer.put(self._of(int(index)), "ZADD", key, f"{score:.17g}", index)
            await writer.flush()
            for key in keys:
                for target in self._target["i"]:
                    await writer.put(target, "ZREMRANGEBYRANK", key, 0, -layout.TOPS - 1)

    async def _copy_terms(self, prefix: str, writer: KeyWriter) -> None:
        """Copy the items of each term: the number of those in a target, and the newest listed."""
        counts, seen = Counter[tuple[str, int]](), set[int]()
        async for fields in hash_fields(self._client, prefix + "terms"):
            for raw, packed in fields:
                index = int(raw)
                await writer.put(self._of(index), "HSET", "terms", index, packed)
                if index not in seen:  # a hash may give a field twice
                    seen.add(index)
                    terms = np.frombuffer(packed, "<u4").tolist()
                    counts.update((self._of(index), term) for term in terms)
        for some in pieces(sorted({term for _, term in counts}), AT_ONCE):
            names = [f"term:{term}" for term in some]
            (lists,) = await asked(self._client, ("MGET", *(prefix + name for name in names)))
            for target in self._target["i"]:
                (before,) = await asked(self._client, ("MGET", *(target + name for name in names)))
                for term, name, raw, old in zip(some, names, lists, before, strict=True):
                    if n := counts[target, term]:
                        entries = np.frombuffer(raw or bytes(4), "<u4")[1:]
                        items = (entries % layout.TERM_COUNT_UNIT).tolist()
                        here = [self._of(index) == target for index in items]
                        own = np.array([n, *entries[np.array(here, np.bool_)]], "<u4").tobytes()
                        await writer.put(target, "SET", name, merged_terms([old, own]) or own)
        await writer.flush()

    async def _copy_strings(self, writer: KeyWriter) -> None:
        """Copy strings with a place for each item: hidden ones, expiries, products."""
        n_found = 0
        for name, unpacked, packed in (
            ("hidden", _bits, lambda values: np.packbits(values).tobytes()),
            (
                "expires",
                lambda raw: np.frombuffer(raw, layout.EXPIRY),
                lambda values: values.tobytes(),
            ),
            (
                "variants",
                lambda raw: np.frombuffer(raw, layout.PRODUCT),
                lambda values: values.tobytes(),
            ),
        ):
            raws = [
                (await asked(self._client, ("GET", prefix + name)))[0]
                for prefix in self._source["i"]
            ]
            values: NDArray[Any] = by_index([unpacked(raw or b"") for raw in raws])
            n_found += len(values)
            shards = len(self._target["i"])
            for shard, target in enumerate(self._target["i"]):
                places = own_places(shards, shard, len(values) // shards + layout.STATS_PER_PAGE)
                own = values[places[places < len(values)]]
                if own.any():
                    await writer.put(target, "SET", name, packed(own))
                if name == "variants" and own.any():
                    n = int(np.count_nonzero(own))
                    await writer.put(target, "HSET", "counts", "variants", n)
        for target in self._target["i"]:
            if n_found or await self._has_records(target, writer):
                flat = [each for name in CHANGED for each in (name, 1)]
                await writer.put(target, "HSET", "counts", *flat)

    async def _has_records(self, target: str, writer: KeyWriter) -> bool:
        await writer.flush()
        (found,) = await asked(self._client, ("EXISTS", target + "properties"))
        return bool(found)

    async def _copy_marks(self, marks: Sequence[RecordMark], writer: KeyWriter) -> None:
        for kind, source, target in marks:
            found = [
                await asked(
                    self._client,
                    ("HGET", prefix + "watermarks", source),
                    ("HGET", prefix + "witnesses", source),
                )
                for prefix in self._source[kind]
            ]
            if any(mark is None for mark, _ in found):
                continue
            least, witness = min(found, key=lambda one: int(one[0]))
            for prefix in self._target[kind]:
                await writer.put(prefix, "HSET", "watermarks", target, least)
                if witness is not None:
                    await writer.put(prefix, "HSET", "witnesses", target, witness)
        await writer.flush()


def _bits(raw: bytes) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(raw, np.uint8))
