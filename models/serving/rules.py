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
from models.serving.item_filters import ItemFilter
from models.serving.recommender import Recommender
from models.state.histories import History

FIRST_CANDIDATES = 1.5
"""Candidates for each item wanted that rules are tried on first; and ten more for short lists."""

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
    """Whose answer it is, and the item being looked at."""

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
    if asker.user_id is not None or asker.session_id is not None:
        history = await recommender.snapshots.history(asker.user_id, asker.session_id, now_s=now_s)
    taken_out = rules.exclude | await _hidden(recommender, rules.hide, history, now_s)

    async def allowed(found: Filter | None, items: Sequence[str]) -> Sequence[str]:
        if found is None:
            return items
        asked = ItemFilter(found, {}, *asker)
        return await asked.allowed(recommender, items, now_s=now_s, history=history)

    kept: list[Recommendation] = []
    # A boost may lift any candidate into the answer; what is taken out makes room for others.
    most = MAX_RESULTS + len(taken_out)
    lengths = (most,) if rules.boosts else (min(most, first_length(k + len(rules.exclude))), most)
    for length in lengths:
        answer = await ask(length, history)
        item_ids = [item.item_id for item in answer.items if item.item_id not in taken_out]
        among = frozenset(await allowed(rules.filter, item_ids))
        kept = [item for item in answer.items if item.item_id in among]
        if len(kept) >= k or len(answer.items) < length:
            break
    if refills and len(kept) < k and rules.filter is not None:
        least = min((one.score for one in kept if one.score > 0), default=1.0)
        others = await _others(recommender, rules.filter, answer, asker, taken_out, now_s)
        kept += [msgspec.structs.replace(one, score=least * one.score) for one in others]
    for boost in rules.boosts:
        among = frozenset(await allowed(boost.filter, [item.item_id for item in kept]))
        kept = boosted(kept, among, boost.factor)
    if rules.pins:
        kept = pinned(
            kept, await _known_pins(recommender, rules.pins, taken_out, allowed, rules), k
        )
    return msgspec.structs.replace(answer, items=kept[:k])


def first_length(k: int) -> int:
    """Candidates to ask for first where some are taken out: a few more than the k wanted.

    Most rules leave enough of them, and a longer list begins with the same items.

    >>> first_length(25)
    47
    """
    return 10 + int(FIRST_CANDIDATES * k)


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


async def _others(
    recommender: Recommender,
    found: Filter,
    answer: Answer,
    asker: Asker,
    taken_out: Collection[str],
    now_s: float,
) -> list[Recommendation]:
    """Other items that the filter allows, the likeliest for the user first."""
    known = [*(item.item_id for item in answer.items), *taken_out]
    if asker.item_id is not None:
        known.append(asker.item_id)
    asked = ItemFilter(found, {}, *asker)
    others = await asked.others(recommender, known, now_s=now_s)
    ranked = await recommender.rank(
        others[:MAX_RESULTS], user_id=asker.user_id, session_id=asker.session_id, now_s=now_s
    )
    reasons = (Reason("filter"),)
    return [Recommendation(item.item_id, item.score, reasons) for item in ranked.items]


async def _known_pins(
    recommender: Recommender,
    pins: Mapping[int, str],
    taken_out: Collection[str],
    allowed: Callable[[Filter | None, Sequence[str]], Awaitable[Sequence[str]]],
    rules: Rules,
) -> dict[int, str]:
    """The pins whose items exist and are not taken out."""
    wanted = [item_id for item_id in pins.values() if item_id not in taken_out]
    indexes = await recommender.cache.item_indexes(wanted)
    existing = [item_id for item_id, index in zip(wanted, indexes, strict=True) if index]
    among = frozenset(await allowed(rules.filter, existing))
    return {slot: item_id for slot, item_id in pins.items() if item_id in among}


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
