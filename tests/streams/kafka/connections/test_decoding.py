"""Unreadable batches in aiokafka: the messages before them are delivered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition
from kafka import KafkaProducer

from models.errors import Unreadable
from models.settings import Settings
from streams.kafka.connections.decoding import Fetched
from streams.kafka.topics import Topics, ensure_topics
from tests.damage import BOMBS, KINDS, damaged


@pytest.fixture
async def consumer(broker: str) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer like the worker's, without Faust."""
    made = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unreadable_batch_stops_its_partition_only(
    broker: str, consumer: Any, kind: str
) -> None:
    """Messages before it and of other partitions arrive; reading goes on after a seek behind it."""
    settings = Settings(kafka=broker, topic_prefix=f"{kind}.", partitions=2)
    ensure_topics(settings)
    topic = Topics.of(settings).clicks
    place, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = KafkaProducer(bootstrap_servers=broker)
    for value in (b"1", b"2"):
        producer.send(topic, value, partition=0).get(30)
    bad = damaged(settings, topic, 0, kind=kind, messages=3)
    producer.send(topic, b"behind", partition=0).get(30)
    producer.send(topic, b"beside", partition=1).get(30)
    producer.close()
    told: list[Unreadable] = []
    consumer.assign([place, other])
    fetcher = consumer._fetcher

    def stop(error: Unreadable) -> None:
        told.append(error)
        consumer.pause(place)

    def position(tp: TopicPartition) -> int:
        return int(consumer._subscription.subscription.assignment.state_value(tp).position)

    fetcher._records = Fetched(fetcher._records, position, stop)

    async def read(n_values: int) -> set[bytes]:
        found: set[bytes] = set()
        while len(found) < n_values:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found |= {record.value for record in records}
        return found

    assert await read(3) == {b"1", b"2", b"beside"}
    while not told:
        await consumer.getmany(timeout_ms=100)
    assert [(e.topic, e.partition, e.first, e.last) for e in told] == [(topic, 0, bad, bad + 2)]
    assert told[0].reason.startswith("UnpacksTooLarge") is (kind in BOMBS)
    assert await consumer.position(place) == bad
    consumer.seek(place, bad + 3)
    consumer.resume(place)
    assert await read(1) == {b"behind"}
