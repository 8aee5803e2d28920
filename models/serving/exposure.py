"""Exposure of the catalogue by lists that were served lately: its share, and how popular it is.

The measures are those of Castells, Hurley and Vargas, "Novelty and Diversity in Recommender
Systems" (Recommender Systems Handbook, 2022).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from models.serving.cached.cache import StateCache
from models.state.outcomes.served_lists import sampled_lists

MAX_SAMPLED = 500
"""Lists that are looked at, drawn at random of those that are kept."""

SHOWN = 20
"""First items of a list that count."""

HEAD_SHARE = 0.1
"""Share of the items with most events that are the head."""


class Exposure(msgspec.Struct, frozen=True, rename="camel"):
    """Exposure of items by served lists, the first 20 of each."""

    lists: Annotated[int, Meta(description="Lists looked at: 500 at most, drawn of those kept.")]
    items: Annotated[int, Meta(description="Distinct items in them.")]
    known_items: Annotated[int, Meta(description="Items that the group knows.")]
    coverage: Annotated[float, Meta(description="Share of the known items that they show.")]
    head_share: Annotated[
        float,
        Meta(description="Share of places with the most popular of the shown items, a tenth."),
    ]
    novelty_bits: Annotated[
        float, Meta(description="Mean of -log2 of an item's share of all events, by places.")
    ]


async def exposure(cache: StateCache, *, now_s: float) -> Exposure:
    """The exposure of items in lists that are kept; some milliseconds.

    Raises
    ------
    redis.exceptions.RedisError
        The store is away.
    """
    lists = await sampled_lists(cache.store, MAX_SAMPLED)
    counts = await cache.store.counts()
    known = int(counts.get("items", 0))
    places = np.array([item for one in lists for item in one[:SHOWN] if item], np.int64)
    if not len(places):
        return Exposure(len(lists), 0, known, 0.0, 0.0, 0.0)
    items, n_shown = np.unique(places, return_counts=True)
    n_events = np.maximum(1, (await cache.stats(items, now_s))["events"].astype(np.float64))
    share = n_events / max(counts.get("events", 0.0), float(n_events.sum()))
    most = np.argsort(-n_events, kind="stable")[: max(1, int(HEAD_SHARE * len(items)))]
    return Exposure(
        len(lists),
        len(items),
        known,
        round(len(items) / max(known, len(items)), 4),
        round(float(n_shown[most].sum() / n_shown.sum()), 4),
        round(float((n_shown * -np.log2(share)).sum() / n_shown.sum()), 3),
    )
