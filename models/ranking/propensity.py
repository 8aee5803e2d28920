"""Propensities: how likely a user is to take each action that is shown.

Pure functions on counts of outcomes. Rates of actions are shrunk towards the rate of all, and what
is known of the user moves them: naive Bayes in log-odds, each value's effect on an action shrunk
towards its effect on all actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import Floats

PRIOR_EVENTS = 20.0
"""Pseudo-count that shrinks an action's rate towards that of all, and a value's effect."""

WEIGHT = 0.7
"""Of the features' effects: they are not independent, and naive Bayes adds them up."""


class OutcomeCounts(NamedTuple):
    """Decayed numbers of outcomes of each action; three arrays ``(n,)``."""

    taken: Floats
    refused: Floats
    viewed: Floats

    @property
    def shown(self) -> Floats:
        """Times that each action was shown; ``(n,)``.

        A view comes before the decision about it, so each showing may be counted once or twice:
        where views are recorded, they are all showings, and else all decisions are.
        """
        return np.maximum(self.viewed, self.taken + self.refused)


def propensities(
    counts: OutcomeCounts, features: Sequence[Sequence[tuple[OutcomeCounts, Floats]]]
) -> Floats:
    """Probability that the user takes each action; ``(n,)``, within 0 and 1.

    Parameters
    ----------
    counts
        Of all users.
    features
        For each feature its values: the counts of users who had the value, and ``(n,)`` 1.0 where
        the value is the user's about the action, else 0.0. Effects of several values of a feature
        are averaged.

    Examples
    --------
    >>> zero = np.zeros(2)
    >>> counts = OutcomeCounts(np.array([80.0, 20.0]), np.array([20.0, 80.0]), zero)
    >>> propensities(counts, []).round(2).tolist()
    [0.75, 0.25]
    >>> young = OutcomeCounts(np.array([5.0, 20.0]), np.array([20.0, 5.0]), zero)
    >>> propensities(counts, [[(young, np.ones(2))]]).round(2).tolist()
    [0.54, 0.46]
    """
    shown = counts.shown
    overall = (counts.taken.sum() + 1.0) / (shown.sum() + 2.0)
    rates = (counts.taken + PRIOR_EVENTS * overall) / (shown + PRIOR_EVENTS)
    log_odds = _logit(rates)
    for values in features:
        effects, applies = np.zeros(len(rates)), np.zeros(len(rates))
        for one, mask in values:
            effects += mask * _effect(one, rates, overall)
            applies += mask
        log_odds = log_odds + WEIGHT * effects / np.maximum(applies, 1.0)
    return _expit(log_odds)


def _effect(value: OutcomeCounts, rates: Floats, overall: float) -> Floats:
    """Change of each action's log-odds for users with a value."""
    shown = value.shown
    expected = float((shown * rates).sum())
    # Where all users with the value take more, an action that few of them saw is likelier, too.
    everywhere = (value.taken.sum() + PRIOR_EVENTS * overall) / (shown.sum() + PRIOR_EVENTS)
    usual = (expected + PRIOR_EVENTS * overall) / (shown.sum() + PRIOR_EVENTS)
    prior = _expit(_logit(rates) + _logit(everywhere) - _logit(usual))
    found = (value.taken + PRIOR_EVENTS * prior) / (shown + PRIOR_EVENTS)
    effect: Floats = _logit(found) - _logit(rates)
    return effect


def _logit(share: Floats | float) -> Floats:
    clipped = np.clip(share, 1e-6, 1.0 - 1e-6)
    found: Floats = np.log(clipped / (1.0 - clipped))
    return found


def _expit(log_odds: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-log_odds))
    return found
