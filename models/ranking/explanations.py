"""Reasons of an answer: attribution of an item's score to events and sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from models.arrays import Floats
from models.ranking.features import FEATURES
from models.ranking.ranker import Ranker
from models.retrieval.covisitation import BOTH, Neighbours
from models.retrieval.profile import UserProfile
from models.state.layout import FADES

NO_HOPS: Mapping[int, Neighbours] = {}
"""No second-order co-visitation."""

MAX_REASONS = 3
"""Most reasons of one item."""


class Reason(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Reason for an item, with its share of all positive contributions to the item's score.

    `source` is "event" for an event of the user, which is then described; otherwise a signal:
    alike, text, popular, trending, recent, new, history, category or exploration; or a rule of the
    request: filter or pinned.
    """

    source: str
    item_id: str | None = None
    event_type: str | None = None
    occurred_at: float | None = None
    share: float | None = None


class Attribution(NamedTuple):
    """A reason by indexes: `item` is the index of the event's item, 0 for other sources."""

    source: str
    item: int
    share: float


def _source(feature: str) -> str:
    if feature.startswith("alike"):
        return "alike"
    if feature.startswith(("popular", "purchase")):
        return "popular"
    if feature.startswith("text"):
        return "text"
    named = {"trend": "trending", "since_last_touch": "recent", "since_first_touch": "new"}
    if feature in named:
        return named[feature]
    own = ("in_context", "position_back", "is_before_last")
    is_own = feature in own or feature.startswith(("own", "again"))
    return "history" if is_own else "event"


SOURCES = np.array([_source(feature) for feature in FEATURES])


def source_contributions(matrix: Floats, ranker: Ranker) -> dict[str, Floats]:
    """Contribution of each source to every candidate's score, ``(n,)`` each.

    A source adds up the features that belong to it; see `Ranker.contributions`.
    """
    by_feature = ranker.contributions(matrix)
    return {
        str(source): by_feature[:, source == SOURCES].sum(axis=1)
        for source in dict.fromkeys(SOURCES)
    }


def _share(neighbours: Neighbours, item: int) -> float:
    places = np.flatnonzero(neighbours.items == item)
    return float(neighbours.shares[places[0], BOTH]) if len(places) else 0.0


def _links(
    item: int, profile: UserProfile, lists: Sequence[Neighbours], hops: Mapping[int, Neighbours]
) -> list[tuple[float, int]]:
    """Co-visitation of the item with each recent item; of second order if there is no direct."""
    links = [_share(neighbours, item) for neighbours in lists]
    if not any(links):
        onward = {hop: _share(neighbours, item) for hop, neighbours in hops.items()}
        links = [
            sum(share * _share(neighbours, hop) for hop, share in onward.items() if share)
            for neighbours in lists
        ]
    return [
        (float(FADES[distance]) * share, int(profile.recent[distance]))
        for distance, share in enumerate(links)
        if share
    ]


def attributions_of(
    item: int,
    contributions: Mapping[str, float],
    profile: UserProfile,
    lists: Sequence[Neighbours],
    listed_by: Sequence[str],
    hops: Mapping[int, Neighbours] = NO_HOPS,
) -> list[Attribution]:
    """Reasons for one item, strongest first, at most `MAX_REASONS`; shares sum to at most 1.

    Parameters
    ----------
    contributions
        The item's entry of each source in `source_contributions`.
    lists
        Neighbours of `profile.recent`, in that order.
    listed_by
        Sources that list the item; the first is the reason if no contribution is positive.
    hops
        Neighbours of the items of the second hop.
    """
    links = _links(item, profile, lists, hops)
    positive = {source: value for source, value in contributions.items() if value > 0}
    if not links:
        positive.pop("event", None)
    elif not positive:
        positive = {"event": 1.0}
    if not positive:
        return [Attribution(listed_by[0] if listed_by else "history", 0, 1.0)]
    total = sum(positive.values())
    linked = sum(weight for weight, _ in links) or 1.0
    event = positive.pop("event", 0.0) / total
    found = [Attribution(source, 0, value / total) for source, value in positive.items()]
    found += [
        Attribution("event", index, event * weight / linked) for weight, index in links if event
    ]
    return sorted(found, key=lambda one: (-one.share, one.source, one.item))[:MAX_REASONS]
