"""Kafka loses its last messages while a batch is on its way: cases that a random run has found."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.settings import Settings
from ops.embedded_servers import start_redis
from streams.agents.rewinds import END_CHECKS
from tests.streams.agents.losing_redis import LosingRedis
from tests.streams.agents.simulated_kafka import SimulatedKafka
from tests.streams.agents.simulated_worker import NOW_S, Worker, events_by_item

PLACE = ("clicks", 0)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker that has the partition from its beginning."""
    server = start_redis(tmp_path)
    made = Worker(server.url, Settings(examples_per_s=0), SimulatedKafka())
    await made.assign([PLACE])
    yield made
    await made.close()
    server.stop()


@pytest.fixture
async def losing() -> AsyncIterator[tuple[LosingRedis, Worker]]:
    """The same on a Redis that may come back with an earlier state."""
    redis = LosingRedis()
    made = Worker(redis.url, Settings(examples_per_s=0), SimulatedKafka())
    await made.assign([PLACE])
    yield redis, made
    await made.close()
    redis.stop()


@pytest.mark.parametrize(("n_new", "n_last"), [(0, 1), (1, 0), (1, 1), (3, 0), (3, 1)])
async def test_redis_is_back_at_messages_that_kafka_has_lost(
    losing: tuple[LosingRedis, Worker], n_new: int, n_last: int
) -> None:
    """Its state is as far as the worker's, further or behind it, but not of the same messages."""
    redis, worker = losing
    kafka, agent = worker.kafka, worker.agent
    for n in range(3):
        send(kafka, f"old{n}")
    await agent.apply(kafka.read(PLACE))
    await redis.take_snapshot()
    kafka.lose_tail(PLACE, 1)
    for n in range(n_new):
        send(kafka, f"new{n}")
    for _ in range(2 * END_CHECKS + 1):
        await agent.apply(kafka.read(PLACE))
        await agent.detect_losses()
    assert (await events_by_item(agent.store)).get("new0", 0) == min(n_new, 1)

    await redis.lose(0)
    for n in range(n_last):
        send(kafka, f"last{n}")
    for _ in range(4):
        await agent.apply(kafka.read(PLACE))
        await agent.detect_losses()

    names = ["old0", "old1", "old2", *(f"new{n}" for n in range(n_new))]
    names += [f"last{n}" for n in range(n_last)]
    assert await events_by_item(agent.store) == dict.fromkeys(names, 1)


async def test_what_was_fetched_before_and_after_arrives_at_once(worker: Worker) -> None:
    """Nothing is in effect yet that could be compared: it is, once it has taken effect."""
    kafka = worker.kafka
    for n in range(4):
        send(kafka, f"old{n}")
    kafka.fetch(PLACE)
    kafka.lose_tail(PLACE, 2)
    for n in range(3):
        send(kafka, f"new{n}")
    for _ in range(4):
        await worker.agent.apply(kafka.read(PLACE))
    counted = await events_by_item(worker.agent.store)
    assert counted == dict.fromkeys(["old0", "old1", "old2", "old3", "new0", "new1", "new2"], 1)


def send(kafka: SimulatedKafka, name: str) -> None:
    """One event on an item of its name."""
    event = {"eventId": name, "eventType": "click", "itemId": name, "sentAt": NOW_S - 1000}
    kafka.append(PLACE, json.dumps({"sessionId": "s", "eventList": [event]}).encode())
