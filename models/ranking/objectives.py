"""What is learned towards each objective: a ranker of its own, measured on its own choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from models.ranking.examples import Example
from models.ranking.prequential import Scoreboard, evaluate_then_learn
from models.ranking.ranker import OBJECTIVES, Objective, Ranker

STORED = tuple(f"{name}:{part}" for name in OBJECTIVES for part in ("state", "serving"))
"""The fields that answers need of what `ObjectiveLearner.fields` gives of each objective."""


@dataclass
class ObjectiveLearner:
    """What was learned towards one objective, and how it has done.

    >>> ObjectiveLearner().serving
    'blend'
    """

    ranker: Ranker = field(default_factory=Ranker)
    scoreboard: Scoreboard = field(default_factory=Scoreboard)

    @property
    def serving(self) -> str:
        """Which order to serve; see `models.ranking.prequential`."""
        return self.scoreboard.serving()

    def learn(self, example: Example, ranks: Mapping[str, int]) -> None:
        """Measure a choice by the ranks that it was given, then learn it."""
        self.ranker = evaluate_then_learn(self.ranker, self.scoreboard, example, ranks)

    def fields(self, name: Objective) -> dict[str, bytes | str]:
        """All of it as fields of a hash."""
        return {
            f"{name}:state": self.ranker.state(),
            f"{name}:scoreboard": msgspec.json.encode(self.scoreboard),
            f"{name}:serving": self.serving,
        }

    @classmethod
    def from_fields(cls, name: Objective, stored: Mapping[str, bytes]) -> ObjectiveLearner:
        """What `fields` described; a new one where there is nothing."""
        scoreboard = stored.get(f"{name}:scoreboard")
        return cls(
            Ranker.from_state(stored.get(f"{name}:state")),
            msgspec.json.decode(scoreboard, type=Scoreboard) if scoreboard else Scoreboard(),
        )


def load_learners(stored: Mapping[str, bytes] | None = None) -> dict[Objective, ObjectiveLearner]:
    """A learner for each objective, as stored or new."""
    return {name: ObjectiveLearner.from_fields(name, stored or {}) for name in OBJECTIVES}


def learn(learners: Mapping[Objective, ObjectiveLearner], example: Example) -> None:
    """Teach a choice to every objective that it says something about."""
    for name, ranks in example.ranks.items():
        learners[name].learn(example, ranks)


def applicable(
    rankers: Mapping[Objective, Ranker], *, is_purchase: bool
) -> dict[Objective, Ranker]:
    """The rankers of the objectives that a choice counts for."""
    return {
        name: ranker for name, ranker in rankers.items() if is_purchase or name == "interactions"
    }
