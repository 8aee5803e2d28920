"""The ranker agent: examples in, a better order out. One partition, so one worker at a time."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

import river.optim  # noqa: F401  loads for a second: not when the first example comes
from prometheus_client import Counter, Gauge

from models.ranking import examples
from models.ranking.objectives import learn, load_learners
from models.serving.tenants import OPEN, Tenants
from models.state.store import Store
from streams.agents.atomic_batches import retried
from streams.kafka.assignment import ReceivedMessage

LOG = logging.getLogger(__name__)

LEARNED = Counter("recommender_examples_total", "Examples by what became of them", ["outcome"])
QUALITY = Gauge(
    "recommender_quality",
    "Running mean over the last choices, predicted first",
    ["group", "objective", "rival", "measure"],
)


class GroupLearner:
    """One group's ranker with its scoreboard and its place in the stream of examples."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.courses = load_learners()
        self.field = ""
        self.watermark = -1
        self.saved = -1

    async def assigned(self, field: str) -> int:
        """Take up the work where the store says it was left; gives the watermark."""
        stored = await self.store.load_ranker()
        self.field = field
        self.watermark = self.saved = int(stored.get(f"watermark:{field}", b"-1"))
        self.courses = load_learners(stored)
        return self.watermark

    def learn(self, arrivals: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Measure, then learn, each example once; gives those that are none.

        What is not saved when a crash comes is learned again, for the watermark is saved with it.
        """
        spoiled = []
        for arrival in arrivals:
            if arrival.offset <= self.watermark:
                continue
            try:
                example = examples.decode(arrival.value)
            except examples.INVALID:
                spoiled.append(arrival)
                LEARNED.labels("invalid").inc()
            else:
                self._learn_one(example)
            self.watermark = arrival.offset
        return spoiled

    def _learn_one(self, example: examples.Example | None) -> None:
        if example is None:
            LEARNED.labels("outdated").inc()
            return
        learn(self.courses, example)
        LEARNED.labels("learned" if example.rows else "missed").inc()

    async def save(self) -> None:
        """Keep what was learned; where another learner has taken over, take up its state."""
        offset = self.watermark
        if offset == self.saved:
            return
        fields: dict[str, bytes | str] = {}
        for name, course in self.courses.items():
            fields |= course.fields(name)
        kept = await retried(
            lambda: self.store.save_ranker(
                fields, field=self.field, expected=self.saved, offset=offset
            )
        )
        if kept:
            self.saved = offset
            for labels, value in self._measures().items():
                QUALITY.labels(self.store.settings.group, *labels).set(value)
        else:
            LOG.warning("the ranker's state was changed elsewhere; going on from there")
            await retried(lambda: self.assigned(self.field))

    def retire(self) -> None:
        """Tell its measures no longer."""
        for labels in self._measures():
            QUALITY.remove(self.store.settings.group, *labels)

    def _measures(self) -> dict[tuple[str, str, str], float]:
        return {
            (objective, rival, measure): value
            for objective, course in self.courses.items()
            for rival, means in course.scoreboard.means.items()
            for measure, value in means.items()
        }


class GroupLearners:
    """A learner for each group that users choose in, with one place in the stream for all.

    The place is the watermark of the settings' group: it moves with examples of every group, and is
    saved behind theirs. Nothing is learned while something is saved.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._own = GroupLearner(tenants.store(tenants.settings.group))
        self._others: OrderedDict[str, GroupLearner] = OrderedDict()
        self._busy = asyncio.Lock()
        self._epoch = 0

    @property
    def saved(self) -> int:
        """The last offset that need not be read again."""
        return self._own.saved

    async def assigned(self, field: str) -> int:
        """Take up the work where the store says it was left; gives the watermark."""
        async with self._busy:
            self._epoch += 1
            while self._others:
                self._others.popitem()[1].retire()
            return await self._own.assigned(field)

    async def learn(self, arrivals: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Learn each example once, in its group; gives those that are none."""
        spoiled: list[ReceivedMessage] = []
        epoch = self._epoch
        async with self._busy:
            if self._epoch != epoch or not arrivals:
                return spoiled
            by_group: dict[str, list[ReceivedMessage]] = {}
            for arrival in arrivals:
                by_group.setdefault(group_of(arrival), []).append(arrival)
            for group, some in by_group.items():
                learner = await self._learner(group)
                if learner is None:
                    # The group of an example is gone; what is none may name any group.
                    invalid = [one for one in some if not examples.is_example(one.value)]
                    LEARNED.labels("invalid").inc(len(invalid))
                    LEARNED.labels("homeless").inc(len(some) - len(invalid))
                    spoiled += invalid
                else:
                    spoiled += learner.learn(some)
            self._own.watermark = max(self._own.watermark, arrivals[-1].offset)
        return spoiled

    async def save(self) -> None:
        """Keep what was learned, of the settings' group last; let go of groups that are gone."""
        async with self._busy:
            if self._others:
                there = await retried(self._tenants.groups)
                for group in self._others.keys() - there:
                    self._others.pop(group).retire()
            for learner in self._others.values():
                await learner.save()
            await self._own.save()

    async def _learner(self, group: str) -> GroupLearner | None:
        """The group's learner; None if there is no such group. The least used make room."""
        if group in ("", self._tenants.settings.group):
            return self._own
        if group not in self._others:
            if group not in await retried(self._tenants.groups):
                return None
            while len(self._others) >= OPEN:
                _, oldest = self._others.popitem(last=False)
                await oldest.save()
                oldest.retire()
            learner = GroupLearner(self._tenants.store(group))
            await retried(lambda: learner.assigned(self._own.field))
            self._others[group] = learner
        self._others.move_to_end(group)
        return self._others[group]


def group_of(arrival: ReceivedMessage) -> str:
    """The group that an example says it is of; empty for the group of the settings."""
    return arrival.key.decode(errors="replace")
