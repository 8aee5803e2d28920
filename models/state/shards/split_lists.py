"""Lists of neighbours of the hottest items, in parts on several item shards.

Users spread evenly over shards, items do not: the pairs of one item can be more work than a shard's
fair share. Its list is then split: each part is a list of its own on another shard, `pairs:<index>`
there, with the neighbours whose index modulo the number of parts is the part's number. Readers
merge them (`merged_lists`).

Where a pair is counted must follow from the event alone: deltas of a message that is applied again
go where they went before, and what is taken back is where it was counted. So a split holds for
events from a time on, which is ahead of all events there are when it is written down, and what it
was before remains known:

    {group/iNN}:split   hash   of the first item shard: index -> "<seconds since EPOCH> <parts>",
                               several joined by ","
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from models.state import layout
from models.state.shards.shard_names import item_shard

FAIR_PART = 0.08
"""Events of an item, in multiples of the mean of the item shards, that one part of its list takes
at most: a few such items on one shard are no burden."""

LEAST_EVENTS_PER_S = 10.0
"""Events a second of an item below which its list stays whole, whatever its share."""

SPLIT_AHEAD_S = 60.0
"""Time from a split's writing, beside that by which events may be ahead, to its first event: by
then all workers know of it."""

READ_EVERY_S = 5.0
"""Age from which a worker reads again which lists are split; far less than `SPLIT_AHEAD_S`."""


class ListSplit(NamedTuple):
    """Parts of a list for events from a time on, in seconds since `layout.EPOCH`."""

    from_age: int
    parts: int


Splits = Mapping[int, Sequence[ListSplit]]
"""The splits of each item's list, in the order of their times."""

NO_SPLITS: Splits = {}


def splits_of(stored: Any) -> Splits:  # noqa: ANN401  a hash as either version of the protocol gives it
    """Splits out of the stored hash.

    >>> splits_of({b"7": b"100 2,160 8"})
    {7: [ListSplit(from_age=100, parts=2), ListSplit(from_age=160, parts=8)]}
    """
    pairs = (
        stored.items() if isinstance(stored, dict) else zip(stored[::2], stored[1::2], strict=True)
    )
    return {
        int(index): [ListSplit(*map(int, one.split())) for one in text.decode().split(",")]
        for index, text in pairs
    }


def splits_text(splits: Iterable[ListSplit]) -> str:
    """An item's splits as they are stored.

    >>> splits_text([ListSplit(100, 2), ListSplit(160, 8)])
    '100 2,160 8'
    """
    return ",".join(f"{one.from_age} {one.parts}" for one in splits)


def list_shards(index: int, splits: Splits, shards: int) -> list[int]:
    """The item shards with an item's list, or a part of it; that of the item first.

    >>> list_shards(64, {64: [ListSplit(100, 2)]}, 4), list_shards(65, {}, 4)
    ([1, 2], [1])
    """
    home = item_shard(index, shards)
    parts = max((one.parts for one in splits.get(index, ())), default=1)
    return [(home + part) % shards for part in range(parts)]


def wanted_splits(
    popularities: Mapping[int, float], splits: Splits, shards: int, *, now_s: float, ahead_s: float
) -> dict[int, list[ListSplit]]:
    """Splits of items whose lists should have more parts than they have; all of each such item.

    Parameters
    ----------
    popularities
        Logarithms of forward-decayed events of items with the half-life of an hour, as top lists
        have them, of the most popular items of all shards.
    ahead_s
        By how much the time of an event may be ahead of `now_s`.
    """
    half_life_s = layout.POPULARITY_HALF_LIVES_S["hour"]
    age_s = now_s - layout.EPOCH
    rates = {
        index: 2.0 ** (log2 - age_s / half_life_s) * math.log(2) / half_life_s
        for index, log2 in popularities.items()
    }
    fair = FAIR_PART * sum(rates.values()) / shards
    begins = math.ceil(age_s + ahead_s + SPLIT_AHEAD_S)
    found = {}
    for index, rate in rates.items():
        if rate < LEAST_EVENTS_PER_S:
            continue
        parts = min(shards, 2 ** math.ceil(math.log2(max(1.0, rate / fair))))
        before = list(splits.get(index, ()))
        if parts > max((one.parts for one in before), default=1):
            found[index] = [*before, ListSplit(begins, parts)]
    return found
