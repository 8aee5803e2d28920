"""Retrieval, features, ranking and examples: pure, bounded, and learning."""

from __future__ import annotations

import contextlib
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import examples, layout
from models.features import BASE, FEATURES, features_of
from models.prequential import K, Scoreboard, measures_of
from models.ranking import Ranker
from models.retrieval import (
    CO_VISITED,
    OWN,
    TOPS_TAKEN,
    Candidates,
    Context,
    Neighbours,
    Slots,
    blend,
    context_of,
    retrieve,
)
from models.sessions import History


def history(*items: int) -> History:
    """A history of clicks a minute apart."""
    n = len(items)
    times = np.arange(n, dtype=np.uint32) * 60 + 1_790_000_000
    return History(n, 1.0, np.array(items, np.uint32), times, np.ones(n, np.uint8))


def lists_of(context: Context, seed: int, n_items: int) -> list[Neighbours]:
    """Random neighbour lists of the context's items."""
    rng = np.random.default_rng(seed)
    lists = []
    for _ in context.recent:
        items = rng.choice(np.arange(1, n_items), min(n_items - 1, 160), replace=False)
        lists.append(Neighbours(items.astype(np.int64), rng.random((len(items), 6))))
    return lists


HISTORIES = st.lists(st.integers(0, 400), max_size=100)


@given(HISTORIES, st.integers(0, 99))
def test_candidates_are_bounded_and_distinct(events: list[int], seed: int) -> None:
    """No candidate twice, none unknown, and never more than the sources add up to."""
    context = context_of(history(*events))
    tops = {name: np.arange(1, 301) * 3 for name in TOPS_TAKEN}
    lists = lists_of(context, seed, 900)

    candidates = retrieve(context, lists, tops, Slots())

    items = candidates.items.tolist()
    assert len(set(items)) == len(items) <= CO_VISITED + OWN + sum(TOPS_TAKEN.values())
    assert min(items) > 0
    assert (candidates.signals >= 0).all()
    again = retrieve(context, lists, tops, Slots())
    assert np.array_equal(again.items, candidates.items)
    assert np.array_equal(again.signals, candidates.signals)


@given(st.lists(st.integers(0, 5000), max_size=200), st.lists(st.integers(0, 6000), max_size=50))
def test_slots_number_distinct_items(items: list[int], asked: list[int]) -> None:
    """Numbering agrees with the naive one, and asking for others gives -1."""
    slots, given_items = Slots(), np.array(items, np.int64)

    distinct, places = slots.number(given_items)
    found = slots.places(np.array(asked, np.int64), distinct)

    assert sorted(distinct.tolist()) == sorted(set(items))
    assert np.array_equal(distinct[places], given_items)
    assert [distinct[p] if p >= 0 else None for p in found] == [
        item if item in set(items) else None for item in asked
    ]


@given(HISTORIES)
def test_context_is_the_history_distilled(events: list[int]) -> None:
    """Distinct known items, newest first, with counts and distance."""
    context = context_of(history(*events))
    known = [item for item in reversed(events) if item]

    assert context.items.tolist() == list(dict.fromkeys(known))
    assert context.counts.tolist() == [known.count(item) for item in context.items]
    assert context.positions.tolist() == [known.index(item) + 1 for item in context.items]
    assert len(context.recent) <= layout.WINDOW


@given(HISTORIES, st.integers(0, 99), st.floats(0, 2e9))
def test_features_are_finite_and_pure(events: list[int], seed: int, clock_s: float) -> None:
    """Any state at any clock gives finite features, the same ones each time."""
    rng = np.random.default_rng(seed)
    context = context_of(history(*events))
    candidates = retrieve(context, lists_of(context, seed, 300), {"all": np.arange(1, 99)}, Slots())
    stats = np.zeros(len(candidates.items), layout.STAT)
    stats["events"] = rng.integers(0, 2**31, len(stats))
    stats["log2"] = rng.normal(0, 1e4, (len(stats), 4))
    stats["last"] = rng.integers(0, 2**32, len(stats))

    first = features_of(candidates, context, stats, np.zeros(5), clock_s, Slots())
    second = features_of(candidates, context, stats, np.zeros(5), clock_s, Slots())

    assert first.shape == (len(candidates.items), len(FEATURES))
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)


def test_columns_are_what_they_are_called() -> None:
    """A small situation, feature by feature."""
    context = context_of(history(5, 6, 5))
    signals = np.zeros((2, 9))
    signals[1] = 4.0
    stats = np.zeros(2, layout.STAT)
    stats["events"], stats["last"], stats["first"] = [8, 2], [1000, 990], [900, 990]
    stats["log2"] = [[3, 2, 1, 0], [2, 2, 2, 2]]
    best = np.array([3.0, 2, 2, 2, 3])

    matrix = features_of(
        Candidates(np.array([5, 9]), signals), context, stats, best, 1000.0, Slots()
    )
    row = {name: matrix[:, n].tolist() for n, name in enumerate(FEATURES)}

    assert row["next_1_share"] == [0, 1]
    assert row["popular_hour"] == pytest.approx([0, -math.log(2)])
    assert row["popular_all"] == pytest.approx([0, -math.log(4)])
    assert row["trend"] == pytest.approx([2 * math.log(2), 0])
    assert row["since_last_touch"] == pytest.approx([0, math.log1p(10)])
    assert row["in_context"] == [1, 0]
    assert row["position_back"] == [1, 0]
    assert row["own_count"] == pytest.approx([math.log1p(2), 0])
    assert row["base"] == row["base_middle"] == pytest.approx([0, 1.7])
    assert row["base"] == pytest.approx(blend(signals).tolist())


