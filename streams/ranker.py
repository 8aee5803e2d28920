"""The ranker agent: examples in, a better order out. One partition, so one learner at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec
import river.optim  # noqa: F401  loads for a second: not when the first example comes
from prometheus_client import Counter, Gauge

from models import examples
from models.objectives import courses, teach
from models.store import RETRY_ERRORS, Store
from streams.sessions import RETRY_MOST_S, Arrival

LOG = logging.getLogger(__name__)

LEARNED = Counter("recommender_examples_total", "Examples by what became of them", ["outcome"])
QUALITY = Gauge(
    "recommender_quality",
    "Running mean over the last choices, predicted first",
    ["objective", "rival", "measure"],
)


class Learner:
    """The ranker with its scoreboard and its place in the stream of examples."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.courses = courses()
        self.field = ""
        self.watermark = -1
        self.saved = -1

    async def assigned(self, field: str) -> int:
        """Take up the work where the store says it was left; gives the watermark."""
        stored = await self.store.load_ranker()
        self.field = field
        self.watermark = self.saved = int(stored.get(f"watermark:{field}", b"-1"))
        self.courses = courses(stored)
        return self.watermark

    def learn(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Measure, then learn, each example once; gives those that are none.

        What is not saved when a crash comes is learned again, for the watermark is saved with it.
        """
        spoiled = []
        for arrival in arrivals:
            if arrival.offset <= self.watermark:
                continue
            try:
                example = examples.decode(arrival.value)
            except (msgspec.MsgspecError, ValueError):
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
        teach(self.courses, example)
        LEARNED.labels("learned" if example.rows else "missed").inc()

    async def save(self) -> None:
        """Keep what was learned; where another learner has taken over, take up its state."""
        offset = self.watermark
        if offset == self.saved:
            return
        fields: dict[str, bytes | str] = {}
        for name, course in self.courses.items():
            fields |= course.fields(name)
        delay_s = 0.05
        while True:
            try:
                kept = await self.store.save_ranker(
                    fields, field=self.field, expected=self.saved, offset=offset
                )
            except RETRY_ERRORS as error:
                LOG.warning("Redis is away, the ranker waits: %s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MOST_S)
            else:
                break
        if kept:
            self.saved = offset
            for name, course in self.courses.items():
                for rival, means in course.scoreboard.means.items():
                    for measure, value in means.items():
                        QUALITY.labels(name, rival, measure).set(value)
        else:
            LOG.warning("the ranker's state was changed elsewhere; going on from there")
            await self.assigned(self.field)
