"""The broker as clients meet it: real clients, broken ones, and those that wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import (
    InvalidConfigurationError,
    TopicAlreadyExistsError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.protocol.metadata import ApiVersionsResponse

from ops.broker.broker_server import MAX_REQUEST_BYTES
from ops.broker.request_kinds import VERSIONS
from ops.drill.proxy import TcpProxy
from ops.embedded_servers import Server, start_broker
from ops.ports import HOST, ReservedPort

API_VERSIONS, FETCH = 18, 1

LONG_MS = 50_000
"""A wait that a test cannot pass by waiting for its end."""


@pytest.fixture
def admin(broker: Server) -> Iterator[KafkaAdminClient]:
    """A client that makes topics."""
    client = KafkaAdminClient(bootstrap_servers=broker.address)
    yield client
    client.close()


async def test_a_fetch_that_waits_is_answered_when_a_message_arrives(
    broker: Server, admin: KafkaAdminClient
) -> None:
    """In any of its partitions, and long before the time that it may take."""
    admin.create_topics({"waits": {"num_partitions": 3, "replication_factor": 1}})
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, fetch_max_wait_ms=LONG_MS)
    producer = AIOKafkaProducer(bootstrap_servers=broker.address)
    await consumer.start()
    await producer.start()
    try:
        consumer.assign([TopicPartition("waits", number) for number in range(3)])
        for number in (2, 0, 1):
            waiting = asyncio.ensure_future(consumer.getone())
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await producer.send_and_wait("waits", b"%d" % number, partition=number)
            assert (await asyncio.wait_for(waiting, LONG_MS / 2000)).value == b"%d" % number
    finally:
        await producer.stop()
        await consumer.stop()


async def test_a_listener_behind_a_proxy_names_the_proxy(tmp_path: Path) -> None:
    """Its clients and those of the other listener have the same messages, also while they wait."""
    with (
        ReservedPort() as listener,
        TcpProxy(lambda: (HOST, listener.number)) as proxy,
        contextlib.ExitStack() as closing,
    ):
        broker = start_broker(tmp_path, proxied=(listener.number, proxy.port))
        closing.callback(broker.stop)
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
            admin.create_topics({"both": {"num_partitions": 1, "replication_factor": 1}})
        consumer = AIOKafkaConsumer(
            bootstrap_servers=f"{HOST}:{proxy.port}", fetch_max_wait_ms=LONG_MS
        )
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await consumer.start()
        await producer.start()
        try:
            told = {node.port for node in consumer._client.cluster.brokers()}
            assert told == {proxy.port}
            consumer.assign([TopicPartition("both", 0)])
            waiting = asyncio.ensure_future(consumer.getone())
            await asyncio.sleep(0.2)
            await producer.send_and_wait("both", b"a")
            assert (await asyncio.wait_for(waiting, LONG_MS / 2000)).value == b"a"
        finally:
            await producer.stop()
            await consumer.stop()


async def test_members_of_a_group_share_partitions_and_go_on_where_they_were(
    broker: Server, admin: KafkaAdminClient
) -> None:
    """Two split four partitions; one goes, the other reads all, behind what was committed."""
    admin.create_topics({"shared": {"num_partitions": 4, "replication_factor": 1}})
    consumers = [
        AIOKafkaConsumer(
            "shared",
            bootstrap_servers=broker.address,
            group_id="sharing",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            heartbeat_interval_ms=100,
        )
        for _ in range(2)
    ]
    async with contextlib.AsyncExitStack() as stack:
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        stack.push_async_callback(producer.stop)
        for consumer in consumers:
            await consumer.start()
            stack.push_async_callback(consumer.stop)
        shared = [2, 2]
        async with asyncio.timeout(30):
            while [len(one.assignment()) for one in consumers] != shared:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for number in range(4):
            await producer.send_and_wait("shared", b"first", partition=number)
        for consumer in consumers:
            for _ in range(2):
                async with asyncio.timeout(30):
                    await consumer.getone()
            await consumer.commit()
        await consumers[0].stop()
        for number in range(4):
            await producer.send_and_wait("shared", b"second", partition=number)
        async with asyncio.timeout(30):
            assert {(await consumers[1].getone()).value for _ in range(4)} == {b"second"}


def test_topics_that_cannot_be_made_are_refused(admin: KafkaAdminClient) -> None:
    """With the error that Apache Kafka gives."""
    admin.create_topics({"once": {"num_partitions": 1, "replication_factor": 1}})
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics({"once": {"num_partitions": 1, "replication_factor": 1}})
    strange = {"retention.ms": "a week"}
    with pytest.raises(InvalidConfigurationError):
        admin.create_topics(
            {"odd": {"num_partitions": 1, "replication_factor": 1, "configs": strange}}
        )
    refused = {
        "two words": {"num_partitions": 1, "replication_factor": 1},
        "many": {"num_partitions": 10**6, "replication_factor": 1},
        "copied": {"num_partitions": 1, "replication_factor": 3},
    }
    answer = admin.create_topics(refused, raise_errors=False)
    assert [topic["error_code"] for topic in answer["topics"]] == [17, 37, 38]
    assert admin.list_topics().count("once") == 1


def asked(broker: Server, sent: bytes) -> bytes:
    """What the broker answers to these bytes until it ends the connection, or says nothing more."""
    with socket.create_connection((broker.host, broker.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                received += part
    return received


def framed(key: int, version: int, body: bytes = b"") -> bytes:
    """A request of a client without a name."""
    request = struct.pack(">hhih", key, version, 7, -1) + body
    return struct.pack(">i", len(request)) + request


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">i", -1),
        struct.pack(">i", MAX_REQUEST_BYTES + 1) + b"\0" * 100,
        framed(FETCH, 99),
        framed(FETCH, 4, b"\x7f" * 20),
        framed(4000, 0),
    ],
)
def test_what_is_no_request_ends_its_connection_only(broker: Server, sent: bytes) -> None:
    """The next client is answered."""
    assert asked(broker, sent) == b""
    assert asked(broker, framed(API_VERSIONS, 0)) != b""


def test_a_client_of_the_future_learns_which_versions_there_are(broker: Server) -> None:
    """An unknown version of that question itself is answered in the oldest, with its error."""
    answer = ApiVersionsResponse[0].decode(asked(broker, framed(API_VERSIONS, 99))[8:])
    assert answer.error_code == 35
    told = {one.api_key: (one.min_version, one.max_version) for one in answer.api_keys}
    assert told == {key: (api.oldest, api.newest) for key, api in VERSIONS.items()}


def test_a_producer_with_transactions_is_refused(broker: Server) -> None:
    """It hears so before it sends: its messages would take effect before they are committed."""
    producer = KafkaProducer(bootstrap_servers=broker.address, transactional_id="t")
    try:
        with pytest.raises(TransactionalIdAuthorizationFailedError):
            producer.init_transactions()
    finally:
        producer.close(timeout=5)
