"""Shards that are away for a while, under a worker that goes on without them.

Which of them answers changes at random between batches; answers get lost, too, and workers begin
anew. In the end each shard has what it would have had.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import redis.exceptions

from models.settings import Settings
from models.state.messages import Part
from models.state.shards.shard_names import owner_shard, shard_names
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from streams.kafka.consuming.assignment import ReceivedMessage
from tests.models.state.reference import NOW, Reference
from tests.models.state.shards.sharded_reference import assert_same_shards
from tests.streams.agents.shards.test_sharded_events import CLICKS, OPTIONS, SHARDS, Worker
from tests.streams.agents.simulated_kafka import SimulatedKafka

NAMES = shard_names(SHARDS)


class Absence:
    """Which shards do not answer, and how often an answer of the others is lost."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.absent: set[str] = set()
        self.lost_share = 0.0

    def change(self) -> None:
        """Other shards are away, at most all but one of each kind."""
        names = {self.chance.choice(NAMES[:SHARDS]), self.chance.choice(NAMES[SHARDS:])}
        self.absent = {name for name in names if self.chance.random() < 0.5}
        self.lost_share = self.chance.choice((0.0, 0.0, 0.2))

    def check(self, prefix: str) -> None:
        """Raise if the shard whose keys begin so is away."""
        if any(f"/{name}}}" in prefix for name in self.absent):
            raise redis.exceptions.ConnectionError("away")


class AbsentSteps(ShardedSteps):
    """Steps of shards that may be away, or whose answer is lost when they have been done."""

    absence: Absence

    def is_absence(self, error: BaseException) -> bool:
        """As on a cluster."""
        return isinstance(error, redis.exceptions.ConnectionError)

    def _prefix(self, kind: Any, shard: int) -> str:
        prefix = super()._prefix(kind, shard)
        self.absence.check(prefix)
        return prefix

    async def _run(self, *words: Any) -> Any:
        done = await super()._run(*words)
        if self.absence.chance.random() < self.absence.lost_share:
            raise redis.exceptions.ConnectionError("its answer is lost")
        return done


class AbsentWorker(Worker):
    """A worker process whose shards may be away."""

    def __init__(
        self, url: str, kafka: SimulatedKafka, absence: Absence, options: Settings = OPTIONS
    ) -> None:
        self.absence = absence
        super().__init__(url, kafka, AbsentSteps, options)
        self.steps.absence = absence  # type: ignore[attr-defined]
        for agent in (self.events, self.sessions, self.items):
            store = agent.store
            assert isinstance(store, ShardedStore)
            for one in (*store.sessions, *store.items):
                one._fields = self._checked(one)  # type: ignore[method-assign, assignment]

    def _checked(self, store: Store) -> Callable[..., Awaitable[list[bytes | None]]]:
        read = store._fields

        async def fields(name: str, wanted: Sequence[str]) -> list[bytes | None]:
            self.absence.check(store.prefix)
            return await read(name, wanted)

        return fields

    async def apply_items(self) -> None:
        """Apply what there is for item shards; those that are back get what they lack."""
        await self.items.detect_losses()
        await super().apply_items()

    async def pump(self) -> None:
        """What there is, once."""
        await self.events.apply(self.kafka.read(CLICKS))
        await self.apply_items()
        for agent in (self.events, self.sessions, self.items):
            await agent.detect_losses()


def value_of(number: int, chance: random.Random, items: str) -> bytes:
    """A message of one of six users."""
    user = f"u{chance.randrange(6)}"
    events = [
        {"eventType": chance.choice(("click", "purchase")), "itemId": item,
         "sentAt": NOW - 400 + 2 * number + at, "eventId": f"e{number}-{at}"}
        for at, item in enumerate(chance.choices(items, k=2))
    ]  # fmt: skip
    sent: Mapping[str, object] = {
        "trackingId": "h", "sessionId": user, "userId": user, "acceptedAt": NOW - 50,
        "eventList": events,
    }  # fmt: skip
    return json.dumps(sent).encode()


@pytest.mark.parametrize("seed", range(4))
async def test_shards_that_are_away_get_everything_once(redis_url: str, seed: int) -> None:
    """Others go on at once; new items of a shard that is away wait for it."""
    kafka, absence = SimulatedKafka(), Absence(seed)
    workers = [AbsentWorker(redis_url, kafka, absence)]
    await workers[-1].assign()
    n_went_on = 0
    for number in range(80):
        kafka.append(CLICKS, value_of(number, absence.chance, "abcdefgh"[: 2 + number // 10]))
        if number % 5 == 4:
            absence.change()
        if number % 27 == 26:
            absence.absent, absence.lost_share = set(), 0.0
            workers.append(AbsentWorker(redis_url, kafka, absence))
            await workers[-1].assign()
        worker = workers[-1]
        await worker.pump()
        away = {name for name in absence.absent if name[0] == "u"}
        read = worker.events.assignment.reads[CLICKS]
        n_went_on += bool(away) and read.newest > read.applied
    absence.absent, absence.lost_share = set(), 0.0
    worker = workers[-1]
    for _ in range(3):
        await worker.settle()
    reference = Reference(limit=20)
    for offset, record in enumerate(kafka.of(CLICKS).records):
        assert record is not None
        message = await worker.codec.decode(ReceivedMessage(*CLICKS, offset, record.value))
        reference.apply([Part("p/0", -1, [message])])
    try:
        assert n_went_on > 5
        await assert_same_shards(worker.steps, reference, owners_are_same=False)
        assert not any(one.letters for one in workers)
        assert worker.events.assignment.reads[CLICKS].applied == 79
    finally:
        await worker.client.flushdb()
        for one in workers:
            await one.client.aclose()


@pytest.mark.parametrize("seed", range(3))
async def test_refused_events_are_told_once_beside_a_shard_that_is_away(
    redis_url: str, seed: int
) -> None:
    """A full group: each event is in its history, or a dead letter; none is neither, or both."""
    kafka, absence = SimulatedKafka(), Absence(seed)
    options = OPTIONS.model_copy(update={"max_items": 4, "history_events": 100})
    worker = AbsentWorker(redis_url, kafka, absence, options)
    await worker.assign()
    for number in range(50):
        kafka.append(CLICKS, value_of(number, absence.chance, "abcdefgh"))
        if number % 5 == 4:
            absence.change()
            absence.lost_share = 0.0
        await worker.pump()
    absence.absent = set()
    for _ in range(3):
        await worker.settle()
    store = ShardedStore(worker.client, options)
    try:
        histories = await store.histories([f"u:u{number}" for number in range(6)])
        n_stored = sum(len(one.items) for one in histories)
        letters = [json.loads(letter) for letter in worker.letters]
        n_refused = sum(
            len(json.loads(base64.b64decode(one["payload"]))["eventList"]) for one in letters
        )
        offsets = [one["source"]["offset"] for one in letters]
        assert n_refused > 10
        assert len(offsets) == len(set(offsets))
        assert n_stored + n_refused == 100
        assert {owner_shard(f"u{number}", SHARDS) for number in range(6)} == set(range(SHARDS))
    finally:
        await worker.client.flushdb()
        await worker.client.aclose()
