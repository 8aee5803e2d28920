"""Confidence sequences and the test of the sample ratio, on simulated users."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.statistics.confidence_sequences import (
    UserSums,
    difference,
    mixture_radius,
    shares_sums,
)
from models.statistics.sample_ratio import is_mismatch, mismatch_p

pytestmark = pytest.mark.unit

LOOK_EVERY = 100
USERS = 6000
RUNS = 100


def winners(rates: tuple[float, float], seed: int) -> list[str]:
    """Winner of each of a hundred experiments, looked at after every hundred users; "" for none.

    Users come one by one to either arm, and click with its rate in each of one to five lists.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RUNS):
        arm = rng.integers(0, 2, USERS)
        lists = rng.integers(1, 6, USERS)
        clicks = rng.binomial(lists, np.array(rates)[arm])
        sums = [
            (np.cumsum(arm == one), np.cumsum(clicks * (arm == one)),
             np.cumsum(clicks**2 * (arm == one)), np.cumsum((clicks > 0) & (arm == one)))
            for one in (0, 1)
        ]  # fmt: skip
        winner = ""
        for n in range(LOOK_EVERY - 1, USERS, LOOK_EVERY):
            control, other = (UserSums(*(int(column[n]) for column in columns)) for columns in sums)
            seen = difference(control, other)
            if seen is not None and (seen.low > 0 or seen.high < 0):
                winner = "b" if seen.low > 0 else "a"
                break
        found.append(winner)
    return found


def test_the_better_arm_wins() -> None:
    """In at least 95 of 100 experiments the one with a fifth more clicks, and never the other."""
    found = winners((0.10, 0.125), seed=1)

    assert found.count("b") >= 95
    assert found.count("a") == 0


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_equal_arms_rarely_have_a_winner(rate: float) -> None:
    """In at most 5 of 100, though looked at after every hundred users."""
    found = winners((rate, rate), seed=2)

    assert RUNS - found.count("") <= 5


SUMS = st.tuples(st.integers(100, 10**6), st.floats(0.1, 0.9)).map(
    lambda drawn: shares_sums(drawn[0], math.ceil(drawn[0] * drawn[1]))
)


@given(SUMS, SUMS, st.floats(0.001, 0.5))
def test_a_sequence_is_symmetric_and_around_the_estimate(
    control: UserSums, arm: UserSums, alpha: float
) -> None:
    """With arms exchanged it is the negative; with less risk it is wider."""
    found, back = difference(control, arm, alpha=alpha), difference(arm, control, alpha=alpha)
    wider = difference(control, arm, alpha=alpha / 2)
    assert found is not None
    assert back is not None
    assert wider is not None

    assert found.low <= found.estimate <= found.high
    assert found.estimate == pytest.approx(arm.mean - control.mean)
    assert (found.low, found.high) == pytest.approx((-back.high, -back.low))
    assert wider.high >= found.high


@given(st.integers(2, 10**7), st.floats(0.0001, 0.5))
def test_a_sequence_is_wider_than_an_interval_and_narrows(n: int, alpha: float) -> None:
    """More users make it narrower; never as narrow as an interval for one look."""
    radius = mixture_radius(n, alpha=alpha)

    assert mixture_radius(2 * n, alpha=alpha) < radius
    assert radius > math.sqrt(-2 * math.log(alpha) / n) / 2


def test_nothing_is_said_of_few_users() -> None:
    """Nor of many of whom nearly none did anything."""
    assert difference(shares_sums(99, 50), shares_sums(1000, 10)) is None
    assert difference(shares_sums(1000, 5), shares_sums(1000, 4)) is None


def test_a_mismatch_is_found_and_rarely_invented() -> None:
    """Of a hundred right splits at most one is refused at any of its looks; a wrong one is soon."""
    rng = np.random.default_rng(3)
    shares = [0.5, 0.3, 0.2]
    refused = 0
    for _ in range(RUNS):
        counts = np.cumsum(rng.multinomial(100, shares, size=100), axis=0)
        refused += any(is_mismatch(row.tolist(), shares) for row in counts)
    assert refused <= 1

    assert not is_mismatch([5000, 3000, 2000], shares)
    assert is_mismatch([5000, 3000, 1500], shares)
    assert mismatch_p([0, 0, 0], shares) == 1.0
