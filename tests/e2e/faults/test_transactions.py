"""Producers with Kafka transactions: committed messages take effect, aborted ones never."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from models.state.clients.client import connect
from models.state.store import Store
from streams.jobs.resume import current_ends, wait_until_in_effect
from streams.kafka.consuming.offsets import messages, partition_ends
from streams.kafka.topics import Topics
from tests.e2e.faults.test_forwarder_unreadable import items
from tests.e2e.faults.test_unreadable import applied, click, metric, produce
from tests.servers import own_port
from tests.stack import Stack
from tests.streams.forwarding.forwarding_fixtures import environment
from tests.streams.forwarding.personalize_stub import PersonalizeStub

_numbers = itertools.count()


@pytest.fixture
def aws() -> Iterator[PersonalizeStub]:
    """A fake Amazon Personalize."""
    with PersonalizeStub() as stub:
        yield stub


@contextlib.contextmanager
def transaction(stack: Stack, *names: str) -> Iterator[KafkaProducer]:
    """An open transaction of clicks in partition 0, with all of them written."""
    producer = KafkaProducer(
        bootstrap_servers=stack.settings.kafka,
        transactional_id=f"{stack.settings.group}-{next(_numbers)}",
    )
    try:
        producer.init_transactions()
        producer.begin_transaction()
        for name in names:
            clicks = Topics.of(stack.settings).clicks
            producer.send(clicks, key=b"k", value=click(name, f"s-{name}"), partition=0)
        producer.flush(30)
        yield producer
    finally:
        producer.close(timeout=5)


def read(stack: Stack) -> list[str]:
    """Items of the messages that a job finds in partition 0 of the clicks."""
    found = messages(stack.settings, {(Topics.of(stack.settings).clicks, 0): 0})
    return [str(record.value).partition('"itemId": "')[2].partition('"')[0] for record in found]


def settled(stack: Stack) -> bool:
    """True if status has no lag, neither of the worker nor of the forwarder."""
    status = stack.status()
    return status.lag == 0 and status.forward["waiting"] == 0


def wait_for_all_sent(stack: Stack) -> None:
    """Wait for sent messages as a job does; it must not wait for an offset without a message."""

    async def waiting() -> None:
        async with connect(stack.settings.redis) as client:
            ends = await asyncio.to_thread(current_ends, stack.settings, ["clicks"])
            async with asyncio.timeout(60):
                await wait_until_in_effect(stack.settings, Store(client, stack.settings), ends)

    asyncio.run(waiting())


@pytest.mark.parametrize(
    "servers", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True
)
def test_a_transaction_takes_effect_once_it_is_committed(
    stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """Until then neither it nor later messages do; its end marker is no lag."""
    one, port = stack(partitions=2), own_port()
    clicks = Topics.of(one.settings).clicks
    produce(one.settings, clicks, click("before", "s0"))
    one.start("worker", RECOMMENDER_METRICS_PORT=str(port))
    one.start("forward", **environment(aws))
    with transaction(one, "first", "second") as producer:
        produce(one.settings, clicks, click("behind", "s1"))
        produce(one.settings, clicks, click("beside", "s2"), partition=1)
        applied(one, 2)
        assert partition_ends(one.settings, [clicks])[clicks, 0] == (1, 4)
        one.wait(lambda: one.status().lag == 3, "what is held waits")
        assert one.status().oldest_unapplied_age_s > 0
        assert read(one) == ["before"]
        assert one.run("skip", clicks, "0", "1", "--yes").returncode == 1
        producer.commit_transaction()
    applied(one, 5)
    with transaction(one, "last") as producer:
        producer.commit_transaction()
    applied(one, 6)
    one.wait(lambda: settled(one), "nothing waits")
    sent = ["before", "first", "second", "behind", "last"]
    assert read(one) == sent
    assert items(aws) == {*sent, "beside"}
    wait_for_all_sent(one)
    labels = f'partition="0",topic="{clicks}"'
    one.wait(lambda: metric(port, "recommender_lag_messages").get(labels) == 0, "no lag is told")
    one.wait(lambda: committed(one) == one.status().partitions[0].end, "Kafka knows it")
    assert "lag:              0" in one.run("status").stdout


def committed(stack: Stack) -> int:
    """The next offset of partition 0 of the clicks that the worker's group has committed."""
    admin = KafkaAdminClient(bootstrap_servers=stack.settings.kafka)
    try:
        (found,) = admin.list_group_offsets(f"{stack.settings.group}-worker").values()
    finally:
        admin.close()
    place = TopicPartition(Topics.of(stack.settings).clicks, 0)
    return found[place].offset if place in found else -1


@pytest.mark.parametrize(
    "servers", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True
)
def test_aborted_messages_never_take_effect(
    stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """Neither here nor at AWS, alone or within a batch; at the end of the log they are no lag."""
    one = stack(partitions=2)
    clicks = Topics.of(one.settings).clicks
    with transaction(one, "never") as producer:
        producer.abort_transaction()
    produce(one.settings, clicks, click("first", "s0"))
    one.start("worker")
    one.start("forward", **environment(aws))
    applied(one, 1)
    with transaction(one, "nor this") as producer, transaction(one, "but this") as other:
        other.commit_transaction()
        producer.abort_transaction()
    produce(one.settings, clicks, click("second", "s1"))
    applied(one, 3)
    with transaction(one, "nor the last", "two") as producer:
        producer.abort_transaction()
    one.wait(lambda: settled(one), "nothing waits")
    assert one.counts()["events"] == 3
    assert read(one) == ["first", "but this", "second"]
    assert items(aws) == {"first", "but this", "second"}
    wait_for_all_sent(one)
