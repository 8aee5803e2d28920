"""Queries apart: by whether the target is new to the user or cold, and along a learning curve."""

from __future__ import annotations

import numpy as np
import pytest

from models.arrays import Indexes
from models.evaluation.protocol import Scores, run
from models.evaluation.query_kinds import (
    COLD_AND_WARM,
    REPEATED_AND_NEW,
    by_kind,
    curve_kinds,
    kinds_as_text,
)
from models.evaluation.query_steps import split_steps, steps
from models.state.users.interactions import Interaction


def clicks(text: str) -> list[Interaction]:
    """One click a second of user and item, as in "ua ub"."""
    return [Interaction(one[0], one[1], "click", float(n)) for n, one in enumerate(text.split())]


class LikesFirst:
    """Ranks the items that it knows by their numbers."""

    def __init__(self, n_items: int = 0) -> None:
        self._n = n_items

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """All items, the first ones best."""
        return Scores(np.arange(self._n), -np.arange(float(self._n)))

    def learn(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Know the item."""
        self._n = max(self._n, item + 1)

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Do nothing."""


def test_repeated_and_new_targets_are_measured_apart() -> None:
    """A target that the user has had is repeated, whatever others did; kinds add up."""
    planned = steps(clicks("ua ub ua vb va uc"), "sessions", max_queries=9, warm_up=0.0)
    results = run(planned, {"it": LikesFirst()}, clock=lambda: 0.0)

    assert [asked.is_new for asked in results["it"].asked] == [True, False, True, True]
    assert [asked.item_events for asked in results["it"].asked] == [0, 1, 2, 0]
    found = by_kind(results, REPEATED_AND_NEW)
    assert {kind: rows["it"]["queries"] for kind, rows in found.items()} == {
        "repeated": 1,
        "new": 3,
    }
    # "a" is barred nowhere where it is asked for, and first; "b" and "c" had no number yet.
    assert found["repeated"]["it"]["mrr_20"]["mean"] == 1.0
    assert found["new"]["it"]["mrr_20"]["mean"] == pytest.approx(1 / 3, abs=1e-4)
    assert len(kinds_as_text(found).splitlines()) == 3


def test_a_kind_without_queries_is_left_out() -> None:
    """There is no mean of nothing."""
    planned = steps(clicks("ua ub"), "sessions", max_queries=9, warm_up=0.0)
    found = by_kind(run(planned, {"it": LikesFirst()}, clock=lambda: 0.0), COLD_AND_WARM)
    assert list(found) == ["cold"]


def test_a_learning_curve_counts_from_the_first_event() -> None:
    """A point holds the queries among the first so many events."""
    planned = steps(clicks("ua ub ua ub ua ub"), "sessions", max_queries=9, warm_up=0.0)
    found = by_kind(run(planned, {"it": LikesFirst()}, clock=lambda: 0.0), curve_kinds((2, 4, 99)))
    assert [rows["it"]["queries"] for rows in found.values()] == [1, 3, 5]


def test_a_split_with_seen_items_hidden_asks_for_new_ones_alone() -> None:
    """Every item that a user has had is barred, also those of the training events."""
    planned = split_steps(clicks("ua va"), clicks("ub ua uc"), frozen=False, kind="users")
    queries = [step.query for step in planned[2:]]
    assert queries[:2] == [None, None]
    assert queries[2] is not None
    assert queries[2].barred == {"a", "b"}


def test_items_of_a_catalogue_have_the_first_numbers() -> None:
    """A target that has no event yet can be found where it is known from a catalogue."""
    planned = steps(clicks("ua ub"), "sessions", max_queries=9, warm_up=0.0)
    results = run(planned, {"it": LikesFirst(2)}, clock=lambda: 0.0, catalogue=["b", "a"])
    assert results["it"].ranks == [1]
    assert results["it"].asked[0].item_events == 0
