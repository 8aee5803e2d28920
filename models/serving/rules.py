"""Rules of a request: what its answer may hold, what it prefers, and what stands where.

They apply in this order, to an answer's candidates before it is cut to its length: exclude, hide
and filter take items out; boosts change scores; pins put items at their slots. So a boost never
brings back what was taken out, and a pinned item that is taken out is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from models.filters.filter import Filter
from models.ranking.explanations import Reason
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.item_filters import ItemFilter, first_length, until_enough
from models.serving.recommender import Recommender
from models.state.histories import History

Hidden = Literal["seen", "purchased"]

Ask = Callable[[int, History | None], Awaitable[Answer]]
"""Makes the answer of a request, with so many items, from the user's events if they were read."""


class Hide(NamedTuple):
    """Items of the user's events to leave out: all, or purchased ones, of the last `window_s`."""

    kind: Hidden
    window_s: float = math.inf


class Boost(NamedTuple):
    """Items that a filter allows have their score multiplied by a factor."""

    filter: Filter
    factor: float


class Rules(msgspec.Struct, frozen=True):
    """The rules of one request.

    Attributes
    ----------
    filter
        Decides which items the answer may hold; None allows all.
    exclude
        Items to leave out.
    hide
        Items to leave out because of what the user did.
    boosts
        Preferences; the factors of all that allow an item are multiplied.
    pins
        Item by slot, from 1.
    """

    filter: Filter | None = None
    exclude: frozenset[str] = frozenset()
    hide: tuple[Hide, ...] = ()
    boosts: tuple[Boost, ...] = ()
    pins: Mapping[int, str] = msgspec.field(default_factory=dict)

    @property
    def reads_user(self) -> bool:
        """True if they depend on what the user did or is."""
        filters = [self.filter, *(boost.filter for boost in self.boosts)]
        return bool(self.hide) or any(
            one is not None and not one.reads.isdisjoint(("interactions", "user"))
            for one in filters
        )


class Asker(NamedTuple):
    """User or session that an answer is for, and the item being looked at."""

    user_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None


async def answer_by_rules(
    recommender: Recommender,
    rules: Rules,
    ask: Ask,
    *,
    k: int,
    asker: Asker,
    now_s: float,
    refills: bool = True,
) -> Answer:
    """The answer of a request with its rules applied: at most k items.

    Where the rules leave too few of the answer's candidates, other items that the filter allows are
    looked for, see `ItemFilter.others`; they are ranked for the user, below the candidates. Not
    without `refills`: where the candidates are given.

    Raises
    ------
    InvalidInput
        A filter needs an id that the request lacks.
    """
    history = None
    if rules.reads_user:
        history = await recommender.snapshots.history(asker.user_id, asker.session_id, now_s=now_s)
    taken_out = rules.exclude | await _hidden(recommender, rules.hide, history, now_s)

    async def allowed(found: Filter | None, items: Sequence[str]) -> Sequence[str]:
        left = [item for item in items if item not in taken_out]
        if found is None:
            return left
        asked = ItemFilter(found, {}, *asker)
        return await asked.allowed(recommender, left, now_s=now_s, history=history)

    # A boost may lift any candidate into the answer; what is taken out makes room for others.
    most = MAX_RESULTS + len(taken_out)
    first = most if rules.boosts else min(most, first_length(k + len(rules.exclude)))
    answer, left = await until_enough(
        (first, most) if first < most else (most,),
        lambda length: ask(length, history),
        lambda items: allowed(rules.filter, items),
        k=k,
    )
    among = frozenset(left)
    kept = [item for item in answer.items if item.item_id in among]
    if refills and len(kept) < k and rules.filter is not None:
        least = min((one.score for one in kept if one.score > 0), default=1.0)
        asked = ItemFilter(rules.filter, {}, *asker)
        names = await asked.others(
            recommender, answer, now_s=now_s, history=history, taken_out=taken_out
        )
        kept += await _ranked(recommender, names[:MAX_RESULTS], asker, least, now_s)
    for boost in rules.boosts:
        among = frozenset(await allowed(boost.filter, [item.item_id for item in kept]))
        kept = boosted(kept, among, boost.factor)
    if rules.pins:
        indexes = await recommender.cache.item_indexes(list(rules.pins.values()))
        known = zip(rules.pins.values(), indexes, strict=True)
        among = frozenset(await allowed(rules.filter, [name for name, index in known if index]))
        pins = {slot: item_id for slot, item_id in rules.pins.items() if item_id in among}
        kept = pinned(kept, pins, k)
    return msgspec.structs.replace(answer, items=kept[:k])


async def _hidden(
    recommender: Recommender, hide: Sequence[Hide], history: History | None, now_s: float
) -> frozenset[str]:
    """Ids of the items that the user's own events hide."""
    if not hide or history is None:
        return frozenset()
    shared = await recommender.cache.with_types(history.types, now_s)
    hidden = np.zeros(len(history.items), np.bool_)
    for kind, window_s in hide:
        of_kind = history.times >= now_s - window_s
        if kind == "purchased":
            of_kind &= shared.purchase_types[history.types]
        hidden |= of_kind
    items = np.unique(history.items[hidden & (history.items > 0)])
    item_ids = await recommender.cache.item_ids.of(items.tolist())
    return frozenset(item_id for item_id in item_ids if item_id is not None)


async def _ranked(
    recommender: Recommender, items: Sequence[str], asker: Asker, below: float, now_s: float
) -> list[Recommendation]:
    """Items that only the filter has found, the likeliest for the user first, with lower scores."""
    ranked = await recommender.rank(
        items, user_id=asker.user_id, session_id=asker.session_id, now_s=now_s
    )
    reasons = (Reason("filter"),)
    return [Recommendation(one.item_id, below * one.score, reasons) for one in ranked.items]


def boosted(
    items: Sequence[Recommendation], among: Collection[str], factor: float
) -> list[Recommendation]:
    """The items with some scores multiplied, best first; equal scores keep their order.

    An item in an exploration slot keeps its place.

    >>> tent, lamp = Recommendation("tent", 0.4), Recommendation("lamp", 0.3)
    >>> [one.item_id for one in boosted([tent, lamp], ["lamp"], 2.0)]
    ['lamp', 'tent']
    """
    changed = [
        msgspec.structs.replace(item, score=item.score * factor) if item.item_id in among else item
        for item in items
    ]
    moving = iter(
        sorted((one for one in changed if not one.is_exploration), key=lambda one: -one.score)
    )
    return [one if one.is_exploration else next(moving) for one in changed]


def pinned(
    items: Sequence[Recommendation], pins: Mapping[int, str], k: int
) -> list[Recommendation]:
    """The items with pinned ones at their slots, from 1; where too few are left, behind the last.

    >>> tent, lamp = Recommendation("tent", 0.4), Recommendation("lamp", 0.3)
    >>> [one.item_id for one in pinned([tent, lamp], {1: "stove", 3: "tent"}, 3)]
    ['stove', 'lamp', 'tent']
    """
    by_id = {item.item_id: item for item in items}
    placed = {
        slot: by_id.get(item_id) or Recommendation(item_id, 0.0, (Reason("pinned"),))
        for slot, item_id in sorted(pins.items())
    }
    chosen = frozenset(pins.values())
    others = iter([item for item in items if item.item_id not in chosen])
    found: list[Recommendation] = []
    for slot in range(1, k + 1):
        one = placed.pop(slot, None) or next(others, None)
        if one is None:
            break
        found.append(one)
    return [*found, *placed.values()][:k]
