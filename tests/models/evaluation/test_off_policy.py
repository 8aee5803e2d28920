"""Estimates of other policies from drawn lists, where the truth is known."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.whatif import coverage
from models.errors import InvalidEvent, InvalidInput
from models.evaluation.drawn_lists import OWN, RewardedList, decisions_of
from models.evaluation.list_outcomes import TakenItem, rewarded_lists
from models.evaluation.off_policy import estimate, estimates_text
from models.evaluation.slot_policies import (
    capped_policy,
    listed_policy,
    share_policy,
    weighted_policy,
)
from models.ranking.explored_lists import explore
from models.served_messages import (
    LoggedExploration,
    ServedList,
    ServedLists,
    encode_served,
    parse_served,
)

POOL = {"x": 6000, "y": 4000}


def served(number: int, rng: random.Random, rate: float = 0.4) -> ServedList:
    """A list of four, drawn by the code that serves."""
    drawn = explore(["a", "b", "c", "d"], POOL, rate, rng)
    logged = LoggedExploration(
        drawn.rate,
        [*POOL],
        [*POOL.values()],
        [1.0, 1.0, *(slot.probability for slot in drawn.slots)],
        {at: slot.replaced for at, slot in enumerate(drawn.slots, 2) if slot.replaced},
    )
    shown = ["a", "b", *(slot.item_id for slot in drawn.slots)]
    return ServedList(
        f"r{number}", 100.0 + number, shown, "kkkk", user_id=f"u{number // 2}", exploration=logged
    )


def log(n: int, appeal: dict[str, float]) -> list[RewardedList]:
    """Lists whose items are taken by their appeal."""
    rng = random.Random(7)
    lists = [served(number, rng) for number in range(n)]
    return [
        RewardedList(one, [float(rng.random() < appeal.get(name, 0.0)) for name in one.items])
        for one in lists
    ]


def test_decisions_have_the_probabilities_of_the_log() -> None:
    """What was shown has the probability that was logged with it, and every row adds up to one."""
    rewarded = log(200, {"a": 1.0})
    found = decisions_of(rewarded)

    rows = np.arange(len(found.items))
    of_shown = found.probabilities[rows, found.shown]
    logged = [
        probability
        for one, _ in rewarded
        if one.exploration
        for probability in one.exploration.probabilities
        if probability < 1.0
    ]
    assert of_shown.tolist() == pytest.approx(logged)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
    assert found.fixed.tolist() == [1.0] * 200
    assert set(found.positions.tolist()) == {2, 3}


def test_policies_say_what_they_would_show() -> None:
    """Shares, factors, caps and lists, on the decisions of a log."""
    found = decisions_of(log(100, {}))
    name = {item: number for number, item in enumerate(found.item_ids)}

    none = share_policy(0.0)(found)
    assert none.probabilities[:, OWN].tolist() == [1.0] * len(found.items)
    half = share_policy(0.5)(found)
    assert half.probabilities[:, OWN].tolist() == [0.0] * len(found.items)
    never_x = weighted_policy({"x": 0.0})(found)
    assert (never_x.probabilities[found.items == name["x"]] == 0.0).all()
    np.testing.assert_allclose(never_x.probabilities.sum(axis=1), 1.0)
    groups = {item: ["acme"] for item in "abx"}
    capped = capped_policy(groups, 2)(found)
    assert (capped.probabilities[found.items == name["x"]] == 0.0).all()
    only_x = capped_policy({item: ["acme"] for item in "abcdy"}, 2)(found)
    has_x = (found.items == name["x"]).any(axis=1)
    assert (only_x.probabilities[has_x, OWN] == 0.0).all()
    # Nothing that the cap allows is left: the list's own item stays.
    assert (only_x.probabilities[~has_x, OWN] == 1.0).all()
    wanted = {f"r{n}": ["a", "b", "x", "elsewhere"] for n in range(100)}
    listed = listed_policy(wanted)(found)
    assert listed.is_supported.tolist() == (found.positions == 2).tolist()


def test_what_lacks_support_counts_as_shown() -> None:
    """A policy that wants what the log never had is not judged there, and the estimate says so."""
    found = decisions_of(log(400, {"a": 0.3, "x": 0.9, "c": 0.1, "d": 0.1}))

    nowhere = estimate(found, listed_policy({}))
    assert (nowhere.support, nowhere.difference, nowhere.effective_slots) == (0.0, 0.0, 0.0)
    wanted = {f"r{n}": ["a", "b", "x", "y"] for n in range(400)}
    better = estimate(found, listed_policy(wanted))
    assert 0.5 < better.support <= 1.0
    assert better.difference - better.difference_ci95 > 0.2
    table = estimates_text(found, "clicks", {"share 0": estimate(found, share_policy(0.0))})
    assert len(table.splitlines()) == 4


def test_too_few_lists_are_refused() -> None:
    """An interval from a handful of users would be none."""
    with pytest.raises(InvalidInput, match="30 at least"):
        estimate(decisions_of(log(20, {})), share_policy(0.0))
    plain = RewardedList(ServedList("r", 1.0, ["a"], "k"), [0.0])
    with pytest.raises(InvalidInput, match="no slot"):
        estimate(decisions_of([plain]), share_policy(0.0))


def test_events_count_for_the_list_that_showed_their_item() -> None:
    """The named one, or the last one of the owner within the window; once, whatever is repeated."""
    one = ServedList("r1", 100.0, ["a", "b"], "kk", user_id="u")
    two = ServedList("r2", 200.0, ["a", "c"], "kk", session_id="s")
    user, session = ("u:u",), ("s:s", "u:u")
    taken = [
        TakenItem("a", session, 210.0, "r1", is_purchase=False, value=0.0),
        TakenItem("a", session, 220.0, "", is_purchase=True, value=5.0),
        TakenItem("b", user, 90.0, "", is_purchase=False, value=0.0),
        TakenItem("b", user, 400.0, "", is_purchase=False, value=0.0),
        TakenItem("c", ("u:other",), 210.0, "", is_purchase=False, value=0.0),
    ]

    def rewards(reward: str) -> list[list[float]]:
        found = rewarded_lists([two, one, one], taken, reward, window_s=250)  # type: ignore[arg-type]
        return [list(each.rewards) for each in found]

    assert rewards("clicks") == [[1.0, 0.0], [0.0, 0.0]]
    assert rewards("conversions") == [[0.0, 0.0], [1.0, 0.0]]
    assert rewards("value") == [[0.0, 0.0], [5.0, 0.0]]


def test_logged_exploration_is_checked() -> None:
    """What was drawn comes back as it was sent, and is refused where it contradicts the list."""
    one = served(1, random.Random(2), rate=1.0)
    drawn = one.exploration
    assert drawn is not None
    assert parse_served(encode_served("g", [one]), now_s=200.0) == ServedLists("g", [one])
    bad = [
        (LoggedExploration(0.5, ["x"], [1, 2], [1.0] * 4, {}), "weight"),
        (LoggedExploration(0.5, ["x"], [1], [1.0], {}), "as many as items"),
        (LoggedExploration(0.5, ["x"], [1], [1.0] * 4, {0: "b"}), "of the pool"),
        (LoggedExploration(0.5, ["x"], [1], [1.0] * 4, {9: "b"}), "of the pool"),
    ]
    for wrong, reason in bad:
        raw = encode_served("g", [ServedList("r", 1.0, one.items, "kkkk", exploration=wrong)])
        with pytest.raises(InvalidEvent, match=reason):
            parse_served(raw, now_s=200.0)


def test_intervals_cover_the_truth() -> None:
    """In most shops, for each policy; `benchmarks.whatif` asks 200 shops."""
    for name, found in coverage(8, 150, n_true=1500).items():
        assert found["covers_difference"] >= 0.75, name
        assert abs(found["mean_error"]) < found["mean_half_width"], name
