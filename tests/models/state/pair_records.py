"""Stored neighbour lists in plain Python: what `models.state.layout` says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.state import layout


class PairCodes(NamedTuple):
    """The codes of one pair's record, as `layout.PAIR` has them."""

    item: int
    both: int = 1
    month: int = 1
    day: int = 0
    after: int = 0
    next: int = 0


def pack_pairs(pairs: Sequence[PairCodes], clock_s: float, *, room: int = 0) -> bytes:
    """A stored list whose bases stand for 1 at a time, and unused records behind its pairs."""
    records = np.zeros(len(pairs) + room, layout.PAIR)
    for record, pair in zip(records, pairs, strict=False):
        record["item_day"] = pair.day << 24 | pair.item
        record["others"] = pair.month << 22 | pair.both << 12 | pair.after << 6 | pair.next
    ages = clock_s - layout.EPOCH
    bases = [
        math.floor(ages / count.half_life_s / count.step_log2)
        for count in (layout.BOTH_COUNT, layout.MONTH_COUNT, layout.DAY_COUNT)
    ]
    return layout.PAIR_HEAD.pack(*bases) + records.tobytes()


def unpack_items(raw: bytes) -> list[int]:
    """Items of a list, in its order; 0 for an unused record."""
    if not raw:
        return []
    records = np.frombuffer(raw, layout.PAIR, offset=layout.PAIR_HEAD.size)
    return [int(record["item_day"]) & 2**24 - 1 for record in records]


def unpack_pairs(raw: bytes) -> dict[int, dict[str, float]]:
    """Logarithms of forward-decayed sums since `layout.EPOCH` by item and channel, and of `both`.

    Minus infinity is no count.
    """
    found: dict[int, dict[str, float]] = {}
    bases = dict(zip(("both", "month", "day"), layout.PAIR_HEAD.unpack_from(raw), strict=True))
    for item, record in zip(
        unpack_items(raw),
        np.frombuffer(raw, layout.PAIR, offset=layout.PAIR_HEAD.size),
        strict=True,
    ):
        if not item:
            continue
        others, day_code = int(record["others"]), int(record["item_day"]) >> 24
        codes = {"both": others >> 12 & 1023, "month": others >> 22, "day": day_code}
        counts = {
            "both": layout.BOTH_COUNT,
            "month": layout.MONTH_COUNT,
            "day": layout.DAY_COUNT,
        }
        own = {
            name: (bases[name] + code) * counts[name].step_log2 if code else -math.inf
            for name, code in codes.items()
        }
        after = (others >> 6 & 63) / 63
        shares = {
            "next": after * (others & 63) / 63,
            "after": after,
            "before": 2 * (1 - after),
        }
        for name, share in shares.items():
            own[name] = own["both"] + math.log2(share) if share else -math.inf
        found[item] = own
    return found
