"""Off-policy estimates: rewards of another policy, from a log of lists that were drawn by this one.

Doubly robust (Dudík, Langford and Li 2011, "Doubly robust policy evaluation and learning"): a model
of rewards says what each item would bring in a slot, and what was shown corrects it, weighted by
how much likelier the policy shows it than the log did. As those probabilities are known exactly,
the estimate is right on average whatever the model says; the better the model, the narrower the
interval. The model that judges a list never saw the lists of its owner.

What a user takes from a slot is supposed not to depend on what the policy shows in other slots.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from models.arrays import Floats, Indexes
from models.errors import InvalidInput
from models.evaluation.drawn_lists import OWN, Decisions
from models.evaluation.slot_policies import SlotPolicy, judged

FOLDS = 5
"""Parts of the owners: each is judged by a model of the other ones."""

MIN_OWNERS = 30
"""Users or sessions that an interval needs at least."""

PRIOR_SHOWN = 20.0
"""Times shown by which the rate of a slot is shrunk towards that of all slots of its kind."""

PRIOR_TAKEN = 3.0
"""Expected rewards by which an item's factor is shrunk towards 1."""


class Estimate(NamedTuple):
    """Estimated rewards of a policy, a list on average, with half widths of 95 % intervals.

    Attributes
    ----------
    value, value_ci95
        Rewards of all slots.
    difference, difference_ci95
        Against what was shown.
    support
        Share of the randomised slots in which the log can judge the policy, see `judged`; in the
        others it is taken to bring what was shown.
    effective_slots
        How many slots shown by the policy itself would tell as much.
    """

    value: float
    value_ci95: float
    difference: float
    difference_ci95: float
    support: float
    effective_slots: float


def estimate(decisions: Decisions, policy: SlotPolicy) -> Estimate:
    """Doubly robust estimate of a policy.

    Raises
    ------
    InvalidInput
        No slot was randomised, or too few owners were served.
    """
    n_owners = decisions.n_owners
    if not len(decisions.items):
        raise InvalidInput("no slot of these lists was randomised: nothing can be told from them")
    if n_owners < MIN_OWNERS:
        raise InvalidInput(
            f"lists of {n_owners} users and sessions: an interval needs {MIN_OWNERS} at least"
        )
    table = judged(policy)(decisions)
    rows = np.arange(len(decisions.items))
    model = _cross_fitted(decisions)
    weights = table.probabilities[rows, decisions.shown]
    weights = weights / decisions.probabilities[rows, decisions.shown]
    missed = decisions.rewards - model[rows, decisions.shown]
    brought = (table.probabilities * model).sum(axis=1) + weights * missed
    brought = np.where(table.is_supported, brought, decisions.rewards)
    # The estimate less that of what was shown: exactly 0 where both are the same.
    changes = ((table.probabilities - decisions.probabilities) * model).sum(axis=1)
    changes += (weights - 1.0) * missed
    weights = weights[table.is_supported]
    squares = float((weights**2).sum())
    return Estimate(
        *_mean_of_lists(decisions, brought, with_fixed=True),
        *_mean_of_lists(decisions, changes, with_fixed=False),
        float(table.is_supported.mean()),
        float(weights.sum()) ** 2 / squares if squares else 0.0,
    )


def logged_value(decisions: Decisions) -> tuple[float, float]:
    """Mean reward of a list as it was shown, and half the width of its 95 % interval."""
    return _mean_of_lists(decisions, decisions.rewards, with_fixed=True)


def estimates_text(decisions: Decisions, reward: str, estimates: Mapping[str, Estimate]) -> str:
    """Estimates as a table."""
    value, half = logged_value(decisions)
    counts = f"{len(decisions.owners):,} lists to {decisions.n_owners:,} users and sessions"
    head = f"{reward + ' a list':<32} {'estimate':>19} {'against the shown':>21} {'support':>8}"
    lines = [
        f"{counts}, {len(decisions.items):,} randomised slots",
        f"{head} {'like slots':>11}",
        f"{'what was shown':<32} {value:>10.4f} ± {half:.4f}",
    ]
    lines += [
        f"{name:<32} {one.value:>10.4f} ± {one.value_ci95:.4f} "
        f"{one.difference:>+12.4f} ± {one.difference_ci95:.4f} {one.support:>8.1%} "
        f"{one.effective_slots:>11,.0f}"
        for name, one in estimates.items()
    ]
    return "\n".join(lines)


def _mean_of_lists(
    decisions: Decisions, of_slots: Floats, *, with_fixed: bool
) -> tuple[float, float]:
    """Mean of a list; lists of one owner are alike, so the interval is that of owners."""
    n_lists = len(decisions.owners)
    of_lists = np.zeros(n_lists)
    np.add.at(of_lists, decisions.lists, of_slots)
    if with_fixed:
        of_lists += decisions.fixed
    mean = float(of_lists.mean())
    residuals = np.bincount(decisions.owners, of_lists - mean)
    n_owners = len(residuals)
    variance = float((residuals**2).sum()) * n_owners / max(1, n_owners - 1)
    return mean, 1.96 * variance**0.5 / n_lists


def _cross_fitted(decisions: Decisions) -> Floats:
    """Expected reward of each item in each slot, by a model of other owners' lists; ``(D, A)``."""
    folds = (decisions.owners % FOLDS)[decisions.lists]
    found = np.zeros(decisions.items.shape)
    for fold in range(FOLDS):
        judged = np.flatnonzero(folds == fold)
        found[judged] = _expected(decisions, np.flatnonzero(folds != fold), judged)
    return found


def _expected(decisions: Decisions, known: Indexes, judged: Indexes) -> Floats:
    """Rates of slots, own items and explored ones apart, times a factor of each item."""
    n_positions = int(decisions.positions.max(initial=0)) + 1
    kinds = (decisions.shown[known] != OWN).astype(np.int64)
    cells = (kinds, decisions.positions[known])
    rewards = decisions.rewards[known]
    taken, shown = np.zeros((2, n_positions)), np.zeros((2, n_positions))
    np.add.at(taken, cells, rewards)
    np.add.at(shown, cells, 1.0)
    overall = float(rewards.mean()) if len(rewards) else 0.0
    of_kinds = (taken.sum(axis=1) + PRIOR_SHOWN * overall) / (shown.sum(axis=1) + PRIOR_SHOWN)
    rates = (taken + PRIOR_SHOWN * of_kinds[:, None]) / (shown + PRIOR_SHOWN)
    items = decisions.items[known, decisions.shown[known]]
    of_items, usual = np.full((2, len(decisions.item_ids)), PRIOR_TAKEN)
    np.add.at(of_items, items, rewards)
    np.add.at(usual, items, rates[cells])
    positions = decisions.positions[judged]
    expected = np.repeat(rates[1, positions][:, None], decisions.items.shape[1], axis=1)
    expected[:, OWN] = rates[0, positions]
    found: Floats = expected * (of_items / usual)[decisions.items[judged]]
    return found
