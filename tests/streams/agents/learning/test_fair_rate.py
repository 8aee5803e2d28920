"""The shared rate: fair, never exceeded in total, and not wasted while any name asks for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.agents.learning.fair_rate import IDLE_S, FairRate

REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 100), min_size=1),
    ),
    max_size=30,
)


@given(st.floats(0, 60), REQUESTS)
def test_the_total_never_exceeds_the_rate(
    per_s: float, requests: list[tuple[float, dict[str, int]]]
) -> None:
    """Grants add up to at most rate times time, and none exceeds its request."""
    rate, now_s, total = FairRate(per_s, 0.0), 0.0, 0
    for later_s, wanted in requests:
        now_s += later_s
        granted = rate.take(wanted, now_s)
        assert granted.keys() == wanted.keys()
        assert all(0 <= granted[name] <= n for name, n in wanted.items())
        total += sum(granted.values())
        assert total <= per_s * now_s + 1e-6


def test_a_flood_leaves_others_their_share() -> None:
    """A name that asks for little gets all of it, one that floods gets the rest."""
    rate = FairRate(50.0, 0.0)
    granted = {"flood": 0, "few": 0}
    for tick in range(1, 1001):
        wanted = {"flood": 200} | ({"few": 1} if tick % 10 == 0 else {})
        for name, n in rate.take(wanted, tick / 100).items():
            granted[name] += n

    # The first request comes before a whole unit is saved; half a second's worth is saved up.
    assert granted == {"few": 99, "flood": 376}


def test_equal_demands_get_equal_shares() -> None:
    """Two floods share evenly; one alone gets everything, also after the other has gone idle."""
    rate = FairRate(50.0, 0.0)
    assert rate.take({"a": 99}, 1.0) == {"a": 50}
    assert rate.take({"a": 99, "b": 99}, 2.0) == {"a": 25, "b": 25}
    assert rate.take({"a": 99}, 2.0 + IDLE_S)["a"] <= 25
    assert rate.take({"a": 99}, 4.0 + IDLE_S) == {"a": 50}


def test_a_rate_below_one_saves_up_for_a_unit() -> None:
    """Less than one a second is one now and then, not none."""
    rate = FairRate(0.3, 0.0)

    assert [rate.take({"a": 5}, second)["a"] for second in range(1, 9)].count(1) == 2


def test_a_clock_set_back_grants_nothing() -> None:
    """The same seconds grant nothing twice."""
    rate = FairRate(10.0, 100.0)
    assert rate.take({"a": 99}, 101.0) == {"a": 10}
    assert rate.take({"a": 99}, 50.0) == {"a": 0}
    assert rate.take({"a": 99}, 50.5) == {"a": 5}
