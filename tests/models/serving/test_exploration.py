"""Exploration slots: Thompson sampling, and their places in an answer."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.serving.exploration import insert_explored, thompson_order


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_explored_items_stand_in_the_second_half(n: int, explored: int, seed: int) -> None:
    """The length of the list and its first half stay the same."""
    explored = min(explored, n // 2)
    listed, new = list(range(n)), [100 + number for number in range(explored)]

    result = insert_explored(listed, new, random.Random(seed))

    assert len(result) == n
    assert result[: n // 2] == listed[: n // 2]
    assert set(new) <= set(result)
    assert [item for item in result if item < 100] == listed[: n - explored]


def test_items_without_success_are_sampled_less() -> None:
    """An item never shown comes first far more often than one shown a hundred times in vain."""
    rng = np.random.default_rng(7)
    events, shown = np.zeros(2), np.array([0.0, 100.0])

    firsts = [int(thompson_order(events, shown, 1, rng)[0]) for _ in range(300)]

    assert firsts.count(0) > 280
    assert len(thompson_order(events, shown, 5, rng)) == 2
