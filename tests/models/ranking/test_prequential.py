"""Measures against their formulas, and the guard that chooses the champion.

The functions measure one example each, so of Amazon Personalize's worked example only the
reciprocal rank and the gains apply; precision, which needs several relevant items in one list,
has no counterpart yet.
"""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.prequential import (
    CUTOFF,
    MIN_EXAMPLES_TO_SERVE,
    WINDOW,
    Scoreboard,
    measures_of,
)

RANKS = st.integers(0, 2 * CUTOFF)


@given(RANKS)
def test_measures_are_the_formulas(rank: int) -> None:
    """As measured on a list with the one relevant item at its rank."""
    relevant = [place == rank for place in range(1, CUTOFF + 1)]

    measures = measures_of(rank)

    assert measures["hr"] == sum(relevant)
    assert measures["mrr"] == max(hit / place for place, hit in enumerate(relevant, 1))
    gains = [hit / math.log2(place + 1) for place, hit in enumerate(relevant, 1)]
    assert measures["ndcg"] == pytest.approx(sum(gains))


def test_worked_example_of_the_measures() -> None:
    """Hits at ranks 2 and 5: reciprocal rank of the first, and discounted gains."""
    assert measures_of(2)["mrr"] == 0.5
    gains = measures_of(2)["ndcg"] + measures_of(5)["ndcg"]
    ideal = measures_of(1)["ndcg"] + measures_of(2)["ndcg"]
    assert gains / ideal == pytest.approx(0.6241, abs=2e-4)


@given(st.lists(st.tuples(RANKS, RANKS), min_size=1, max_size=60))
def test_scoreboard_has_running_means(ranks: list[tuple[int, int]]) -> None:
    """Up to its window, the scoreboard has the plain mean of each measure of each ranker."""
    board = Scoreboard()
    for ranker, blend in ranks:
        board.update({"ranker": ranker, "blend": blend})

    assert board.n == len(ranks)
    for name, own in zip(("ranker", "blend"), zip(*ranks, strict=True), strict=True):
        for measure, value in board.means[name].items():
            expected = sum(measures_of(rank)[measure] for rank in own) / len(own)
            assert value == pytest.approx(expected)
    assert msgspec.json.decode(msgspec.json.encode(board), type=Scoreboard) == board


def test_scoreboard_decays_old_examples() -> None:
    """Beyond its window, older examples decay with each further one."""
    board = Scoreboard()
    for _ in range(WINDOW):
        board.update({"ranker": 0})
    for _ in range(WINDOW):
        board.update({"ranker": 1})

    assert board.means["ranker"]["hr"] == pytest.approx(1 - (1 - 1 / WINDOW) ** WINDOW)


def test_the_learned_ranker_is_champion_only_while_it_leads() -> None:
    """The blend is champion at first and whenever the ranker falls behind it."""
    board = Scoreboard()
    for n in range(MIN_EXAMPLES_TO_SERVE):
        assert board.champion() == "blend", n
        board.update({"ranker": 2, "blend": 2})
    assert board.champion() == "ranker"
    board.update({"ranker": 3, "blend": 2})
    assert board.champion() == "blend"
    for _ in range(10):
        board.update({"ranker": 1, "blend": 2})
    assert board.champion() == "ranker"


@pytest.mark.parametrize(("more_hits", "champion"), [(1, "ranker-alone"), (20, "ranker")])
def test_user_neighbours_are_read_where_they_find_more(more_hits: int, champion: str) -> None:
    """Hits at the end of the list hardly count in MRR, and pay all the same if they are many."""
    board = Scoreboard()
    for n in range(MIN_EXAMPLES_TO_SERVE):
        rank = 20 if n < more_hits else 1
        alone = 0 if n < more_hits else 1
        board.update({"ranker": rank, "ranker-alone": alone, "blend": 0})
    assert board.means["ranker"]["mrr"] < 1.01 * board.means["ranker-alone"]["mrr"]
    assert board.champion() == champion
