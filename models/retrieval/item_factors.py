"""Item factors: a short vector of each item, learned from whole histories, and what they bring.

What two items have in common over all histories, smoothed: items that were never taken by the same
owner are near if both go with the same others. Pure functions on arrays; nothing here reads a
store.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numba import b1, f4, f8, i4, i8, void
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.state.stored_factors import N_FACTORS, unpack_factors

SINGLES = np.float32
Singles = NDArray[np.float32]

FACTOR_ITEMS = 50
"""Distinct items of a profile, newest first, whose factors count."""

FACTOR_FADE = 0.97
"""Weight of an item's factors beside those of the item after it."""

POPULARITY_POWER = 0.25
"""Power of the number of an item's owners that pairs are divided by before they are smoothed, at
either item: half of a cosine. An item that is sought gets it back."""

MAX_OF_FACTORS = 40
"""Candidates for their factors."""

MAX_SOUGHT = 2000
"""Items among which those are sought: the most taken ones. It bounds a request's time."""


class ItemFactors(msgspec.Struct, frozen=True, gc=False):
    """Factors of a group's items, as requests need them.

    Attributes
    ----------
    items
        ``(n,)`` item indexes, the most taken first.
    places
        Place in `items` by item index; -1 for items without factors.
    vectors
        ``(n, N_FACTORS)``, times the power `POPULARITY_POWER` of the item's owners:
        as it is sought.
    own_weights
        ``(n,)`` what makes of that vector the one of an item that the user has.
    """

    items: Indexes
    places: NDArray[np.int32]
    vectors: Singles
    own_weights: Singles


NO_FACTORS = ItemFactors(
    NO_ITEMS, np.empty(0, np.int32), np.empty((0, N_FACTORS), SINGLES), np.empty(0, SINGLES)
)


def factors_of(raw: bytes | None) -> ItemFactors:
    """The factors in their stored form; some ms for 100,000 items."""
    _, stored = unpack_factors(raw)
    if not len(stored):
        return NO_FACTORS
    items = stored["item"].astype(np.int64)
    places = np.full(int(items.max()) + 1, -1, np.int32)
    places[items] = np.arange(len(items))
    owners = stored["owners"].astype(SINGLES)
    scales = stored["scale"] * owners ** np.float32(POPULARITY_POWER)
    vectors = np.ascontiguousarray(stored["codes"] * scales[:, np.newaxis], SINGLES)
    own_weights = (owners ** np.float32(-2 * POPULARITY_POWER)).astype(SINGLES)
    return ItemFactors(items, places, vectors, own_weights)


@compiled(f4[::1](i8[::1], i4[::1], f4[:, ::1], f4[::1]))
def _user_vector(
    own: Indexes, places: NDArray[np.int32], vectors: Singles, own_weights: Singles
) -> Singles:
    found, fade = np.zeros(N_FACTORS, np.float32), 1.0
    for item in own[:FACTOR_ITEMS]:
        place = places[item] if item < len(places) else -1
        if place >= 0:
            weight = np.float32(fade * own_weights[place])
            for factor in range(N_FACTORS):
                found[factor] += weight * vectors[place, factor]
        fade *= FACTOR_FADE
    return found


@compiled(f4(f4[:, ::1], i8, f4[::1]), any_order=True)
def _product(vectors: Singles, place: int, vector: Singles) -> np.float32:
    total = np.float32(0.0)
    for factor in range(N_FACTORS):
        total += vectors[place, factor] * vector[factor]
    return total


