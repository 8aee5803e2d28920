"""Kafka loses its tail while a batch is on its way: regressions that random runs have found."""

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

PARTITION = ("clicks", 0)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker of the partition, read from its beginning."""
    server = start_redis(tmp_path)
    made = Worker(server.url, Settings(examples_per_s=0), SimulatedKafka())
    await made.assign([PARTITION])
    yield made
    await made.close()
    server.stop()


@pytest.fixture
async def losing() -> AsyncIterator[tuple[LosingRedis, Worker]]:
    """The same on a Redis that may restart with an earlier state."""
    redis = LosingRedis()
    made = Worker(redis.url, Settings(examples_per_s=0), SimulatedKafka())
    await made.assign([PARTITION])
    yield redis, made
    await made.close()
    redis.stop()


@pytest.mark.parametrize(("n_new", "n_last"), [(0, 1), (1, 0), (1, 1), (3, 0), (3, 1)])
async def test_redis_restarts_at_messages_that_kafka_has_lost(
    losing: tuple[LosingRedis, Worker], n_new: int, n_last: int
) -> None:
    """Its watermark equals the worker's, or is before or behind it, but at another message."""
    redis, worker = losing
    kafka, agent = worker.kafka, worker.agent
    for n in range(3):
        send(kafka, f"old{n}")
    await agent.apply(kafka.read(PARTITION))
    await redis.take_snapshot()
    kafka.lose_tail(PARTITION, 1)
    for n in range(n_new):
        send(kafka, f"new{n}")
    for _ in range(2 * END_CHECKS + 1):
        await agent.apply(kafka.read(PARTITION))
        await agent.detect_losses()
    assert (await events_by_item(agent.store)).get("new0", 0) == min(n_new, 1)

    await redis.lose(0)
    for n in range(n_last):
        send(kafka, f"last{n}")
    for _ in range(4):
        await agent.apply(kafka.read(PARTITION))
        await agent.detect_losses()

    names = ["old0", "old1", "old2", *(f"new{n}" for n in range(n_new))]
    names += [f"last{n}" for n in range(n_last)]
    assert await events_by_item(agent.store) == dict.fromkeys(names, 1)


async def test_messages_fetched_before_and_after_a_lost_tail_arrive_together(
    worker: Worker,
) -> None:
    """They arrive together, can be compared only once they are in effect, and are then."""
    kafka = worker.kafka
    for n in range(4):
        send(kafka, f"old{n}")
    kafka.fetch(PARTITION)
    kafka.lose_tail(PARTITION, 2)
    for n in range(3):
        send(kafka, f"new{n}")
    for _ in range(4):
        await worker.agent.apply(kafka.read(PARTITION))
    counted = await events_by_item(worker.agent.store)
    assert counted == dict.fromkeys(["old0", "old1", "old2", "old3", "new0", "new1", "new2"], 1)


@pytest.mark.parametrize("n_lost", [2, 3, 4])
@pytest.mark.parametrize("n_new", [0, 1, 2])
async def test_an_end_is_seen_and_no_message_arrives_until_a_rebalance(
    worker: Worker, n_lost: int, n_new: int
) -> None:
    """The end alone does not tell which messages before it are the applied ones."""
    kafka = worker.kafka
    for n in range(4):
        send(kafka, f"old{n}")
    await worker.agent.apply(kafka.read(PARTITION))
    kafka.lose_tail(PARTITION, n_lost)
    for n in range(n_new):
        send(kafka, f"new{n}")
    for _ in range(2 * END_CHECKS + 1):
        await worker.agent.detect_losses()

    await worker.assign([PARTITION])
    send(kafka, "last")
    for _ in range(4):
        await worker.agent.apply(kafka.read(PARTITION))
        await worker.agent.detect_losses()

    names = [*(f"old{n}" for n in range(4)), *(f"new{n}" for n in range(n_new)), "last"]
    assert await events_by_item(worker.agent.store) == dict.fromkeys(names, 1)


@pytest.mark.parametrize("n_arrived", [1, 2])
async def test_part_of_the_rest_is_compared_before_it_counts_as_lost(
    worker: Worker, n_arrived: int
) -> None:
    """Behind the messages that were compared, everything is read as new."""
    kafka = worker.kafka
    for n in range(6):
        send(kafka, f"old{n}")
    await worker.agent.apply(kafka.read(PARTITION))
    kafka.lose_tail(PARTITION, 4)
    for n in range(2):
        send(kafka, f"new{n}")
    for _ in range(2 * END_CHECKS + 1):
        await worker.agent.detect_losses()
        kafka.fetch(PARTITION, n_arrived)
        await worker.agent.apply(kafka.deliver(PARTITION, n_arrived))
        n_arrived = 0
    for _ in range(4):
        await worker.agent.apply(kafka.read(PARTITION))
        await worker.agent.detect_losses()

    names = [*(f"old{n}" for n in range(6)), "new0", "new1"]
    assert await events_by_item(worker.agent.store) == dict.fromkeys(names, 1)


async def test_a_tail_is_lost_again_before_a_rebalance(worker: Worker) -> None:
    """The second loss is seen by the message at the watermark that the first one has lowered."""
    kafka = worker.kafka
    for n in range(4):
        send(kafka, f"old{n}")
    await worker.agent.apply(kafka.read(PARTITION))
    kafka.lose_tail(PARTITION, 1)
    for _ in range(2 * END_CHECKS + 1):
        await worker.agent.detect_losses()
        await worker.agent.apply(kafka.read(PARTITION))
    kafka.lose_tail(PARTITION, 2)
    for n in range(3):
        send(kafka, f"new{n}")
    await worker.assign([PARTITION])
    for _ in range(4):
        await worker.agent.apply(kafka.read(PARTITION))
        await worker.agent.detect_losses()

    names = [*(f"old{n}" for n in range(4)), *(f"new{n}" for n in range(3))]
    assert await events_by_item(worker.agent.store) == dict.fromkeys(names, 1)


async def test_a_message_where_there_was_none_before_the_loss(worker: Worker) -> None:
    """The end of a transaction takes an offset; after the loss a message has it."""
    kafka = worker.kafka
    send(kafka, "old0")
    kafka.of(PARTITION).records.append(None)
    send(kafka, "old2")
    await worker.agent.apply(kafka.read(PARTITION))
    kafka.lose_tail(PARTITION, 2)
    for n in range(3):
        send(kafka, f"new{n}")
    for _ in range(4):
        await worker.agent.apply(kafka.read(PARTITION))
        await worker.agent.detect_losses()

    names = ["old0", "old2", "new0", "new1", "new2"]
    assert await events_by_item(worker.agent.store) == dict.fromkeys(names, 1)


def send(kafka: SimulatedKafka, name: str) -> None:
    """Append an event on an item of this name."""
    event = {"eventId": name, "eventType": "click", "itemId": name, "sentAt": NOW_S - 1000}
    kafka.append(PARTITION, json.dumps({"sessionId": "s", "eventList": [event]}).encode())
