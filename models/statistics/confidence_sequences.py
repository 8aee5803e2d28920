"""Confidence sequences of the difference of two arms: intervals that hold at all times at once.

An ordinary interval of 95 % holds at one moment that was chosen before. Who looks after every few
users and stops at the first difference finds one in most experiments of two equal arms. A
confidence sequence covers the true difference at every moment with the probability that it names,
so one may look and stop at will.

The boundary is Robbins' normal mixture in the asymptotic form of Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals
of Statistics 2024, arXiv:2103.06476). Observations are one number a user: what one user does in
several lists is not independent, what different users do is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

PLANNED_USERS = 5000
"""Users, of both arms, at which the intervals are as tight as they can be; others cost little."""

MIN_USERS = 100
"""Users of each arm below which nothing is said: the theory is of large numbers."""

MIN_EVENTS = 10
"""Users with anything to count, in both arms together, below which nothing is said."""


class UserSums(NamedTuple):
    """Sums over the users of an arm, of one number for each.

    Attributes
    ----------
    users, total, squares
        Number of users, sum of their numbers, and of the squares of these.
    nonzero
        Users whose number is not 0.
    """

    users: int
    total: float
    squares: float
    nonzero: int

    def plus(self, other: UserSums) -> UserSums:
        """The sums over the users of both."""
        return UserSums(
            self.users + other.users,
            self.total + other.total,
            self.squares + other.squares,
            self.nonzero + other.nonzero,
        )

    @property
    def mean(self) -> float:
        """Mean number of a user; 0 without users."""
        return self.total / self.users if self.users else 0.0

    @property
    def variance(self) -> float:
        """Variance of a user's number, unbiased; 0 with less than two users."""
        if self.users < 2:
            return 0.0
        return max(0.0, self.squares - self.users * self.mean**2) / (self.users - 1)


class Difference(NamedTuple):
    """The mean of an arm beyond that of another, and the bounds of its confidence sequence now."""

    estimate: float
    low: float
    high: float


def shares_sums(users: int, count: int) -> UserSums:
    """Sums where each user's number is 1 or 0.

    >>> shares_sums(4, 1).mean, shares_sums(4, 1).variance
    (0.25, 0.25)
    """
    return UserSums(users, count, count, count)


def difference(
    control: UserSums, arm: UserSums, *, alpha: float = 0.05, planned: int = PLANNED_USERS
) -> Difference | None:
    """The confidence sequence of an arm's mean beyond the control's, at these sums; O(1).

    None while there are too few users.

    Parameters
    ----------
    alpha
        Probability that the true difference is ever outside, over all times together.
    planned
        Users, of both arms, at which it is tightest.

    Examples
    --------
    >>> found = difference(shares_sums(2000, 200), shares_sums(2000, 320))
    >>> round(found.estimate, 3), round(found.low, 3), round(found.high, 3)
    (0.06, 0.028, 0.092)
    """
    if min(control.users, arm.users) < MIN_USERS or control.nonzero + arm.nonzero < MIN_EVENTS:
        return None
    n = control.users + arm.users
    # Of the efficient influence function of a user: the difference is its mean over all n users.
    variance = n * (arm.variance / arm.users + control.variance / control.users)
    radius = math.sqrt(variance) * mixture_radius(n, alpha=alpha, planned=planned)
    estimate = arm.mean - control.mean
    return Difference(estimate, estimate - radius, estimate + radius)


def mixture_radius(n: int, *, alpha: float, planned: int = PLANNED_USERS) -> float:
    """Half of the width at n observations of variance 1.

    >>> round(mixture_radius(5000, alpha=0.05), 4), round(1.96 / 5000**0.5, 4)
    (0.0429, 0.0277)
    """
    scale = -2 * math.log(alpha)
    rho2 = (scale + math.log(scale) + 1) / planned
    grown = n * rho2 + 1
    return math.sqrt(2 * grown / (n * n * rho2) * math.log(math.sqrt(grown) / alpha))
