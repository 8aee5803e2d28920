"""Caps and exploration: bounded, complete, and of what was never shown first."""

from __future__ import annotations

import operator
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.diversity import CapGroup, apply_caps, insert_explored, thompson_order

KINDS = st.lists(
    st.sets(st.tuples(st.sampled_from("xy"), st.sampled_from("abc")), max_size=2),
    min_size=1,
    max_size=30,
)


@given(KINDS, st.integers(1, 30), st.integers(1, 5), st.randoms(use_true_random=False))
def test_caps_hold_while_there_is_choice(
    kinds: list[set[CapGroup]], k: int, most: int, chance: random.Random
) -> None:
    """Nothing is lost; the first places keep their order, and no kind has more than it may."""
    order = list(range(len(kinds)))
    chance.shuffle(order)

    result = apply_caps(order, kinds, k, {"x": most, "y": most + 1})

    assert sorted(result) == sorted(order)
    taken: list[int] = []
    for place in order:
        counts = [sum(kind in kinds[other] for other in taken) for kind in kinds[place]]
        limits = [most if what == "x" else most + 1 for what, _ in kinds[place]]
        if len(taken) < k and all(map(operator.lt, counts, limits)):
            taken.append(place)
    assert result[: len(taken)] == taken
    assert result[len(taken) :] == [place for place in order if place not in taken]


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_what_is_tried_stands_in_the_second_half(n: int, tried: int, seed: int) -> None:
    """The list stays as long as it was, and its first half as it was."""
    tried = min(tried, n // 2)
    listed, new = list(range(n)), [100 + number for number in range(tried)]

    result = insert_explored(listed, new, random.Random(seed))

    assert len(result) == n
    assert result[: n // 2] == listed[: n // 2]
    assert set(new) <= set(result)
    assert [item for item in result if item < 100] == listed[: n - tried]


def test_new_items_get_their_turn_and_failures_lose_it() -> None:
    """One never shown is drawn far oftener than one shown a hundred times in vain."""
    rng = np.random.default_rng(7)
    events, shown = np.zeros(2), np.array([0.0, 100.0])

    firsts = [int(thompson_order(events, shown, 1, rng)[0]) for _ in range(300)]

    assert firsts.count(0) > 280
    assert len(thompson_order(events, shown, 5, rng)) == 2
