"""The challengers of one objective: measured on an example first, and taught it after."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from models.ranking.challenger_measures import ChallengerMeasures
from models.ranking.challengers import Factory, RunningChallenger, learned_features, ranks_of
from models.ranking.champions import OBJECTIVES, Objective, challengers_field
from models.ranking.examples import Example


@dataclass
class ChallengerLearner:
    """Challengers of one objective, with their measures; all of it is learned from examples."""

    running: Sequence[RunningChallenger]
    measures: ChallengerMeasures = field(default_factory=ChallengerMeasures)

    def learn(self, example: Example, ranks: Mapping[str, int], champion: str) -> None:
        """Measure the challengers on an example, then teach it to them.

        Parameters
        ----------
        ranks
            Those of the built-in rankers for this objective; the example is for challengers.
        champion
            Name of the built-in ranker that would serve.
        """
        found = ranks_of(self.running, example)
        alive = [one for one in self.running if not one.has_failed]
        self.measures.update(ranks, {one.name: found[one.name] for one in alive}, champion)
        if example.rows:
            features = learned_features(example)
            for one in alive:
                one.learn(features, 0)

    def of(self, name: str) -> RunningChallenger | None:
        """The challenger of a name."""
        return next((one for one in self.running if one.name == name), None)


ChallengerLearners = dict[Objective, ChallengerLearner]


def new_learners(
    factories: Mapping[str, Factory], wanted: Mapping[Objective, Collection[str]] | None = None
) -> ChallengerLearners:
    """Learners with new challengers: for each objective all of them, or the wanted ones."""
    return {
        objective: ChallengerLearner(
            [
                RunningChallenger(name, factory())
                for name, factory in factories.items()
                if wanted is None or name in wanted.get(objective, ())
            ]
        )
        for objective in OBJECTIVES
    }


def learn_as_challengers(
    learners: ChallengerLearners, example: Example, champions: Mapping[Objective, str]
) -> None:
    """Teach an example to the challengers of all its objectives, if it is for challengers."""
    if example.for_challengers:
        for objective, ranks in example.ranks.items():
            learners[objective].learn(example, ranks, champions[objective])


def challenger_fields(learners: ChallengerLearners) -> dict[str, bytes]:
    """Measures as fields of the hash of the ranker's state; models are not stored."""
    return {
        challengers_field(objective): msgspec.json.encode(one.measures)
        for objective, one in learners.items()
    }
