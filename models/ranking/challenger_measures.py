"""Measures of challengers beside the built-in champion, and which of them serves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from models.ranking.champions import Measures
from models.ranking.prequential import MIN_EXAMPLES_TO_SERVE, measures_of

WINDOW = 2000
"""Window of the running means, in examples."""

ENTERS, STAYS = 3.0, 1.0
"""Standard errors by which a challenger must lead the champion to begin serving, and to go on."""


class Lead(msgspec.Struct):
    """Running means of a challenger's reciprocal rank less the champion's, and of its square."""

    n: int = 0
    mean: float = 0.0
    square: float = 0.0

    def update(self, difference: float) -> None:
        """Count an example."""
        self.n += 1
        rate = max(1.0 / WINDOW, 1.0 / self.n)
        self.mean += rate * (difference - self.mean)
        self.square += rate * (difference**2 - self.square)

    @property
    def error(self) -> float:
        """Standard error of the mean; infinite before there are enough examples to serve by.

        >>> Lead().error
        inf
        """
        if self.n < MIN_EXAMPLES_TO_SERVE:
            return math.inf
        # An exponential mean weighs as many examples as two windows of plain ones.
        n_weighed = min(self.n, 2 * WINDOW)
        return math.sqrt(max(self.square - self.mean**2, 0.0) / n_weighed)


class ChallengerMeasures(Measures):
    """Measures of challengers and of the built-in rankers on the same examples.

    Attributes
    ----------
    leads
        By challenger; what has failed is without.
    serving
        Name of the challenger that serves; empty for the built-in champion.
    """

    leads: dict[str, Lead] = msgspec.field(default_factory=dict)
    serving: str = ""

    def update(
        self, built_in: Mapping[str, int], challengers: Mapping[str, int], champion: str
    ) -> None:
        """Count one example by its ranks, and decide who serves.

        A challenger begins to serve when it leads the champion by `ENTERS` standard errors after
        `MIN_EXAMPLES_TO_SERVE` examples, and goes on while it leads by `STAYS`; the one with the
        greatest lead of several. Another takes over when it also leads more by `ENTERS` of its
        errors.

        Parameters
        ----------
        built_in, challengers
            Rank of the taken item by each, from 1; 0 if it was no candidate. A challenger without
            a rank is out.
        champion
            Name of the built-in ranker that would serve.
        """
        self.n += 1
        rate = max(1.0 / WINDOW, 1.0 / self.n)
        for name, rank in {**built_in, **challengers}.items():
            means = self.means.setdefault(name, dict.fromkeys(measures_of(0), 0.0))
            for measure, value in measures_of(rank).items():
                means[measure] += rate * (value - means[measure])
        for name in self.leads.keys() - challengers.keys():
            del self.leads[name]
            self.means.pop(name, None)
        reference = measures_of(built_in.get(champion, 0))["mrr"]
        for name, rank in challengers.items():
            lead = self.leads.setdefault(name, Lead())
            lead.update(measures_of(rank)["mrr"] - reference)
        self.serving = self._best()

    def _best(self) -> str:
        serving = self.leads.get(self.serving)
        if serving is not None and not serving.mean > STAYS * serving.error:
            serving = None
        least = 0.0 if serving is None else serving.mean
        best = "" if serving is None else self.serving
        for name, lead in self.leads.items():
            if lead.mean > least + ENTERS * lead.error:
                least, best = lead.mean, name
        return best
