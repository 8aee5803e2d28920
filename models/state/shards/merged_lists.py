"""Parts of a list of neighbours, or of the items of a term, as the one list that they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.state import layout

_COUNTS = (layout.BOTH_COUNT, layout.MONTH_COUNT, layout.DAY_COUNT)
_BOTH, _MONTH, _DAY = range(len(_COUNTS))

_NEVER = -(2**40)
"""Steps of the logarithm of no count."""


def merged_parts(key: str, parts: list[bytes | None]) -> bytes | None:
    """A value of its parts: only lists of neighbours and of terms have them on several shards."""
    if len(parts) == 1:
        return parts[0]
    return merged_terms(parts) if "}:term:" in key else merged_lists(parts)


def merged_lists(parts: Sequence[bytes | None]) -> bytes | None:
    """A stored list with the neighbours of all parts; of too many, those of the largest counts.

    A neighbour of several parts has the sums of its counts. None where no part has any. Some 50 µs.
    """
    present = [part for part in parts if part is not None and len(part) > layout.PAIR_HEAD.size]
    if len(present) < 2:
        return present[0] if present else None
    decoded = [_decoded(part) for part in present]
    of_items = np.concatenate([items for items, _, _ in decoded])
    of_steps = np.concatenate([steps for _, steps, _ in decoded])
    of_shares = np.concatenate([shares for _, _, shares in decoded])
    items, places = np.unique(of_items, return_inverse=True)
    steps = np.full((len(items), len(_COUNTS)), float(_NEVER))
    for number, count in enumerate(_COUNTS):
        # Sums relative to the greatest, as the logarithms are beyond what a number holds.
        np.maximum.at(steps[:, number], places, of_steps[:, number])
        sums = np.zeros(len(items))
        ahead = of_steps[:, number] - steps[places, number]
        np.add.at(sums, places, np.exp2(np.maximum(ahead, -1000.0) * count.step_log2))
        steps[:, number] += np.log2(sums) / count.step_log2
    behind = np.exp2((of_steps[:, _BOTH] - steps[places, _BOTH]) * _COUNTS[_BOTH].step_log2)
    after, after_next = np.zeros(len(items)), np.zeros(len(items))
    np.add.at(after, places, behind * of_shares[:, 0])
    np.add.at(after_next, places, behind * of_shares[:, 0] * of_shares[:, 1])
    shares = np.stack([after, after_next / np.where(after > 0, after, 1.0)], axis=1)
    kept = np.argsort(-steps[:, _MONTH], kind="stable")[: layout.NEIGHBOURS]
    bases = np.max([np.frombuffer(part, "<i4", 3) for part in present], axis=0)
    return _encoded(items[kept], np.rint(steps[kept]), np.minimum(shares[kept], 1.0), bases)


def merged_terms(of_shards: Sequence[bytes | None]) -> bytes | None:
    """The list of a term of those of all shards: the number of items with it, and the newest ones.

    >>> parts = [np.array([2, 1 + (1 << 24), 5], "<u4").tobytes() for _ in range(2)]
    >>> np.frombuffer(merged_terms([*parts, None]), "<u4") % (1 << 24)
    array([4, 5, 5, 1, 1], dtype=uint32)
    """
    lists = [np.frombuffer(raw, "<u4") for raw in of_shards if raw]
    if len(lists) < 2:
        return lists[0].tobytes() if lists else None
    entries = np.concatenate([one[1:] for one in lists])
    indexes = (entries % layout.TERM_COUNT_UNIT).astype(np.int64)
    newest = entries[np.argsort(-indexes, kind="stable")]
    is_warm = newest >= layout.TERM_WARM
    kept = newest[~is_warm][: layout.TERM_COLD_ITEMS], newest[is_warm][: layout.TERM_WARM_ITEMS]
    n = np.array([sum(int(one[0]) for one in lists)], "<u4")
    return np.concatenate([n, *kept]).astype("<u4").tobytes()


def _decoded(part: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Items, steps of the logarithm of each count, and the shares of after, and of next in it."""
    bases = layout.PAIR_HEAD.unpack_from(part)
    records = np.frombuffer(part, layout.PAIR, offset=layout.PAIR_HEAD.size)
    items = records["item_day"].astype(np.int64) & layout.MAX_ITEM_INDEX
    used = items > 0
    items, records = items[used], records[used]
    others = records["others"].astype(np.int64)
    top, shares = layout.SHARE_CODES - 1, layout.SHARE_CODES
    counts, months = others // shares**2, layout.BOTH_COUNT.codes
    codes = (
        counts % months, counts // months, records["item_day"] // (layout.MAX_ITEM_INDEX + 1)
    )  # fmt: skip
    steps = np.stack(
        [np.where(code > 0, code + base, _NEVER) for code, base in zip(codes, bases, strict=True)],
        axis=1,
    ).astype(np.float64)
    return items, steps, np.stack([others // shares % shares, others % shares], axis=1) / top


def _encoded(
    items: NDArray[np.int64],
    steps: NDArray[np.float64],
    shares: NDArray[np.float64],
    bases: NDArray[np.int32],
) -> bytes:
    """A list as `pair_lists.lua` writes it."""
    codes = []
    for number, count in enumerate(_COUNTS):
        base, most = int(bases[number]), int(steps[:, number].max())
        if most - base >= count.codes:
            base = most - int(count.codes * layout.FIRST_CODE)
        bases[number] = base
        least = 0 if number == _DAY else 1
        codes.append(np.maximum(steps[:, number] - base, least).astype(np.uint32))
    both, month, day = codes
    of_shares = np.rint(shares * (layout.SHARE_CODES - 1)).astype(np.uint32)
    after, after_next = of_shares.T
    records = np.zeros(len(items), layout.PAIR)
    records["item_day"] = items + day * (layout.MAX_ITEM_INDEX + 1)
    counts = month * layout.BOTH_COUNT.codes + both
    records["others"] = (counts * layout.SHARE_CODES + after) * layout.SHARE_CODES + after_next
    return layout.PAIR_HEAD.pack(*bases.tolist()) + records.tobytes()
