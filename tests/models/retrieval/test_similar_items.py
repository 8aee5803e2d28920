"""Candidates for similar items: those that an item's factors are near to, beside what was found."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.candidates import Candidates
from models.retrieval.item_factors import MAX_OF_FACTORS, NO_FACTORS, similarities
from models.retrieval.signals import BOTH_10, FACTORS, N_SIGNALS
from models.retrieval.similar_items import with_similar_factors
from tests.models.retrieval.test_item_factors import by_definition, events, factors


def found(items: list[int]) -> Candidates:
    """Candidates that were co-visited."""
    signals = np.zeros((len(items), N_SIGNALS))
    signals[:, BOTH_10] = 1.0
    return Candidates(np.array(items, np.int64), signals)


def test_the_nearest_items_join_what_was_found() -> None:
    """Each once, the item itself never; those that were found keep what they have."""
    known = factors()
    item = int(known.items[5])
    kept, pairs = by_definition(*events())
    n_owners = (known.own_weights**-2.0)[known.places[kept]]
    symmetric = (n_owners / n_owners[kept == item]) ** -0.25 * pairs[kept == item][0]
    expected = np.maximum(symmetric, 0.0)
    expected[kept == item] = 0.0
    first = [int(known.items[1]), 9999]

    joined = with_similar_factors(found(first), item, known)

    assert joined.items[:2].tolist() == first
    assert joined.signals[:2, BOTH_10].tolist() == [1.0, 1.0]
    assert not joined.signals[2:, BOTH_10].any()
    best = set(kept[np.argsort(-expected)][:MAX_OF_FACTORS].tolist())
    assert set(joined.items.tolist()) == best | set(first)
    assert len(joined.items) == len(set(joined.items.tolist()))
    by_item = dict(zip(kept.tolist(), expected.tolist(), strict=True))
    signal = [by_item.get(one, 0.0) for one in joined.items.tolist()]
    assert joined.signals[:, FACTORS] == pytest.approx(signal, abs=0.02)


def test_similarity_is_the_same_both_ways() -> None:
    """Popular items are not nearer for being popular, unlike in the signal of users."""
    known = factors()
    one, other = known.items[:1].copy(), known.items[-1:].copy()
    there = similarities(other, int(one[0]), known)
    back = similarities(one, int(other[0]), known)
    assert there == pytest.approx(back)
    assert similarities(np.array([9999]), int(one[0]), known).tolist() == [0.0]


@pytest.mark.parametrize("item", [9999, 1])
def test_without_factors_nothing_is_added(item: int) -> None:
    """An item that few have taken, and a group that is young."""
    known = factors() if item == 9999 else NO_FACTORS
    candidates = found([2, 3])
    assert with_similar_factors(candidates, item, known) is candidates
