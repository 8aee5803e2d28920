"""Means with their 95 % confidence intervals, and of differences on the same queries."""

from __future__ import annotations

import math

import numpy as np

from models.arrays import Floats


def interval(values: Floats) -> tuple[float, float]:
    """Mean and half the width of its 95 % confidence interval (normal approximation)."""
    if len(values) < 2:
        return float(values.mean()) if len(values) else 0.0, math.inf
    return float(values.mean()), 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))


def compared_means(values: Floats, reference: Floats) -> dict[str, float]:
    """A model's mean on its queries, and its difference from the reference on the same ones.

    Queries without a value, which are not a number, are left out.

    >>> compared_means(np.array([1.0, np.nan, 1.0]), np.zeros(3))["difference"]
    1.0
    """
    has_value = ~np.isnan(values)
    mean, half = interval(values[has_value])
    difference, half_difference = interval((values - reference)[has_value])
    return {
        "mean": round(mean, 4),
        "ci95": round(half, 4),
        "difference": round(difference, 4),
        "difference_ci95": round(half_difference, 4),
    }
