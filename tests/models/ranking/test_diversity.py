"""Diversity: a dial from the order of scores to items that differ from each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arrays import Floats
from models.ranking.diversity import mmr_order, similarity_of
from models.retrieval.covisitation import BOTH, unpack_neighbours
from tests.models.state.pair_records import PairCodes, pack_pairs

CLOCK_S = 1_800_000_000.0


def alike(kinds: list[int]) -> Floats:
    """Similarity of items of the same kind, 1, and of others, 0."""
    return np.equal.outer(kinds, kinds).astype(np.float64)


@given(st.lists(st.integers(0, 3), max_size=12), st.floats(0, 1), st.integers(1, 15))
def test_every_item_stays(kinds: list[int], diversity: float, k: int) -> None:
    """Each place once; the first item stays first, and with 0 all do."""
    order = mmr_order(alike(kinds), diversity, k)

    assert sorted(order) == list(range(len(kinds)))
    assert order[:1] == [0][: len(kinds)]
    assert mmr_order(alike(kinds), 0.0, k) == list(range(len(kinds)))
    # Of one kind, the better comes first.
    for kind in set(kinds):
        own = [place for place in order[:k] if kinds[place] == kind]
        assert own == sorted(own)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_the_end_of_the_dial_shows_each_kind_first(kinds: list[int]) -> None:
    """Before any kind comes twice."""
    n = len(set(kinds))

    order = mmr_order(alike(kinds), 1.0, n)

    assert {kinds[place] for place in order[:n]} == set(kinds)


def test_similarity_is_by_category_or_by_who_took_both() -> None:
    """The greater of both, the same in both directions."""
    lists = [pack_pairs([PairCodes(30, 9), PairCodes(99, 2)], CLOCK_S), b"", b""]
    groups = [["g=a", "g=b"], ["g=b"], ["g=c"]]

    found = similarity_of(np.array([20, 10, 30]), groups, lists, CLOCK_S)

    assert found.tolist() == [[1.0, 0.5, 1.0], [0.5, 1.0, 0.0], [1.0, 0.0, 1.0]]
    assert similarity_of(np.zeros(0, np.int64), [], [], CLOCK_S).shape == (0, 0)


PAIRS = st.dictionaries(st.integers(1, 6), st.integers(1, 1000)).map(
    lambda codes: pack_pairs([PairCodes(*one) for one in codes.items()], CLOCK_S)
)


@given(st.lists(st.integers(1, 6), unique=True, max_size=6), st.data(), st.floats(0, 2**32))
def test_similarity_by_who_took_both_is_relative_to_the_greatest(
    items: list[int], data: st.DataObject, clock_s: float
) -> None:
    """As worked out from the unpacked lists, one by one, at any clock."""
    lists = [data.draw(PAIRS) for _ in items]

    found = similarity_of(np.array(items, np.int64), [()] * len(items), lists, clock_s)

    shares: list[dict[int, float]] = []
    for near in (unpack_neighbours(raw, clock_s) for raw in lists):
        own = near.shares[:, BOTH] / near.shares[:, BOTH].max(initial=1e-300)
        shares.append(dict(zip(near.items.tolist(), own.tolist(), strict=True)))
    for row, one in enumerate(items):
        for column, other in enumerate(items):
            expected = max(shares[row].get(other, 0.0), shares[column].get(one, 0.0))
            assert found[row, column] == pytest.approx(1.0 if one == other else expected)
