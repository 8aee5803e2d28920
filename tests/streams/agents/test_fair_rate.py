"""The shared rate: fair, never more in all, and nothing of it wasted while somebody wants it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.agents.fair_rate import IDLE_S, FairRate

ASKED = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 100), min_size=1),
    ),
    max_size=30,
)


@given(st.floats(0, 60), ASKED)
def test_no_more_than_the_rate(per_s: float, asked: list[tuple[float, dict[str, int]]]) -> None:
    """However it is asked for, all together get what has come in, each what it wants at most."""
    allowance, now_s, given_in_all = FairRate(per_s, 0.0), 0.0, 0
    for later_s, wanted in asked:
        now_s += later_s
        given = allowance.take(wanted, now_s)
        assert given.keys() == wanted.keys()
        assert all(0 <= given[name] <= n for name, n in wanted.items())
        given_in_all += sum(given.values())
        assert given_in_all <= per_s * now_s + 1e-6


def test_a_flood_leaves_others_their_share() -> None:
    """Who wants little gets all of it, who floods gets the rest."""
    allowance = FairRate(50.0, 0.0)
    given = {"flood": 0, "few": 0}
    for tick in range(1, 1001):
        wanted = {"flood": 200} | ({"few": 1} if tick % 10 == 0 else {})
        for name, n in allowance.take(wanted, tick / 100).items():
            given[name] += n

    # The first comes before there is a whole one to give; half a second's worth is saved up.
    assert given == {"few": 99, "flood": 376}


def test_equals_get_the_same() -> None:
    """Two floods share evenly; one alone has everything, again once the other has gone."""
    allowance = FairRate(50.0, 0.0)
    assert allowance.take({"a": 99}, 1.0) == {"a": 50}
    assert allowance.take({"a": 99, "b": 99}, 2.0) == {"a": 25, "b": 25}
    assert allowance.take({"a": 99}, 2.0 + IDLE_S)["a"] <= 25
    assert allowance.take({"a": 99}, 4.0 + IDLE_S) == {"a": 50}


def test_a_small_rate_saves_up_for_one() -> None:
    """Less than one a second is one in a while, not none."""
    allowance = FairRate(0.3, 0.0)

    assert [allowance.take({"a": 5}, second)["a"] for second in range(1, 9)].count(1) == 2


def test_a_clock_set_back_gives_nothing() -> None:
    """Time that comes again is not paid twice."""
    allowance = FairRate(10.0, 100.0)
    assert allowance.take({"a": 99}, 101.0) == {"a": 10}
    assert allowance.take({"a": 99}, 50.0) == {"a": 0}
    assert allowance.take({"a": 99}, 50.5) == {"a": 5}
