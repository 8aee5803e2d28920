"""The ranker agent: learns each group's ranker from examples.

Examples have one partition, so one worker at a time learns.
"""

from __future__ import annotations

import asyncio
import collections
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import river.optim  # noqa: F401  takes a second to load: now, not at the first example
from prometheus_client import Counter, Gauge

from models.key_figures import quality_sums, source_sums
from models.ranking import examples
from models.ranking.champions import Objective
from models.ranking.objectives import learn, load_learners
from models.ranking.prequential import CUTOFF
from models.serving.recommenders import MAX_OPEN_RECOMMENDERS
from models.state.store import Store
from models.state.stored_ranker import load_ranker, save_ranker
from models.state.tenants import Tenants
from streams.kafka.consuming.assignment import ReceivedMessage
from streams.retry_policy import retry_outages

LOG = logging.getLogger(__name__)

LEARNED = Counter("recommender_examples_total", "Examples by outcome", ["outcome"])
LEARNED.labels("invalid")  # an alert on growth needs the zero before the first
QUALITY = Gauge(
    "recommender_quality",
    "Running mean over the last examples, each predicted before it is learned",
    ["group", "objective", "rival", "measure"],
)


class GroupLearner:
    """One group's rankers with their scoreboards, and their watermark in the topic of examples.

    `sums` has what was measured since it was last taken, for the key figures; `challengers` are the
    names of those that serve, whose ranks are not in the examples.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.learners = load_learners()
        self.field = ""
        self.watermark = -1
        self.saved = -1
        self.sums: collections.Counter[str] = collections.Counter()
        self.challengers: Mapping[Objective, str] = {}

    async def load(self, field: str) -> int:
        """Load the state that the store has; returns its watermark, -1 for none."""
        stored = await load_ranker(self.store)
        self.field = field
        self.watermark = self.saved = int(stored.get(f"watermark:{field}", b"-1"))
        self.learners = load_learners(stored)
        return self.watermark

    def learn(self, received: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Evaluate, then learn each example once; returns the messages that are no examples.

        After a crash everything since the last save is learned again: the watermark is saved with
        the state.
        """
        invalid = []
        for one in received:
            if one.offset <= self.watermark:
                continue
            try:
                example = examples.decode(one.value)
            except examples.DECODE_ERRORS:
                invalid.append(one)
                LEARNED.labels("invalid").inc()
            else:
                self._learn_one(example)
            self.watermark = one.offset
        return invalid

    def _learn_one(self, example: examples.Example | None) -> None:
        if example is None:
            LEARNED.labels("outdated").inc()
            return
        for objective, ranks in example.ranks.items():
            champion = self.challengers.get(objective) or self.learners[objective].champion
            self.sums.update(quality_sums(objective, ranks, champion, cutoff=CUTOFF))
        if any(example.ranks.values()):
            self.sums.update(source_sums(example.sources()))
        learn(self.learners, example)
        LEARNED.labels("learned" if example.rows else "missed").inc()

    async def save(self) -> None:
        """Save the state; if another learner has saved since, load its state instead."""
        offset = self.watermark
        if offset == self.saved:
            return
        fields: dict[str, bytes | str] = {}
        for name, learner in self.learners.items():
            fields |= learner.fields(name)
        is_saved = await retry_outages(
            lambda: save_ranker(
                self.store, fields, field=self.field, expected=self.saved, offset=offset
            )
        )
        if is_saved:
            self.saved = offset
            for labels, value in self._measures().items():
                QUALITY.labels(self.store.settings.group, *labels).set(value)
        else:
            LOG.warning("another worker has saved the ranker's state; continuing with its state")
            await retry_outages(lambda: self.load(self.field))

    def unregister_metrics(self) -> None:
        """Stop exporting the group's quality measures."""
        for labels in self._measures():
            QUALITY.remove(self.store.settings.group, *labels)

    def _measures(self) -> dict[tuple[str, str, str], float]:
        return {
            (objective, rival, measure): value
            for objective, learner in self.learners.items()
            for rival, means in learner.scoreboard.means.items()
            for measure, value in means.items()
        }


class GroupLearners:
    """A learner for each group with examples, and one watermark for all.

    The watermark is that of the settings' group: it moves with the examples of every group, and is
    saved after the other groups' state. Nothing is learned while a save is under way.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._own = GroupLearner(tenants.store(tenants.settings.group))
        self._others: OrderedDict[str, GroupLearner] = OrderedDict()
        self._lock = asyncio.Lock()
        self._epoch = 0

    @property
    def saved(self) -> int:
        """The last offset whose example need not be read again."""
        return self._own.saved

    def champions(self) -> Mapping[Objective, str]:
        """Names of the built-in rankers that serve the settings' group."""
        return {name: one.champion for name, one in self._own.learners.items()}

    def challengers_serve(self, serving: Mapping[Objective, str]) -> None:
        """Note which challengers serve the settings' group."""
        self._own.challengers = serving

    def take_sums(self) -> Mapping[str, float]:
        """Sums of the settings' group's examples since they were last taken; see `quality_sums`."""
        taken, self._own.sums = self._own.sums, collections.Counter()
        return taken

    async def load(self, field: str) -> int:
        """Load the settings' group's state and drop the others; returns the watermark."""
        async with self._lock:
            self._epoch += 1
            while self._others:
                self._others.popitem()[1].unregister_metrics()
            return await self._own.load(field)

    async def learn(self, received: Sequence[ReceivedMessage]) -> list[ReceivedMessage]:
        """Learn each example once, in its group; returns the messages that are no examples.

        Messages of an assignment that ended while this waited are left alone.
        """
        invalid: list[ReceivedMessage] = []
        epoch = self._epoch
        async with self._lock:
            if self._epoch != epoch or not received:
                return invalid
            by_group: dict[str, list[ReceivedMessage]] = {}
            for one in received:
                by_group.setdefault(group_of(one), []).append(one)
            for group, some in by_group.items():
                learner = await self._learner(group)
                if learner is None:
                    # The group of an example is gone; an invalid message may name any group.
                    spoiled = [one for one in some if not examples.is_example(one.value)]
                    LEARNED.labels("invalid").inc(len(spoiled))
                    LEARNED.labels("homeless").inc(len(some) - len(spoiled))
                    invalid += spoiled
                else:
                    invalid += learner.learn(some)
            self._own.watermark = max(self._own.watermark, received[-1].offset)
        return invalid

    async def save(self) -> None:
        """Save every group's state, the settings' group's last; drop groups that are gone."""
        async with self._lock:
            if self._others:
                existing = await retry_outages(self._tenants.groups)
                for group in self._others.keys() - existing:
                    self._others.pop(group).unregister_metrics()
            for learner in self._others.values():
                await learner.save()
            await self._own.save()

    async def _learner(self, group: str) -> GroupLearner | None:
        """The group's learner, loaded if necessary; None if there is no such group.

        The least recently used one is saved and dropped where `MAX_OPEN_RECOMMENDERS` are loaded.
        """
        if group in ("", self._tenants.settings.group):
            return self._own
        if group not in self._others:
            if group not in await retry_outages(self._tenants.groups):
                return None
            while len(self._others) >= MAX_OPEN_RECOMMENDERS:
                _, oldest = self._others.popitem(last=False)
                await oldest.save()
                oldest.unregister_metrics()
            learner = GroupLearner(self._tenants.store(group))
            await retry_outages(lambda: learner.load(self._own.field))
            self._others[group] = learner
        self._others.move_to_end(group)
        return self._others[group]


def group_of(received: ReceivedMessage) -> str:
    """Group that an example names; empty for the settings' group."""
    return received.key.decode(errors="replace")
