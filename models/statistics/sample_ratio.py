"""Sample-ratio mismatch: whether users are split as configured, tested at all times at once.

The test is that of Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS
2022, arXiv:2011.03567): the likelihood of the counts under a Dirichlet mixture of splits, over that
under the configured one, is a martingale if users are split as configured, and by Ville's
inequality ever exceeds 1 / alpha with a probability of alpha at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONCENTRATION = 1000.0
"""Weight of the configured split in the mixture, in users."""

ALPHA = 0.001
"""Probability of a false alarm, over the whole experiment."""


def mismatch_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The smallest alpha at which the counts would be refused now; valid at every look.

    Parameters
    ----------
    counts
        Users of each arm.
    shares
        The configured share of each arm, positive; they need not add up to 1.

    Examples
    --------
    >>> mismatch_p([500, 510], [1, 1]), mismatch_p([5000, 6000], [1, 1]) < 1e-9
    (1.0, True)
    """
    whole = math.fsum(shares)
    prior = [CONCENTRATION * share / whole for share in shares]
    log_ratio = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + sum(counts))
    for count, weight, share in zip(counts, prior, shares, strict=True):
        log_ratio += math.lgamma(weight + count) - math.lgamma(weight)
        log_ratio -= count * math.log(share / whole)
    return min(1.0, math.exp(-max(0.0, log_ratio)))


def is_mismatch(counts: Sequence[int], shares: Sequence[float]) -> bool:
    """True if users are not split as configured, but for one experiment in a thousand."""
    return mismatch_p(counts, shares) < ALPHA
