"""Answers by the rules of a request.

Rules apply in this order, to an answer's candidates before it is cut to its length: exclude, hide
and filters take items out; boosts change scores; diversity reorders; caps bound the items that
share a value; new items get their exploration slots; pins put items at their slots. So a boost
never brings back what was taken out, and a pinned item that is taken out is not shown. Pinned items
count for the caps, and none takes one out.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np

from models.filters.filter import Filter
from models.ranking.diversity import mmr_order, similarity_of
from models.ranking.explanations import Reason
from models.ranking.explored_lists import Exploration
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.enough_items import (
    MAX_OTHERS,
    ItemSearch,
    first_length,
    note_most,
    others_allowed,
    until_enough,
    within_known,
)
from models.serving.item_filters import ItemFilter
from models.serving.item_values import categories, value_groups
from models.serving.merchandising.hidden_items import hidden_items
from models.serving.merchandising.rule_effects import boosted, capped, pinned
from models.serving.merchandising.rules import Asker, Rules
from models.serving.recommender import Recommender
from models.state.histories import History

DIVERSE_CANDIDATES = 2
"""Candidates for each item wanted that a diverse list is chosen from."""

EXPLORED_AT_ONCE = 8
"""New items that are tried on the rules at once for exploration slots."""

CAPPED_AT_ONCE = 64
"""Items whose values are read at first for caps; each time twice as many, until enough are left."""

NO_PINS: Mapping[int, str] = MappingProxyType({})

Ask = Callable[[int, History | None], Awaitable[Answer]]
"""Makes the answer of a request, with so many items, from the user's events if they were read."""


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
    looked for, see `others_allowed`; they are ranked for the user, below the candidates. Not
    without `refills`: where the candidates are given.

    Raises
    ------
    InvalidInput
        A filter needs an id that the request lacks.
    """
    history = None
    if rules.reads_user:
        history = await recommender.snapshots.history(asker.user_id, asker.session_id, now_s=now_s)
    taken_out = rules.exclude | await hidden_items(recommender, rules.hide, history, asker, now_s)
    ruled = _RuledRequest(recommender, rules, asker, now_s, history, taken_out)
    pins = await ruled.shown_pins()

    async def kept_of(items: Sequence[str]) -> Sequence[str]:
        left = await ruled.allowed(rules.filters, items)
        # A new order may change which ones a cap leaves.
        is_reordered = rules.boosts or rules.diversity
        return left if is_reordered else await ruled.capped(left, pins)

    search = ruled.search(k)
    # Pins may add what the filters allow and a cap has no room for.
    if not pins:
        search = await within_known(recommender, search, now_s)
    # A boost may lift any candidate into the answer; what is taken out makes room for others.
    most = MAX_RESULTS + len(taken_out)
    wanted = DIVERSE_CANDIDATES * k if rules.diversity else k
    first = most if rules.boosts else min(most, first_length(wanted + len(taken_out)))
    answer, left = await until_enough(
        recommender,
        search,
        [*dict.fromkeys((first, most))],
        lambda length: ask(length, history),
        kept_of,
        now_s=now_s,
    )
    if answer.disliked:
        pins = {slot: name for slot, name in pins.items() if name not in answer.disliked}
    among = frozenset(left)
    kept = [item for item in answer.items if item.item_id in among]
    if refills and rules.filters and await ruled.has_too_few(kept, pins, search.k):
        kept += await ruled.others(answer, kept, pins)
        await note_most(recommender, search, now_s, ruled.capped if rules.caps else None)
    for boost in rules.boosts:
        among = frozenset(await ruled.allowed((boost.filter,), [item.item_id for item in kept]))
        kept = boosted(kept, among, boost.factor)
    if rules.diversity:
        kept = await _diversified(recommender, kept, rules.diversity, k, now_s)
    if rules.caps:
        among = frozenset(await ruled.capped([item.item_id for item in kept], pins, enough=k))
        kept = [item for item in kept if item.item_id in among]
    exploration = answer.exploration
    if answer.to_explore:
        kept, exploration = await ruled.explored(kept, answer.to_explore, pins, k)
    return msgspec.structs.replace(
        answer, items=pinned(kept, pins, k)[:k], to_explore={}, exploration=exploration
    )


class _RuledRequest(NamedTuple):
    """The rules of one request, with what they need.

    Attributes
    ----------
    history
        The user's events, where a rule reads them.
    taken_out
        Items that are excluded or hidden.
    """

    recommender: Recommender
    rules: Rules
    asker: Asker
    now_s: float
    history: History | None
    taken_out: frozenset[str]

    def search(self, k: int) -> ItemSearch:
        """The search for k items that these rules let through."""
        filters = [ItemFilter(one, {}, *self.asker) for one in self.rules.filters]
        return ItemSearch(
            k, filters, tuple(f"{one.most} {one.property}" for one in self.rules.caps)
        )

    async def allowed(self, filters: Sequence[Filter], items: Sequence[str]) -> list[str]:
        """The items that are not taken out, and that all of these filters allow."""
        left = [item for item in items if item not in self.taken_out]
        for one in filters:
            asked = ItemFilter(one, {}, *self.asker)
            left = await asked.allowed(
                self.recommender, left, now_s=self.now_s, history=self.history
            )
        return left

    async def shown_pins(self) -> dict[int, str]:
        """The pins of items that are known, not hidden, and allowed."""
        pins = self.rules.pins
        if not pins:
            return {}
        cache, names = self.recommender.cache, list(pins.values())
        indexes = await cache.item_indexes(names)
        known = {name: index for name, index in zip(names, indexes, strict=True) if index}
        shared = await cache.refresh(self.now_s)
        shown = shared.shown_ids(list(known), list(known.values()))
        among = frozenset(await self.allowed(self.rules.filters, shown))
        return {slot: item_id for slot, item_id in pins.items() if item_id in among}

    async def capped(
        self,
        items: Sequence[str],
        pins: Mapping[int, str] = NO_PINS,
        *,
        enough: int = MAX_OTHERS,
    ) -> Sequence[str]:
        """The items that the caps leave room for, pinned ones first; those of the first `enough`.

        Some more may be among them.
        """
        caps, first = self.rules.caps, tuple(pins.values())
        if not caps:
            return items
        names, left, at, n = sorted({one.property for one in caps}), list[str](), 0, CAPPED_AT_ONCE
        while at < len(items) and len(left) < enough:
            some = [*first, *left, *items[at : at + n]]
            groups = await value_groups(self.recommender, some, names, now_s=self.now_s)
            # Those that are left so far stay.
            left = capped(some[len(first) :], groups, caps, first=first)
            at, n = at + n, 2 * n
        return left

    async def explored(
        self,
        kept: Sequence[Recommendation],
        to_explore: Mapping[str, float],
        pins: Mapping[int, str],
        k: int,
    ) -> tuple[list[Recommendation], Exploration | None]:
        """The items with new ones, which the rules allow too, in exploration slots."""
        of_pins = frozenset(pins.values())
        listed = [item for item in kept if item.item_id not in of_pins][: k - len(pins)]
        names = [item.item_id for item in listed]
        known = of_pins.union(names)
        others = (name for name in to_explore if name not in known)
        wanted, new = self.recommender.lists.exploration_slots(len(listed)), list[str]()
        # Mostly the first ones will do.
        while len(new) < wanted and (some := [*itertools.islice(others, EXPLORED_AT_ONCE)]):
            some = await self.allowed(self.rules.filters, some)
            if self.rules.caps:
                among = frozenset(await self.capped([*names, *new, *some], pins))
                some = [name for name in some if name in among]
            new += some
        pool = {name: to_explore[name] for name in new}
        shown, exploration = self.recommender.lists.explored(listed, [pool])
        return [*shown, *(item for item in kept if item.item_id in of_pins)], exploration

    async def has_too_few(
        self, kept: Sequence[Recommendation], pins: Mapping[int, str], k: int
    ) -> bool:
        """True if the caps leave less than k of the items."""
        if len(kept) < k or not self.rules.caps:
            return len(kept) < k
        return len(await self.capped([item.item_id for item in kept], pins, enough=k)) < k

    async def others(
        self, answer: Answer, kept: Sequence[Recommendation], pins: Mapping[int, str]
    ) -> list[Recommendation]:
        """Items that the filters allow beside those of an answer, of which these were kept.

        Of more than can be ranked, first those that the caps leave room for.
        """
        least = min((one.score for one in kept if one.score > 0), default=1.0)
        user_id, session_id, _ = self.asker
        history = self.history
        if history is None:
            snapshots = self.recommender.snapshots
            history = await snapshots.history(user_id, session_id, now_s=self.now_s)
        names = await others_allowed(
            self.recommender,
            [ItemFilter(one, {}, *self.asker) for one in self.rules.filters],
            answer,
            most=MAX_OTHERS if self.rules.caps else MAX_RESULTS,
            now_s=self.now_s,
            history=history,
            taken_out=self.taken_out,
        )
        if self.rules.caps:
            before = [item.item_id for item in kept]
            among = frozenset(await self.capped([*before, *names], pins))
            if among.isdisjoint(names):
                return []
            if len(names) > MAX_RESULTS:
                names.sort(key=lambda name: name not in among)
        return await _ranked(
            self.recommender, names[:MAX_RESULTS], self.asker, least, self.now_s, history
        )


async def _ranked(
    recommender: Recommender,
    items: Sequence[str],
    asker: Asker,
    below: float,
    now_s: float,
    history: History,
) -> list[Recommendation]:
    """Items that only the filter has found, the likeliest for the user first, with lower scores."""
    ranked = await recommender.rank(
        items,
        user_id=asker.user_id,
        session_id=asker.session_id,
        now_s=now_s,
        history=history,
    )
    reasons = (Reason("filter"),)
    return [Recommendation(one.item_id, below * one.score, reasons) for one in ranked.items]


async def _diversified(
    recommender: Recommender,
    items: Sequence[Recommendation],
    diversity: float,
    k: int,
    now_s: float,
) -> list[Recommendation]:
    """The items reordered by maximal marginal relevance, on categories and on who took both."""
    first = items[: DIVERSE_CANDIDATES * k]
    order = await diverse_places(recommender, [item.item_id for item in first], diversity, k, now_s)
    return [*(first[place] for place in order), *items[len(first) :]]


async def diverse_places(
    recommender: Recommender, items: Sequence[str], diversity: float, k: int, now_s: float
) -> list[int]:
    """Places of ranked items in a new order, the first k of them chosen."""
    cache = recommender.cache
    indexes = await cache.item_indexes(items)
    shared = await cache.refresh(now_s)
    groups = await categories(recommender, items, now_s=now_s)
    lists = await cache.neighbours(indexes, now_s)
    similarity = similarity_of(np.array(indexes, np.int64), groups, lists, shared.clock_s)
    return mmr_order(similarity, diversity, k)
