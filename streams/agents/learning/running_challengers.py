"""Challengers under way in a process: a thread learns them from the topic of examples.

Models are stored nowhere, for a stored object could run code: each process that needs them learns
them from the examples that Kafka keeps, and from those that come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kafka.errors import KafkaError

from models.errors import RecommenderError
from models.ranking import examples
from models.ranking.challenger_learner import (
    ChallengerLearners,
    challenger_fields,
    learn_as_challengers,
    new_learners,
)
from models.ranking.challengers import (
    ChallengerNames,
    Factory,
    ReadyChallengers,
    challenger_factories,
)
from models.ranking.champions import OBJECTIVES, Objective
from models.settings import Settings
from streams.kafka.consuming.example_reader import read_examples

LOG = logging.getLogger(__name__)

RETRY_S = 5.0

LEAST_PAUSE_S = 0.05
"""Pauses that keep learning within its share are taken once they have grown so long."""

Champions = Callable[[], Mapping[Objective, str]]
"""Gives the names of the built-in rankers that would serve."""


@dataclass
class _Course:
    """One thread, and what it has learned; `learners` and `fields` once it has what Kafka keeps."""

    settings: Settings
    factories: Mapping[str, Factory]
    wanted: ChallengerNames
    champions: Champions
    stop: threading.Event = field(default_factory=threading.Event)
    learners: ChallengerLearners | None = None
    fields: dict[str, bytes] = field(default_factory=dict)

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._learn()
            except (KafkaError, RecommenderError) as error:
                LOG.warning("challengers begin to learn anew: %s", error)
                self.stop.wait(RETRY_S)

    def _learn(self) -> None:
        learners = new_learners(self.factories, self.wanted)
        share, pause_s = self.settings.challenger_share, 0.0
        for read in read_examples(self.settings, self.settings.challenger_examples, self.stop):
            for raw in read.values:
                began_s = time.thread_time()
                self._learn_one(learners, raw)
                pause_s += (time.thread_time() - began_s) * (1.0 / share - 1.0)
                if pause_s > LEAST_PAUSE_S:
                    if self.stop.wait(pause_s):
                        return
                    pause_s = 0.0
            if read.is_end or self.learners is learners:
                self.learners, self.fields = learners, challenger_fields(learners)

    def _learn_one(self, learners: ChallengerLearners, raw: bytes) -> None:
        try:
            example = examples.decode(raw)
        except examples.DECODE_ERRORS:
            return  # the agent that learns the built-in ranker makes it a dead letter
        if example is not None:
            learn_as_challengers(learners, example, self.champions())


def _learned_ranker() -> Mapping[Objective, str]:
    return dict.fromkeys(OBJECTIVES, "ranker")


class RunningChallengers:
    """Learns challengers in a thread of its own, within `challenger_share` of a core.

    A worker measures all of them: `begin`, `fields`, `end`. An API process learns those that it
    answers by: it is a `ServingChallengers`.

    Raises
    ------
    CannotStart
        A challenger of the settings cannot be made.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._factories = challenger_factories(settings.challengers)
        self._course: _Course | None = None
        # Learns what is wanted since, beside those that are ready, and takes their place then.
        self._next: _Course | None = None

    def begin(self, champions: Champions) -> None:
        """Learn and measure all challengers, from new ones on."""
        self.end()
        every = frozenset(self._factories)
        self._course = self._begun(dict.fromkeys(OBJECTIVES, every), champions)

    def end(self) -> None:
        """Stop learning, and forget what was learned."""
        for one in (self._course, self._next):
            if one is not None:
                one.stop.set()
        self._course = self._next = None

    def fields(self) -> Mapping[str, bytes]:
        """Measures, see `challenger_fields`; none until what Kafka keeps has been learned."""
        return {} if self._course is None else self._course.fields

    def ready(self, wanted: ChallengerNames) -> ReadyChallengers:
        """The wanted ones that have learned what Kafka keeps; see `ServingChallengers`.

        While others begin to learn, those that are ready stay so.
        """
        named = {one: names & self._factories.keys() for one, names in wanted.items()}
        self._learn({one: frozenset(names) for one, names in named.items() if names})
        learners = None if self._course is None else self._course.learners
        if learners is None:
            return {}
        return {
            objective: {
                one.name: one
                for one in learners[objective].running
                if one.name in names and not one.has_failed
            }
            for objective, names in named.items()
        }

    def _learn(self, wanted: ChallengerNames) -> None:
        if not wanted:
            self.end()
            return
        following = self._next
        if following is not None and following.learners is not None:
            if self._course is not None:
                self._course.stop.set()
            self._course, self._next = following, None
        newest = self._next or self._course
        if newest is None or newest.wanted != wanted:
            if self._next is not None:
                self._next.stop.set()
            self._next = self._begun(wanted, _learned_ranker)

    def _begun(self, wanted: ChallengerNames, champions: Champions) -> _Course:
        course = _Course(self._settings, self._factories, wanted, champions)
        threading.Thread(target=course.run, name="challengers", daemon=True).start()
        return course
