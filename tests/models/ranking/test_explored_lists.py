"""Drawn slots of a list, and the probability that each of them had."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.explored_lists import exploration_rate, explore, joined_pool


@given(
    st.integers(0, 30),
    st.dictionaries(st.sampled_from("uvwxyz"), st.integers(1, 100)),
    st.floats(0.01, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_slots_of_the_second_half_show_another_item_or_their_own(
    n: int, pool: dict[str, int], rate: float, seed: int
) -> None:
    """Each pool item at most once; a probability of all that is shown; the first half is left."""
    listed = [f"item{number}" for number in range(n)]

    slots = explore(listed, pool, rate, random.Random(seed)).slots

    assert [slot.replaced or slot.item_id for slot in slots] == listed[n // 2 :]
    drawn = [slot.item_id for slot in slots if slot.replaced is not None]
    assert len(drawn) == len(set(drawn))
    assert set(drawn) <= pool.keys()
    assert all(0 < slot.probability <= 1 for slot in slots)


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_logged_probabilities_are_those_of_the_draw(rate: float) -> None:
    """The product over a list's slots is how often that list is drawn, and they add up to one."""
    rng, n_draws = random.Random(7), 60_000
    pool = {"x": 5000, "y": 3000, "z": 2000}
    counts, expected = Counter[tuple[str, ...]](), dict[tuple[str, ...], float]()
    for _ in range(n_draws):
        slots = explore(["a", "b", "c", "d"], pool, rate, rng).slots
        shown = tuple(slot.item_id for slot in slots)
        counts[shown] += 1
        expected[shown] = slots[0].probability * slots[1].probability

    assert sum(expected.values()) == pytest.approx(1.0)
    for shown, probability in expected.items():
        error = (probability * (1 - probability) / n_draws) ** 0.5
        assert abs(counts[shown] / n_draws - probability) < 5 * error


def test_a_list_without_slots_or_pool_is_left() -> None:
    """Nothing is drawn where nothing can be, and the log says so."""
    assert exploration_rate(0, 3) == 0.0
    assert exploration_rate(3, 5) == 1.0
    assert [slot.probability for slot in explore(["a", "b"], {}, 0.5, random.Random(7)).slots] == [
        1.0
    ]
    assert joined_pool([{}, {}]) == {}
    many = {f"item{n}": 1.0 for n in range(40)}
    assert len(joined_pool([many])) == 16