@compiled(Tuple((i8[::1], f8[::1]))(f4[::1], i8[::1], f4[:, ::1], i8[::1], i8[::1]), any_order=True)
def _nearest(
    user: Singles, items: Indexes, vectors: Singles, own: Indexes, barred: Indexes
) -> tuple[Indexes, Floats]:
    own_table, barred_table = table_of(own), table_of(barred)
    found, scores = np.empty(MAX_OF_FACTORS, np.int64), np.zeros(MAX_OF_FACTORS)
    n, least, weakest, n_sought = 0, 0.0, 0, min(len(items), MAX_SOUGHT)
    products = np.empty(n_sought, np.float32)
    for place in range(n_sought):
        total = np.float32(0.0)
        for factor in range(N_FACTORS):
            total += vectors[place, factor] * user[factor]
        products[place] = total
    for place in range(n_sought):
        score = products[place]
        if score <= least:
            continue
        item = items[place]
        if own_table[slot_of(own_table, own, item)] >= 0:
            continue
        if barred_table[slot_of(barred_table, barred, item)] >= 0:
            continue
        # Few get here: behind the first ones, a score is seldom among the best so far.
        at = weakest
        if n < MAX_OF_FACTORS:
            at, n = n, n + 1
        found[at], scores[at] = item, score
        if n == MAX_OF_FACTORS:
            weakest = int(np.argmin(scores))
            least = scores[weakest]
    return found[:n], scores[:n]


@compiled(void(i8[::1], f8[:, ::1], i8, b1, i8[::1], f4[::1], i4[::1], f4[:, ::1]))
def _add_products(
    items: Indexes,
    signals: Floats,
    signal: int,
    with_unseen: bool,
    own: Indexes,
    user: Singles,
    places: NDArray[np.int32],
    vectors: Singles,
) -> None:
    own_table = table_of(own)
    for at in range(len(items)):
        place = places[items[at]] if items[at] < len(places) else -1
        if place < 0 or own_table[slot_of(own_table, own, items[at])] >= 0:
            continue
        if with_unseen or signals[at].any():
            signals[at, signal] = max(float(_product(vectors, place, user)), 0.0)


@compiled(f8[::1](i8[::1], i8, i4[::1], f4[:, ::1], f4[::1]), any_order=True)
def _similarities(
    items: Indexes,
    place: int,
    places: NDArray[np.int32],
    vectors: Singles,
    own_weights: Singles,
) -> Floats:
    # Half of the popularity that either item has when it is sought by the other.
    vector, found = np.sqrt(own_weights[place]) * vectors[place], np.zeros(len(items))
    for at in range(len(items)):
        other = places[items[at]] if items[at] < len(places) else -1
        if other >= 0:
            total = np.float32(0.0)
            for factor in range(N_FACTORS):
                total += vectors[other, factor] * vector[factor]
            found[at] = max(np.sqrt(own_weights[other]) * total, np.float32(0.0))
    return found


def similarities(items: Indexes, item: int, factors: ItemFactors) -> Floats:
    """``(n,)`` similarity of each item's factors to those of one; 0 for items without factors.

    The product of both vectors as they were learned: unlike the signal of users, it is symmetric.
    """
    place = int(factors.places[item]) if item < len(factors.places) else -1
    if place < 0:
        return np.zeros(len(items))
    found: Floats = _similarities(
        items, place, factors.places, factors.vectors, factors.own_weights
    )
    return found


class UserFactors(msgspec.Struct, frozen=True, gc=False):
    """Factors of a user, beside those of the items.

    Attributes
    ----------
    vector
        ``(N_FACTORS,)``.
    own
        ``(n,)`` items of the user.
    """

    factors: ItemFactors
    vector: Singles
    own: Indexes

    def nearest(self, barred: Indexes) -> NeighbourItems:
        """The items with most of the signal, neither own nor barred, at most `MAX_OF_FACTORS`."""
        factors = self.factors
        if not len(factors.items):
            return NO_NEIGHBOURS
        return NeighbourItems(
            *_nearest(self.vector, factors.items, factors.vectors, self.own, barred)
        )

    def add_to(self, items: Indexes, signals: Floats, signal: int, *, with_unseen: bool) -> None:
        """Write the signal of new items; own ones have none, nor those without factors.

        `with_unseen` says whether items get it that have no other signal.
        """
        factors = self.factors
        if len(factors.items):
            _add_products(
                items, signals, signal, with_unseen, self.own, self.vector, factors.places,
                factors.vectors,
            )  # fmt: skip


def user_factors(own: Indexes, factors: ItemFactors) -> UserFactors:
    """Factors of a user with these items, newest first."""
    if not len(own) or not len(factors.items):
        factors = NO_FACTORS
    vector = _user_vector(own, factors.places, factors.vectors, factors.own_weights)
    return UserFactors(factors, vector, own)
