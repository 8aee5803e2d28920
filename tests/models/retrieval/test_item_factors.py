"""Item factors: what is learned is a truncated decomposition, and what users get from it."""

from __future__ import annotations

import numpy as np
import pytest

from models.arrays import Floats, Indexes
from models.retrieval.factor_learning import MIN_OWNERS, SPARE_COLUMNS, learned_factors
from models.retrieval.item_factors import (
    FACTOR_FADE,
    FACTOR_ITEMS,
    MAX_OF_FACTORS,
    NO_FACTORS,
    ItemFactors,
    factors_of,
    user_factors,
)
from models.state.stored_factors import N_FACTORS, FactorsHead, pack_factors, unpack_factors

N_OWNERS, N_ITEMS, N_TASTES = 400, 90, 6
NONE = np.empty(0, np.int64)


def events(seed: int = 1) -> tuple[Indexes, Indexes]:
    """Owners of a few tastes and what they took, some of it twice; items from 1 on."""
    rng = np.random.default_rng(seed)
    appeal = rng.dirichlet(np.full(N_ITEMS, 0.15), size=N_TASTES)
    owners, items = [], []
    for owner in range(N_OWNERS):
        taken = rng.choice(N_ITEMS, size=rng.integers(1, 12), p=appeal[owner % N_TASTES])
        owners += [owner] * len(taken)
        items += (taken + 1).tolist()
    return np.array(owners), np.array(items)


def factors(seed: int = 1) -> ItemFactors:
    """Factors of these events, as a process reads them."""
    return factors_of(pack_factors(FactorsHead(5.0, 6, 7), learned_factors(*events(seed))))


def by_definition(owners: Indexes, items: Indexes) -> tuple[Indexes, Floats]:
    """What one item says of another, of those with `MIN_OWNERS`: of the decomposition in full."""
    taken = np.zeros((N_OWNERS, N_ITEMS + 1))
    taken[owners, items] = 1.0
    n_owners = taken.sum(axis=0)
    kept = np.flatnonzero(n_owners >= MIN_OWNERS)
    taken, n_owners = taken[:, kept], n_owners[kept]
    lengths = taken.sum(axis=1, keepdims=True)
    weights = np.where(lengths > 1, np.maximum(lengths, 1.0) ** -0.25, 0.0)
    _, roots, directions = np.linalg.svd(weights * taken * n_owners**-0.25, full_matrices=False)
    values = roots**2
    shares = 1.0 - values[N_FACTORS + SPARE_COLUMNS - 1] / values[:N_FACTORS]
    smoothed = (directions[:N_FACTORS].T * shares) @ directions[:N_FACTORS]
    return kept, (n_owners**-0.25)[:, np.newaxis] * smoothed * n_owners**0.25


def test_factors_are_those_of_the_whole_decomposition() -> None:
    """The signal of one item for another is the smoothed pair, within what eight bits lose."""
    found = factors()
    kept, pairs = by_definition(*events())
    assert sorted(found.items) == kept.tolist()
    # What the bound of error below is to be compared with.
    assert np.sort(pairs[~np.eye(len(kept), dtype=bool)])[-50] > 0.1
    for row, item in enumerate(kept.tolist()):
        user = user_factors(np.array([item]), found)
        signals = np.ones((len(kept), 2))
        user.add_to(kept, signals, 1, with_unseen=False)
        others = kept != item
        assert signals[others, 1] == pytest.approx(np.maximum(pairs[row][others], 0.0), abs=0.02)
        # An item says nothing of itself.
        assert signals[~others, 1] == 1.0


def test_repeats_and_order_of_events_change_nothing() -> None:
    """Who took an item twice took it; events may come in any order."""
    owners, items = events()
    order = np.random.default_rng(3).permutation(2 * len(owners))
    again = learned_factors(np.tile(owners, 2)[order], np.tile(items, 2)[order])
    assert again.tobytes() == learned_factors(owners, items).tobytes()
    counts = learned_factors(owners, items)["owners"]
    assert np.all(np.diff(counts.astype(int)) <= 0)


@pytest.mark.parametrize("items", [[], [3], [3, 4], [3, 3, 4, 4, 5]])
def test_few_events_give_few_factors(items: list[int]) -> None:
    """Fewer items than columns, or none at all."""
    found = learned_factors(np.arange(len(items)) % 2, np.array(items, np.int64))
    assert sorted(found["item"]) == [item for item in set(items) if items.count(item) > 1]
    head, stored = unpack_factors(pack_factors(FactorsHead(1.0, 2, len(found)), found))
    assert head == FactorsHead(1.0, 2, len(found))
    assert stored.tobytes() == found.tobytes()


def test_the_nearest_are_the_best_of_the_signal() -> None:
    """Neither own nor barred items; older ones of the user count less, and too old ones nothing."""
    found = factors()
    own = found.items[::2][:12].copy()
    barred = found.items[1:4].copy()
    user = user_factors(own, found)
    expected = np.zeros(N_FACTORS)
    for at, item in enumerate(own):
        place = found.places[item]
        expected += FACTOR_FADE**at * found.own_weights[place] * found.vectors[place]
    assert user.vector == pytest.approx(expected, abs=1e-4)

    scores = found.vectors @ user.vector
    open_ = ~np.isin(found.items, np.concatenate([own, barred])) & (scores > 0)
    best = found.items[open_][np.argsort(-scores[open_])][:MAX_OF_FACTORS]
    near = user.nearest(barred)
    assert set(near.items) == set(best)
    assert near.weights == pytest.approx(scores[found.places[near.items]], rel=1e-4)

    older = np.concatenate([np.arange(10_000, 10_000 + FACTOR_ITEMS), own])
    assert not user_factors(older, found).vector.any()


def test_items_that_only_a_list_has_get_no_signal() -> None:
    """Unless the items are given: then all do but own ones and those without factors."""
    found = factors()
    user = user_factors(found.items[:3].copy(), found)
    near = user.nearest(NONE).items[:4]
    asked = np.concatenate([near, found.items[:1], [9999]])
    for with_unseen in (False, True):
        signals = np.zeros((len(asked), 3))
        signals[0, 0] = 0.5
        user.add_to(asked, signals, 2, with_unseen=with_unseen)
        n = len(near) if with_unseen else 1
        assert np.flatnonzero(signals[:, 2]).tolist() == list(range(n))


def test_without_factors_or_items_there_is_nothing() -> None:
    """A group that is young, and a user without items."""
    for own, known in ((np.array([1]), NO_FACTORS), (NONE, factors())):
        user = user_factors(own, known)
        assert not len(user.nearest(NONE).items)
        signals = np.ones((1, 1))
        user.add_to(np.array([2]), signals, 0, with_unseen=True)
        assert signals[0, 0] == 1.0
