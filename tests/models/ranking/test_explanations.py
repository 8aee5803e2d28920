"""Reasons: attribution of scores to sources and events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.explanations import MAX_REASONS, attributions_of, source_contributions
from models.ranking.features import AGAIN, FEATURES
from models.ranking.ranker import N_PARAMETERS, ListwiseRanker
from models.retrieval.covisitation import BOTH, Neighbours
from models.retrieval.profile import UserProfile

PROFILE = UserProfile(
    np.array([7, 8]),
    np.array([7, 8]),
    np.zeros(2),
    np.ones(2),
    np.zeros(2),
    np.ones(2),
    np.ones(2),
    2,
)


def linked(item: int, share: float) -> Neighbours:
    """A neighbour list of one item."""
    shares = np.zeros((1, BOTH + 1))
    shares[0, BOTH] = share
    return Neighbours(np.array([item]), shares)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_contributions_are_the_score(n: int, seed: int) -> None:
    """The contributions of all sources sum to a score less that of the mean candidate."""
    rng = np.random.default_rng(seed)
    ranker = ListwiseRanker(
        rng.normal(size=N_PARAMETERS),
        mean=rng.normal(size=len(FEATURES)),
        variance=rng.random(len(FEATURES)) + 0.1,
    )
    matrix = rng.normal(size=(n, len(FEATURES)))
    matrix[:, AGAIN] = 0.0
    matrix[0] = matrix[1:].mean(axis=0)

    total = sum(source_contributions(matrix, ranker).values())

    mean = ranker.scores(matrix.mean(axis=0, keepdims=True))
    assert total == pytest.approx(ranker.scores(matrix) - mean)


def test_events_share_their_contribution_by_co_visitation() -> None:
    """The event with the larger share comes first; negative contributions are no reasons."""
    lifts = {"event": 3.0, "popular": 1.0, "recent": -2.0}

    causes = attributions_of(1, lifts, PROFILE, [linked(1, 0.5), linked(1, 0.3125)], ["popular"])

    assert [(cause.source, cause.item) for cause in causes] == [
        ("event", 7),
        ("event", 8),
        ("popular", 0),
    ]
    assert [cause.share for cause in causes] == pytest.approx([0.5, 0.25, 0.25])


def test_second_order_co_visitation_explains_without_first_order() -> None:
    """The event whose item was co-visited with the intermediate one; direct links come first."""
    lists, hops = [linked(3, 0.25), linked(4, 0.5)], {4: linked(1, 0.5), 5: linked(1, 0.9)}

    (cause,) = attributions_of(1, {"event": 2.0}, PROFILE, lists, [], hops)
    assert (cause.source, cause.item, cause.share) == ("event", 8, 1.0)

    causes = attributions_of(1, {"event": 2.0}, PROFILE, [linked(1, 0.1), linked(4, 0.5)], [], hops)
    assert [cause.item for cause in causes] == [7]


def test_an_item_without_positive_contributions_has_a_reason() -> None:
    """Its top list, else the user's history."""
    assert attributions_of(1, {"event": -1.0}, PROFILE, [], ["trending"])[0].source == "trending"
    assert attributions_of(1, {"event": 1.0}, PROFILE, [], [])[0].source == "history"
    assert attributions_of(1, {"event": -1.0}, PROFILE, [linked(1, 0.1)], [])[0].item == 7


@given(
    st.dictionaries(st.sampled_from(["event", "alike", "popular", "new"]), st.floats(-5, 5)),
    st.booleans(),
)
def test_shares_are_bounded_and_ordered(lifts: dict[str, float], is_linked: bool) -> None:
    """At most three shares, none negative, at most 1 together, the largest first."""
    lists = [linked(1, 0.5)] if is_linked else [linked(2, 0.5)]

    causes = attributions_of(1, lifts, PROFILE, lists, [])

    shares = [cause.share for cause in causes]
    assert 1 <= len(causes) <= MAX_REASONS
    assert all(share >= 0 for share in shares)
    assert sum(shares) <= 1 + 1e-9
    assert shares == sorted(shares, reverse=True)
