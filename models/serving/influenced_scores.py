"""Scores of candidates with the influences of an answer's options."""

from __future__ import annotations

import numpy as np

from models.arrays import Floats, Indexes
from models.metadata_records import named_values
from models.ranking.influences import with_influences
from models.serving.answer_options import AnswerOptions
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState


async def influenced_scores(
    cache: StateCache,
    shared: SharedState,
    items: Indexes,
    scores: Floats,
    options: AnswerOptions,
    now_s: float,
) -> Floats:
    """Scores of items, mixed with their popularity, freshness and objective as the options say.

    The same array without influences; otherwise up to two reads, from the cache.
    """
    if not options.is_influenced or not len(items):
        return scores
    influences = []
    if options.popularity or options.freshness:
        stats = await cache.stats(items, now_s)
        influences.append((options.popularity, np.log1p(stats["events"].astype(np.float64))))
        age_s = np.maximum(shared.clock_s - stats["first"], 0.0)
        influences.append((options.freshness, -np.log1p(age_s)))
    if options.objective:
        values = np.full(len(items), np.nan)
        known = await cache.properties(items.tolist(), now_s)
        for place, properties in enumerate(known):
            value = named_values(properties, [options.objective_column])
            number = value.get(options.objective_column)
            if isinstance(number, int | float) and not isinstance(number, bool):
                values[place] = number
        influences.append((options.objective, values))
    return with_influences(scores, influences)
