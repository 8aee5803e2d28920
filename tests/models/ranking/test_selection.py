"""Diversity caps: they hold where possible, and no item is lost."""

from __future__ import annotations

import operator
import random

from hypothesis import given
from hypothesis import strategies as st

from models.ranking.selection import CapGroup, apply_caps

GROUPS = st.lists(
    st.sets(st.tuples(st.sampled_from("xy"), st.sampled_from("abc")), max_size=2),
    min_size=1,
    max_size=30,
)


@given(GROUPS, st.integers(1, 30), st.integers(1, 5), st.randoms(use_true_random=False))
def test_caps_hold_while_other_items_are_left(
    groups: list[set[CapGroup]], k: int, most: int, rng: random.Random
) -> None:
    """No place is lost; the order is kept, and no group exceeds its cap in the first places."""
    order = list(range(len(groups)))
    rng.shuffle(order)

    result = apply_caps(order, groups, k, {"x": most, "y": most + 1})

    assert sorted(result) == sorted(order)
    taken: list[int] = []
    for place in order:
        counts = [sum(one in groups[other] for other in taken) for one in groups[place]]
        limits = [most if name == "x" else most + 1 for name, _ in groups[place]]
        if len(taken) < k and all(map(operator.lt, counts, limits)):
            taken.append(place)
    assert result[: len(taken)] == taken
    assert result[len(taken) :] == [place for place in order if place not in taken]