def choices(
    n: int, seed: int
) -> list[tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], int]]:
    """Choices that follow the popularity of the week and nothing else."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        rows = rng.random((30, len(FEATURES)))
        wanted = rows[:, FEATURES.index("popular_week")] * 8 + rng.gumbel(size=30) * 0.3
        made.append((rows, int(wanted.argmax())))
    return made


def mean_rank(ranker: Ranker) -> float:
    """Mean reciprocal rank over fresh choices."""
    total = 0.0
    for rows, chosen in choices(200, seed=2):
        scores = ranker.scores(rows)
        total += 1 / int((scores >= scores[chosen]).sum())
    return total / 200


def test_ranker_learns_what_is_chosen() -> None:
    """What users follow gains weight, and the order gets better."""
    ranker = Ranker()
    before = mean_rank(ranker)
    for rows, chosen in choices(600, seed=1):
        ranker.learn_one(rows, chosen)

    assert mean_rank(ranker) > before + 0.3
    assert FEATURES[int(np.argmax(ranker.weights))] == "popular_week"


def test_fresh_ranker_orders_as_the_blend_does() -> None:
    """Before it has learned, the ranker is the blend."""
    rows = np.random.default_rng(3).random((50, len(FEATURES)))

    assert np.array_equal(np.argsort(Ranker().scores(rows)), np.argsort(rows[:, BASE]))


def test_ranker_state_round_trip() -> None:
    """A ranker out of its state goes on exactly as the one it came from; scoring changes none."""
    ranker = Ranker()
    for rows, chosen in choices(20, seed=4):
        ranker.learn_one(rows, chosen)
    copy = Ranker.from_state(ranker.state())
    rows, chosen = choices(1, seed=5)[0]
    state = ranker.state()
    assert np.array_equal(ranker.scores(rows), copy.scores(rows))
    assert ranker.state() == state

    ranker.learn_one(rows, chosen)
    copy.learn_one(rows, chosen)

    assert copy.state() == ranker.state()
    other = msgspec.json.encode(msgspec.json.decode(state) | {"features": ["other"]})
    assert Ranker.from_state(other).n_examples == 0


def test_examples_carry_the_choice_first() -> None:
    """An example holds the chosen row, distinct others, and the rank by every rival."""
    rng = np.random.default_rng(6)
    items, matrix = np.arange(1, 101), rng.random((100, len(FEATURES)))

    made = examples.decode(examples.encode(examples.make_example(items, matrix, 42, Ranker(), rng)))

    assert made is not None
    rows = made.matrix()
    assert rows.shape == (1 + examples.NEGATIVES, len(FEATURES))
    assert rows[0] == pytest.approx(matrix[41], abs=1e-3)
    assert len({row.tobytes() for row in rows}) == len(rows)
    base = matrix[:, BASE]
    assert made.ranks["blend"] == int((base >= base[41]).sum())
    missed = examples.make_example(items, matrix, 999, Ranker(), rng)
    assert (missed.rows, set(missed.ranks.values())) == (b"", {0})


@given(st.binary(max_size=200))
def test_damaged_examples_are_refused(raw: bytes) -> None:
    """Bytes are an example, an outdated one, or an error of two kinds."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError):
        examples.decode(raw)


def test_worked_example_of_the_measures() -> None:
    """Hits at ranks 2 and 5: reciprocal rank of the first, and discounted gains."""
    assert measures_of(2)["mrr"] == 0.5
    gains = measures_of(2)["ndcg"] + measures_of(5)["ndcg"]
    ideal = measures_of(1)["ndcg"] + measures_of(2)["ndcg"]
    assert gains / ideal == pytest.approx(0.6241, abs=2e-4)


@given(st.lists(st.integers(0, 2 * K), min_size=1, max_size=60))
def test_scoreboard_is_the_mean(ranks: list[int]) -> None:
    """Up to its window, the scoreboard is the plain mean of each measure."""
    board = Scoreboard()
    for rank in ranks:
        board.update({"ranker": rank, "blend": rank})

    for measure, value in board.means["ranker"].items():
        assert value == pytest.approx(np.mean([measures_of(rank)[measure] for rank in ranks]))


def test_learned_order_serves_only_while_it_leads() -> None:
    """The guard: the blend serves at first and whenever the ranker falls behind it."""
    board = Scoreboard()
    for _ in range(400):
        board.update({"ranker": 1, "blend": 2})
    assert board.serving() == "ranker"
    for _ in range(4000):
        board.update({"ranker": 0, "blend": 2})
    assert board.serving() == "blend"
    assert Scoreboard().serving() == "blend"
