"""Metrics of a solution version, against Amazon's example and a naive computation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.personalize.training.solution_metrics import solution_metrics

NDCG = "normalized_discounted_cumulative_gain_at_"
NAMES = {
    "coverage", "mean_reciprocal_rank_at_25", "precision_at_5", "precision_at_10",
    "precision_at_25", f"{NDCG}5", f"{NDCG}10", f"{NDCG}25",
}  # fmt: skip


def test_the_example_of_the_guide() -> None:
    """The second and the fifth recommendation are hits, K is 5."""
    found = solution_metrics([["a", "b", "c", "d", "e"]], [{"b", "e"}], n_items=20)

    assert found["mean_reciprocal_rank_at_25"] == 0.5
    assert round(found[f"{NDCG}5"], 4) == 0.6241
    assert found["precision_at_5"] == 0.4
    assert found["precision_at_10"] == 0.2
    assert found["precision_at_25"] == 0.08
    assert found["coverage"] == 0.25
    assert set(found) == NAMES


def test_edges() -> None:
    """No users, no items, no hits and hits beyond K are all 0; all hits are 1."""
    assert solution_metrics([], [], n_items=0) == dict.fromkeys(NAMES, 0.0)
    nothing = solution_metrics([[], ["a"]], [{"a"}, set()], n_items=4)
    assert nothing == dict.fromkeys(NAMES, 0.0) | {"coverage": 0.25}
    items = [f"i{n}" for n in range(30)]
    assert solution_metrics([items], [items[25:]], n_items=30) == dict.fromkeys(NAMES, 0.0) | {
        "coverage": 25 / 30
    }
    everything = solution_metrics([items], [set(items)], n_items=25)
    assert everything == pytest.approx(dict.fromkeys(NAMES, 1.0))
    with pytest.raises(ValueError, match="shorter"):
        solution_metrics([items], [], n_items=30)


USERS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 40).map(str), unique=True, max_size=35),
        st.sets(st.integers(0, 40).map(str), max_size=6),
    ),
    min_size=1,
    max_size=6,
)


@given(USERS, st.integers(41, 60))
def test_metrics_equal_a_naive_computation(
    users: list[tuple[list[str], set[str]]], n_items: int
) -> None:
    """Each metric, one user and one position at a time."""
    found = solution_metrics(
        [best for best, _ in users], [own for _, own in users], n_items=n_items
    )

    ranks: list[float] = []
    for best, own in users:
        places = [place for place, item in enumerate(best[:25], 1) if item in own]
        ranks.append(1 / places[0] if places else 0.0)
    expected = {"mean_reciprocal_rank_at_25": sum(ranks) / len(users)}
    for k in (5, 10, 25):
        precisions, gains = [], []
        for best, own in users:
            places = [place for place, item in enumerate(best[:k], 1) if item in own]
            precisions.append(len(places) / k)
            gain = sum(1 / math.log(1 + place) for place in places)
            ideal = sum(1 / math.log(1 + place) for place in range(1, len(places) + 1))
            gains.append(gain / ideal if places else 0.0)
        expected[f"precision_at_{k}"] = sum(precisions) / len(users)
        expected[f"{NDCG}{k}"] = sum(gains) / len(users)
    expected["coverage"] = len({item for best, _ in users for item in best[:25]}) / n_items
    assert found == pytest.approx(expected)
    assert all(0 <= value <= 1 + 1e-9 for value in found.values())
