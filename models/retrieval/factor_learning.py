"""Learning of item factors: the main directions of who took what, in whole histories.

The singular vectors of the matrix of owners and items, by block power iteration: each pass over the
histories multiplies a few columns by it and its transpose, and no pair of items is ever stored.
Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import numpy as np
from numba import f4, i8
from numpy.typing import NDArray

from models.arrays import Indexes
from models.machine_code import compiled
from models.retrieval.item_factors import POPULARITY_POWER, SINGLES, Singles
from models.state.stored_factors import FACTOR, N_FACTORS

MAX_FACTOR_ITEMS = 100_000
"""Items that get factors, those with most owners: 4.4 MB of Redis, and 14 of each process."""

MIN_OWNERS = 2
"""Owners of an item from which on it has factors."""

LENGTH_POWER = 0.25
"""A history counts less by this power of its length: long ones have most pairs."""

SPARE_COLUMNS = 8
"""Columns beside those that are kept, so that these converge."""

NOISE_SHARE = 1e-3
"""Value of a direction, as a share of the greatest, below which it is what rounding leaves."""

PASSES = 8
"""Passes over the histories."""

ITEM_PLACE = 2**24
"""An owner's number times this, and the index of an item, are one number."""


@compiled(f4[:, ::1](i8[::1], i8[::1], f4[::1], f4[::1], f4[:, ::1]), releases_gil=True)
def _multiplied(
    ends: Indexes, items: Indexes, history_weights: Singles, item_weights: Singles, block: Singles
) -> Singles:
    """The block times the weighted matrix of histories and items, and times its transpose."""
    n_columns, start = block.shape[1], 0
    product, row = np.zeros_like(block), np.empty(n_columns, np.float32)
    for history in range(len(ends)):
        row[:] = 0.0
        for at in range(start, ends[history]):
            item = items[at]
            weight = item_weights[item]
            for column in range(n_columns):
                row[column] += weight * block[item, column]
        for at in range(start, ends[history]):
            item = items[at]
            weight = item_weights[item] * history_weights[history]
            for column in range(n_columns):
                product[item, column] += weight * row[column]
        start = ends[history]
    return product


def _orthonormal(block: Singles) -> Singles:
    found: Singles = np.ascontiguousarray(np.linalg.qr(block.astype(np.float64))[0], SINGLES)
    return found


def learned_factors(owners: Indexes, items: Indexes) -> NDArray[np.void]:
    """Factors of items by who took them, ``(n,)`` of `FACTOR`, the most taken item first.

    A second or two for a million events; the working memory is some 1 KB an item with factors and
    60 bytes an event. The same events give the same factors.

    Parameters
    ----------
    owners, items
        ``(n,)`` number of the history and index of the item, of each event, in any order. Repeats
        count once.
    """
    taken = np.unique(owners * ITEM_PLACE + items)
    owners, items = taken // ITEM_PLACE, taken % ITEM_PLACE
    indexes, numbers, n_owners = np.unique(items, return_inverse=True, return_counts=True)
    order = np.argsort(-n_owners, kind="stable")[:MAX_FACTOR_ITEMS]
    order = order[n_owners[order] >= MIN_OWNERS]
    if not len(order):
        return np.empty(0, FACTOR)
    places = np.full(len(indexes), -1)
    places[order] = np.arange(len(order))
    places = places[numbers]
    owners, places = owners[places >= 0], places[places >= 0]
    ends = np.append(np.flatnonzero(np.diff(owners)) + 1, len(owners))
    lengths = np.diff(ends, prepend=0)
    weights = (lengths ** (-2.0 * LENGTH_POWER)).astype(SINGLES)
    # From a history of one item nothing is learned about pairs.
    weights[lengths < 2] = 0.0
    item_weights = (n_owners[order] ** -POPULARITY_POWER).astype(SINGLES)
    vectors = _directions(ends, places, weights, item_weights)
    found = np.empty(len(order), FACTOR)
    found["item"], found["owners"] = indexes[order], n_owners[order]
    found["scale"] = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127.0
    found["codes"] = np.rint(vectors / found["scale"][:, np.newaxis])
    return found


def _directions(ends: Indexes, items: Indexes, weights: Singles, item_weights: Singles) -> Singles:
    """The right singular vectors of the greatest singular values, ``(n_items, N_FACTORS)``.

    Each is scaled by the root of 1 - noise / value: `value` is its squared singular value, `noise`
    the least one here.
    """
    rng = np.random.default_rng(1)
    # Of few items, not all that tells them apart.
    n_columns = min(N_FACTORS + SPARE_COLUMNS, (len(item_weights) + 1) // 2)
    block = rng.normal(size=(len(item_weights), n_columns)).astype(SINGLES)
    for _ in range(PASSES):
        block = _multiplied(ends, items, weights, item_weights, _orthonormal(block))
    block = _orthonormal(block)
    # The best directions within the block's space.
    inner = block.T @ _multiplied(ends, items, weights, item_weights, block)
    values, within = np.linalg.eigh((inner + inner.T).astype(np.float64))
    weakest = max(values[0], NOISE_SHARE * values[-1])
    values, kept = values[::-1][:N_FACTORS], within[:, ::-1][:, :N_FACTORS]
    # A direction counts as far as it stands out of the weakest one here, which is mostly noise.
    kept = kept * np.sqrt(1.0 - weakest / np.maximum(values, max(weakest, 1e-12)))
    vectors = np.zeros((len(block), N_FACTORS), SINGLES)
    vectors[:, : kept.shape[1]] = block @ kept
    return vectors
