"""Answers: recommended items, best first, and their reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import NO_ITEMS, Floats, Indexes
from models.metadata_records import Value
from models.ranking.explanations import Attribution, Reason, attributions_of, source_contributions
from models.ranking.explored_lists import Exploration
from models.ranking.features import FEATURES
from models.ranking.ranker import Ranker
from models.retrieval.covisitation import unpack_neighbours
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState
from models.serving.sources import RequestSnapshot
from models.state.histories import NO_HISTORY, History

RecipeName = Literal["user-personalization", "similar-items", "popularity-count", "trending-now"]
ServingLevel = Literal["ranked", "retrieved", "trending", "cached"]

MAX_RESULTS = 500

TEXT_SHARE = FEATURES.index("text_share")

TOP_LIST_SOURCES = {
    "hour": "trending",
    **dict.fromkeys(("day", "week", "month", "all"), "popular"),
    "recent": "recent",
    "new": "new",
}
"""Source that a reason names for each top list, the most specific list first."""


class Recommendation(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One item of an answer; `score` in [0, 1], comparable within the answer only.

    A boost may raise it above 1. An item in an exploration slot stands at a random place, whatever
    its score, and so does a pinned one at its slot. `properties` are those that were asked for.
    """

    item_id: str
    score: float
    reasons: tuple[Reason, ...] = ()
    is_exploration: bool = False
    properties: dict[str, Value] | None = None


class AnsweredPlacement(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The placement that an answer was made for."""

    name: str
    version: Annotated[int, Meta(description="Counts the times that it was saved.")]
    caption: str
    arm: Annotated[str, Meta(description="Of the experiment that is running there.")] = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Recommendations, best first, and how they came about.

    Attributes
    ----------
    level
        Serving level: ranked; retrieved (in the order of the blend); trending; or cached (trending
        as last read: the store is away).
    user_accepted_at, newest_accepted_at
        When the newest event in effect was accepted, of this user and overall; 0: none yet.
    placement
        The placement that was asked for, if one was.
    to_explore
        New items for exploration slots that the list does not have yet, with their weights; some
        may be in it.
    exploration
        How it was explored; None for a list without anything drawn.
    disliked
        Items that are in no answer to this user: what is added to the list must not be among them.
    """

    items: list[Recommendation]
    recipe: str
    level: ServingLevel
    user_accepted_at: float = 0.0
    newest_accepted_at: float = 0.0
    placement: AnsweredPlacement | None = None
    to_explore: Mapping[str, float] = {}
    exploration: Exploration | None = None
    disliked: tuple[str, ...] = ()


def answer_of(
    items: list[Recommendation],
    recipe: str,
    level: ServingLevel,
    shared: SharedState,
    history: History = NO_HISTORY,
) -> Answer:
    """An answer as of what the shared state and the user's history have in effect."""
    return Answer(items, recipe, level, history.accepted_at, shared.accepted_at)


def scored_by_position(
    item_ids: Iterable[str | None], source: str, *, after: int = 0
) -> list[Recommendation]:
    """Items in an order without scores of its own, after as many others.

    >>> [one.score for one in scored_by_position(["tent", "stove"], "fresh")]
    [1.0, 0.5]
    """
    known = (item_id for item_id in item_ids if item_id is not None)
    return [
        Recommendation(item_id, 1.0 / place, (Reason(source),))
        for place, item_id in enumerate(known, after + 1)
    ]


def without_disliked(answer: Answer, disliked: tuple[str, ...], k: int) -> Answer:
    """The first k items of an answer that are not among the disliked ones, which it then names."""
    items = [one for one in answer.items if one.item_id not in disliked]
    return msgspec.structs.replace(answer, items=items[:k], disliked=disliked)


async def with_reasons(
    items: Sequence[Recommendation],
    snapshot: RequestSnapshot,
    candidates: Indexes,
    matrix: Floats,
    ranker: Ranker,
    cache: StateCache,
) -> list[Recommendation]:
    """The items with their reasons, from the features that ranked them.

    Parameters
    ----------
    candidates, matrix
        Indexes of all candidates, and their features.
    """
    shared, hops = snapshot.shared, snapshot.evidence.second_hops
    lists, hop_lists = (
        [unpack_neighbours(raw, shared.clock_s) for raw in stored]
        for stored in (snapshot.evidence.neighbour_lists, hops.lists)
    )
    by_hop = dict(zip(hops.items.tolist(), hop_lists, strict=True))
    by_source = source_contributions(matrix, ranker)
    indexes = await cache.store.item_indexes([item.item_id for item in items])
    explained = []
    for item, index in zip(items, indexes, strict=True):
        if not index:  # its shard is away by now
            explained.append(item)
            continue
        place = int(np.flatnonzero(candidates == index)[0])
        contributions = {source: float(values[place]) for source, values in by_source.items()}
        listed_by = [
            source
            for name, source in TOP_LIST_SOURCES.items()
            if index in shared.top_lists.get(name, NO_ITEMS)
        ]
        if matrix[place, TEXT_SHARE]:
            listed_by.insert(0, "text")
        found = attributions_of(index, contributions, snapshot.profile, lists, listed_by, by_hop)
        reasons = [await _reason(one, snapshot, cache) for one in found]
        explained.append(msgspec.structs.replace(item, reasons=tuple(reasons)))
    return explained


async def _reason(attribution: Attribution, snapshot: RequestSnapshot, cache: StateCache) -> Reason:
    if not attribution.item:
        return Reason(attribution.source, share=attribution.share)
    (item_id,) = await cache.item_ids.of([attribution.item])
    event_type, occurred_at = _last_event(snapshot, attribution.item)
    return Reason("event", item_id, event_type, occurred_at, attribution.share)


def _last_event(snapshot: RequestSnapshot, item: int) -> tuple[str | None, float | None]:
    """Type and time of the user's last event on an item; a view now for one being looked at."""
    history = snapshot.history
    places = np.flatnonzero(history.items == item)
    if not len(places):
        return "view", None
    last = places[-1]
    event_type = snapshot.shared.event_types.get(int(history.types[last]))
    return event_type, float(history.times[last])
