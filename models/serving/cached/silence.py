"""Popularity after a long silence of a group decays by the group's own pace.

Counts decay with time. A group whose data ends years ago and that gets one session today would know
nothing but that session: whatever else it learned has decayed to nothing. So a silence that is far
longer than any other lately counts as no time at all, until there are events enough again. In a
group without one, nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.state import layout

MIN_SILENCE_S = 90 * layout.DAY_S
"""Shorter ones leave a part of what was popular: three half-lives of the longest popularity."""

LONGER_BY = 5.0
"""A silence is so many times as long as any other time between last touches of the latest items."""

FADED_SHARE = 0.1
"""Recent popularity of the most popular item, as a share of its events of all time, below which a
silence is looked for: an item with steady events for less than a year has more."""

ENOUGH = 0.2
"""Events of a month since a silence, as a share of those before, from which on it is forgotten."""

HEAD = 60
"""Items of each top list that the greatest popularity is looked for among."""


MONTH = list(layout.POPULARITY_HALF_LIVES_S).index("month")


class _Columns(NamedTuple):
    events: NDArray[np.uint32]
    first: NDArray[np.uint32]
    last: NDArray[np.uint32]
    log2: Floats


@dataclass(frozen=True)
class Silence:
    """A silence of a group, between two times in Unix seconds.

    Attributes
    ----------
    shares
        ``(4,)`` decayed popularity of an item when it began, by half-life, as a share of the item's
        events: the median of the most popular ones.
    weight
        Of what was before it, 0 to 1: less, the more there was since.
    """

    began_s: float
    ended_s: float
    shares: Floats
    weight: float

    def collapsed(self, stats: NDArray[np.void]) -> NDArray[np.void]:
        """Statistics of items as if it had taken no time; ``(n,)`` of `layout.STAT`, a copy."""
        found = stats.copy()
        length_s = self.ended_s - self.began_s
        events, first, last, log2 = _columns(stats)
        is_known = (events > 0) & (first <= self.began_s)
        is_untouched = is_known & (last <= self.began_s)
        found["first"][is_known] += int(length_s)
        found["last"][is_untouched] += int(length_s)
        found["log2"][is_untouched] += length_s * layout.POPULARITY_RATES + np.log2(self.weight)
        # What a touched item had before was lost beside its newer events.
        touched = is_known & ~is_untouched
        before = np.log2(np.maximum(events[touched, None] * self.shares, 1e-300))
        before += np.log2(self.weight)
        before += (self.ended_s - layout.EPOCH) * layout.POPULARITY_RATES
        found["log2"][touched] = np.logaddexp2(log2[touched], before)
        return found


def may_have_faded(greatest: Mapping[str, float], clock_s: float) -> bool:
    """True if little of the most popular item's popularity is left; a group's `greatest` scores."""
    age = (clock_s - layout.EPOCH) / layout.POPULARITY_HALF_LIVES_S["month"]
    month = 2.0 ** min(greatest["month"] - age, 60.0)
    return greatest["all"] > 0 and month < FADED_SHARE * greatest["all"]


def heads_of(tops: Mapping[str, Indexes]) -> Indexes:
    """Distinct items of the heads of the top lists, and all of the latest ones."""
    parts = [items if name == "recent" else items[:HEAD] for name, items in tops.items()]
    return np.unique(np.concatenate([NO_ITEMS, *parts]))


def find_silence(stats: NDArray[np.void]) -> Silence | None:
    """The silence that a group with these items has come out of; None without one.

    Parameters
    ----------
    stats
        Of the latest and of the most popular items; ``(n,)`` of `layout.STAT`.
    """
    stats = stats[stats["events"] > 0]
    events, first, last, log2 = _columns(stats)
    touched: Floats = np.sort(last.astype(np.float64))
    gaps: Floats = np.diff(touched)
    if len(gaps) < 2:
        return None
    at = int(gaps.argmax())
    others = np.delete(gaps, at)
    if gaps[at] < MIN_SILENCE_S or gaps[at] < LONGER_BY * others.max():
        return None
    began_s = float(touched[at])
    is_newer = last > began_s
    # Of a new item the first event tells better when it ended.
    firsts = np.where(first > began_s, first, last)[is_newer]
    older = np.flatnonzero(~is_newer)
    popular = older[np.argsort(events[older])[-HEAD:]]
    logs = log2[popular] - (began_s - layout.EPOCH) * layout.POPULARITY_RATES
    counts: Floats = np.exp2(np.minimum(logs, 60.0))
    shares: Floats = np.median(counts / events[popular, None], axis=0)
    clock_s = float(last.max())
    since = _month_of(log2[is_newer], clock_s)
    weight = 1.0 - since / (ENOUGH * max(_month_of(log2[older], began_s), 1e-9))
    if weight <= 0.0:
        return None
    return Silence(began_s, float(firsts.min()), shares, weight)


def _month_of(log2: Floats, at_s: float) -> float:
    """Sum of the items' popularities by the month, as it was at a time."""
    age = (at_s - layout.EPOCH) / layout.POPULARITY_HALF_LIVES_S["month"]
    popularity: Floats = np.exp2(np.minimum(log2[:, MONTH] - age, 60.0))
    return float(popularity.sum())


def _columns(stats: NDArray[np.void]) -> _Columns:
    """The columns of statistics of items, typed."""
    return _Columns(stats["events"], stats["first"], stats["last"], stats["log2"])


def greatest_popularity(stats: NDArray[np.void]) -> Floats:
    """Greatest popularity by each half-life among items; ``(4,)``."""
    greatest: Floats = np.max(stats["log2"][stats["events"] > 0], axis=0)
    return greatest
