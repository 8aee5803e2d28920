"""Why an item is in an answer: the events and signals that lifted it above the other candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from models.arrays import Floats
from models.ranking.features import FEATURES
from models.ranking.ranker import UNITS, Ranker
from models.retrieval.covisitation import BOTH, Neighbours
from models.retrieval.profile import UserProfile
from models.state.layout import FADES

NO_HOPS: Mapping[int, Neighbours] = {}

MAX_REASONS = 3
"""Reasons given of one item, at most."""

EPSILON = 1e-9
"""A sum that moves by less has the slope it has in the end."""


class Reason(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Why an item is in the answer; `share` of all that speaks for it.

    `source` is "event" where an event of the user led to the item, and says which; else a signal:
    alike, popular, trending, recent, new, history, category or exploration.
    """

    source: str
    item_id: str | None = None
    event_type: str | None = None
    occurred_at: float | None = None
    share: float | None = None


class Attribution(NamedTuple):
    """A reason before it has names: the index of the event's item, 0 where it is no event."""

    source: str
    item: int
    share: float


def _source(feature: str) -> str:
    if feature.startswith("alike"):
        return "alike"
    if feature.startswith(("popular", "purchase")):
        return "popular"
    named = {"trend": "trending", "since_last_touch": "recent", "since_first_touch": "new"}
    if feature in named:
        return named[feature]
    own = ("in_context", "position_back", "is_before_last")
    return "history" if feature in own or feature.startswith("own") else "event"


SOURCES = np.array([_source(feature) for feature in FEATURES])


def contributions(matrix: Floats, ranker: Ranker) -> dict[str, Floats]:
    """What each source adds to every candidate's score, against the mean candidate; ``(n,)`` each.

    Integrated gradients (Sundararajan et al. 2017, "Axiomatic attribution for deep networks") from
    the mean candidate on: together they are the score less its own. On the way a hidden unit's sum
    moves evenly, so that its mean slope is what it gives more in the end by what its sum is more.
    """
    slopes, shift, outward = ranker.slopes
    mean = matrix.mean(axis=0)
    start, end = (rows @ slopes[:UNITS].T + shift for rows in (mean, matrix))
    way = end - start
    still = np.abs(way) < EPSILON
    lit = np.maximum(end, 0.0) - np.maximum(start, 0.0)
    opened = np.where(still, end > 0.0, lit / np.where(still, 1.0, way))
    weighed = (matrix - mean) * ((opened * outward) @ slopes[:UNITS] + slopes[UNITS])
    return {
        str(source): weighed[:, source == SOURCES].sum(axis=1) for source in dict.fromkeys(SOURCES)
    }


def _share(neighbours: Neighbours, item: int) -> float:
    places = np.flatnonzero(neighbours.items == item)
    return float(neighbours.shares[places[0], BOTH]) if len(places) else 0.0


def _links(
    item: int, context: UserProfile, lists: Sequence[Neighbours], hops: Mapping[int, Neighbours]
) -> list[tuple[float, int]]:
    """How much each of the context's items is linked with the item; over a hop where none is."""
    direct = [_share(neighbours, item) for neighbours in lists]
    if not any(direct):
        onward = {hop: _share(neighbours, item) for hop, neighbours in hops.items()}
        direct = [
            sum(share * _share(neighbours, hop) for hop, share in onward.items() if share)
            for neighbours in lists
        ]
    return [
        (float(FADES[distance]) * share, int(context.recent[distance]))
        for distance, share in enumerate(direct)
        if share
    ]


def attributions_of(
    item: int,
    lifts: dict[str, float],
    context: UserProfile,
    lists: Sequence[Neighbours],
    heads: Sequence[str],
    hops: Mapping[int, Neighbours] = NO_HOPS,
) -> list[Attribution]:
    """The reasons for one item, strongest first, at most `MAX_REASONS`; shares sum to 1 at most.

    Parameters
    ----------
    lifts
        Of each source, the item's of `contributions`.
    lists
        Neighbours of `context.recent`, in that order.
    heads
        Names of the top lists that the item heads, for one that nothing else speaks for.
    hops
        Neighbours of the items from which it was looked further.
    """
    links = _links(item, context, lists, hops)
    speaking = {source: lift for source, lift in lifts.items() if lift > 0}
    if not links:
        speaking.pop("event", None)
    elif not speaking:
        speaking = {"event": 1.0}
    if not speaking:
        return [Attribution(heads[0] if heads else "history", 0, 1.0)]
    total = sum(speaking.values())
    linked = sum(weight for weight, _ in links) or 1.0
    event = speaking.pop("event", 0.0) / total
    causes = [Attribution(source, 0, lift / total) for source, lift in speaking.items()]
    causes += [
        Attribution("event", index, event * weight / linked) for weight, index in links if event
    ]
    return sorted(causes, key=lambda cause: (-cause.share, cause.source, cause.item))[:MAX_REASONS]
