"""Rates of an item's events by horizon, from decayed counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.state import layout

MIN_AGE_S = 60.0
"""Age that a new item has at least: an event of this second is no rate of thousands an hour."""


def hourly_rates(
    log2: NDArray[np.float64], first_event_at: float, *, now_s: float
) -> dict[str, float]:
    """Events an hour, weighted by type: means that decay with the half-lives of popularity.

    A count decays with its half-life, so it holds what came in 1.44 of them; of an item that is
    younger what came since its first event.

    Parameters
    ----------
    log2
        Logarithms of the decayed counts, as `layout.STAT` has them.
    first_event_at
        Unix seconds.

    >>> once_an_hour = np.log2(np.array([1.44, 34.6, 242.3, 1038.7]))
    >>> decayed = once_an_hour + layout.POPULARITY_RATES * 1e8
    >>> hourly_rates(decayed, 0.0, now_s=layout.EPOCH + 1e8)
    {'hour': 0.998, 'day': 0.999, 'week': 1.0, 'month': 1.0}
    """
    age_s = max(MIN_AGE_S, now_s - first_event_at)
    counts = np.exp2(np.minimum(log2 - (now_s - layout.EPOCH) * layout.POPULARITY_RATES, 60.0))
    covered_s = (1 - np.exp2(-age_s * layout.POPULARITY_RATES)) / layout.POPULARITY_RATES
    rates = counts * np.log(2.0) / covered_s * 3600.0
    return {
        name: round(float(rate), 3)
        for name, rate in zip(layout.POPULARITY_HALF_LIVES_S, rates, strict=True)
    }
