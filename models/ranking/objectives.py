"""Learners of the objectives: each has a ranker of its own, measured on its own examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from models.ranking.champions import OBJECTIVES, Objective
from models.ranking.examples import Example
from models.ranking.prequential import Scoreboard, evaluate_then_learn
from models.ranking.ranker import ListwiseRanker
from models.ranking.returns import Chances
from models.ranking.similarity import taught


@dataclass
class ObjectiveLearner:
    """The learned ranker of one objective, and its scoreboard.

    >>> ObjectiveLearner().champion
    'blend'
    """

    ranker: ListwiseRanker = field(default_factory=ListwiseRanker)
    scoreboard: Scoreboard = field(default_factory=Scoreboard)

    @property
    def champion(self) -> str:
        """Name of the ranker to serve; see `Scoreboard.champion`."""
        return self.scoreboard.champion()

    def learn(
        self, example: Example, ranks: Mapping[str, int], chances: Chances | None = None
    ) -> None:
        """Measure an example by its ranks for this objective, then learn it and its chances."""
        self.ranker = evaluate_then_learn(self.ranker, self.scoreboard, example, ranks)
        if chances is not None:
            self.ranker.weigh_returns(chances)

    def fields(self, name: Objective) -> dict[str, bytes | str]:
        """State of the learner as fields of a Redis hash."""
        return {
            f"{name}:state": self.ranker.state(),
            f"{name}:scoreboard": msgspec.json.encode(self.scoreboard),
            f"{name}:serving": self.champion,
        }

    @classmethod
    def from_fields(cls, name: Objective, stored: Mapping[str, bytes]) -> ObjectiveLearner:
        """The learner of stored `fields`; a new one if there are none."""
        scoreboard = stored.get(f"{name}:scoreboard")
        return cls(
            ListwiseRanker.from_state(stored.get(f"{name}:state")),
            msgspec.json.decode(scoreboard, type=Scoreboard) if scoreboard else Scoreboard(),
        )


def load_learners(stored: Mapping[str, bytes] | None = None) -> dict[Objective, ObjectiveLearner]:
    """Learner of each objective, as stored or new."""
    return {name: ObjectiveLearner.from_fields(name, stored or {}) for name in OBJECTIVES}


def learn(learners: Mapping[Objective, ObjectiveLearner], example: Example) -> None:
    """Teach an example to the learners of all its objectives."""
    for name, ranks in example.ranks.items():
        learners[name].learn(example, ranks, example.chances.get(name))
    if example.similarity is not None:
        ranker = learners["interactions"].ranker
        ranker.similarity_evidence = taught(ranker.similarity_evidence, example.similarity)


def rankers_for(
    rankers: Mapping[Objective, ListwiseRanker], *, is_purchase: bool
) -> dict[Objective, ListwiseRanker]:
    """Rankers of the objectives that an event counts for."""
    return {
        name: ranker for name, ranker in rankers.items() if is_purchase or name == "interactions"
    }
