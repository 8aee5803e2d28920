"""Connections to Kafka that fail in bounded time, with an error that names the remedy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import tenacity
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as AiokafkaError
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from models.errors import InvalidSetting, NotConfigured, Overloaded, Unavailable
from models.servers.listeners import Trouble
from models.servers.server_checks import kafka_trouble
from models.settings import Settings
from streams.kafka.connections.authentication import are_accepted, check_credentials
from streams.kafka.connections.decoding import name_unreadable
from streams.kafka.connections.security import (
    aiokafka_options,
    kafka_python_options,
    tls_context,
    wire_mechanism,
)
from streams.kafka.connections.unpacking import bound_unpacking

KafkaClient = TypeVar("KafkaClient")

RECONNECT_MAX_MS = 1000
"""Longest pause between attempts to reach a server again; kafka-python's is half a minute."""

BATCH_BYTES = 64 * 1024


def connect(
    make: Callable[..., KafkaClient],
    settings: Settings,
    *,
    timeout_s: float | None = None,
    **config: object,
) -> KafkaClient:
    """A connected kafka-python client, which never creates a topic by asking about it.

    Parameters
    ----------
    make
        `KafkaProducer`, `KafkaConsumer` or `KafkaAdminClient`.
    settings
        `kafka` names the servers.
    timeout_s
        Longest wait for the first answer; `settings.publish_timeout_s` when not given.
    **config
        Further options of `make`.

    Raises
    ------
    Unavailable
        Naming the servers, when none of them answers in time; when they refuse the credentials,
        which may be for a while; when a file of the settings cannot be read.
    NotConfigured
        When the settings name no server.
    """
    named = servers(settings)
    try:
        config = {**kafka_python_options(settings), **config}
        if not are_accepted(settings):
            # kafka-python would try again until its time-out, and then tell of a time-out.
            with contextlib.suppress(Unavailable):
                check_credentials(settings, named)
    except InvalidSetting as error:
        raise Unavailable(str(error)) from error
    timeout_ms = round(1000 * (settings.publish_timeout_s if timeout_s is None else timeout_s))
    started: list[KafkaNetClient] = []

    def start(**options: object) -> KafkaNetClient:
        client = KafkaNetClient(**{**options, "socket_connection_setup_timeout_ms": timeout_ms})
        # kafka-python 3.0 does not hand its `allow_auto_create_topics` on to where it is read.
        client.cluster.config["allow_auto_create_topics"] = False
        started.append(client)
        return client

    if make is KafkaConsumer:
        # Messages of aborted transactions are not read.
        config.setdefault("isolation_level", "read_committed")
    try:
        client = make(
            bootstrap_servers=named,
            bootstrap_timeout_ms=timeout_ms,
            reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            kafka_client=start,
            **config,
        )
    except (KafkaError, ValueError, OSError) as error:
        # A constructor that fails does not close its sockets and its thread.
        for failed in started:
            failed.close()
        raise _explained(settings, error) from error
    if isinstance(client, KafkaConsumer):
        name_unreadable(client)
        bound_unpacking(settings)
    return client


def check_kafka(settings: Settings) -> None:
    """Check that one of the servers that the settings name can be used; ends in 10 s.

    Raises
    ------
    Unavailable
        None of them can, but waiting may help.
    InvalidSetting
        Another kind of server listens there, or it refuses the certificate or credentials.
    NotConfigured
        When the settings name no server.
    """
    found = _trouble(settings)
    if found.text and found.may_heal:
        raise unavailable(settings, found.text)
    if found.text:
        raise InvalidSetting(f"Kafka at {settings.kafka} cannot be used: {found.text}")
    check_credentials(settings, servers(settings))


def _explained(settings: Settings, error: Exception) -> Unavailable:
    """The error for callers that could not connect, with the cause."""
    try:
        found = _trouble(settings)
        if not found.text:
            check_credentials(settings, servers(settings))
    except (InvalidSetting, Unavailable) as cause:
        return Unavailable(str(cause))
    return unavailable(settings, found.text or error)


def _trouble(settings: Settings) -> Trouble:
    return kafka_trouble(
        servers(settings),
        context=tls_context(settings),
        mechanism=wire_mechanism(settings),
        shows_certificate=bool(settings.kafka_certificate_file),
    )


def servers(settings: Settings) -> list[str]:
    """The bootstrap servers that the settings name.

    >>> servers(Settings(kafka="a:9092, b:9092"))
    ['a:9092', 'b:9092']
    """
    named = [server.strip() for server in settings.kafka.split(",") if server.strip()]
    if not named:
        raise NotConfigured("no Kafka server is named: set RECOMMENDER_KAFKA to host:port")
    return named


def unavailable(settings: Settings, error: Exception | str) -> Unavailable:
    """The error for callers after a failure of a client, with the remedy."""
    reason = str(error) or type(error).__name__
    return Unavailable(
        f"Kafka at {settings.kafka} cannot be used ({reason}): "
        "see that it runs and that RECOMMENDER_KAFKA names it as host:port, then try again"
    )


def overloaded(settings: Settings) -> Overloaded:
    """The error for callers while as many bytes wait for Kafka as may."""
    most = settings.publish_buffer_bytes
    return Overloaded(f"{most} bytes wait for Kafka at {settings.kafka}: try again in a second")


def missing_topics(settings: Settings, names: Iterable[str]) -> Unavailable:
    """The error for a caller that needs missing topics, with the remedy."""
    return Unavailable(
        f"Kafka at {settings.kafka} has no topic {', '.join(names)}: run `recommender topics` first"
    )


def start_producer(
    settings: Settings, topics: Iterable[str], *, linger_ms: int, timeout_s: float
) -> KafkaProducer:
    """A connected, idempotent producer that knows these topics and waits for all replicas.

    Raises
    ------
    Unavailable
        When Kafka does not answer within `timeout_s`, or lacks one of the topics.
    """
    deadline_s = time.monotonic() + timeout_s
    delivery_ms = max(round(1000 * settings.publish_timeout_s), linger_ms + 100)
    producer = connect(
        KafkaProducer,
        settings,
        timeout_s=timeout_s,
        acks="all",
        enable_idempotence=True,
        linger_ms=linger_ms,
        batch_size=BATCH_BYTES,
        delivery_timeout_ms=delivery_ms,
        # Half of it, so that one lost request leaves time for another.
        request_timeout_ms=(delivery_ms - linger_ms) // 2,
        # A send blocks only for a topic that was deleted: the others are looked up here.
        max_block_ms=round(1000 * min(1.0, timeout_s)),
    )
    try:
        for topic in topics:
            _wait_for_topic(producer, topic, deadline_s)
    except KafkaError as error:
        stop_producer(producer)
        raise missing_topics(settings, [topic]) from error
    return producer


async def start_async_producer(settings: Settings) -> AIOKafkaProducer:
    """A connected producer of this event loop, which knows all topics and waits for all replicas.

    It gives a message up after `settings.publish_timeout_s`.

    Raises
    ------
    Unavailable
        When Kafka does not answer in time.
    """
    try:
        producer = AIOKafkaProducer(
            bootstrap_servers=servers(settings),
            acks="all",
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=round(1000 * settings.publish_timeout_s),
            **aiokafka_options(settings),
        )
    except InvalidSetting as error:
        raise Unavailable(str(error)) from error
    try:
        async with asyncio.timeout(settings.publish_timeout_s):
            await producer.start()
            # Without a topic it asks for all: none is made by that.
            await producer.client.force_metadata_update()
    except (AiokafkaError, TimeoutError) as error:
        await producer.stop()
        raise unavailable(settings, error) from error
    return producer


def stop_producer(producer: KafkaProducer) -> None:
    """Disconnect; messages that are unsent after a second fail."""
    try:
        producer.close(timeout=1)
    except KafkaError:
        # After its timeout kafka-python does not stop its thread.
        producer._sender.force_close()  # noqa: SLF001
        producer._sender.join(1)  # noqa: SLF001


def _wait_for_topic(producer: KafkaProducer, topic: str, deadline_s: float) -> None:
    """Return once the producer knows a topic; each attempt blocks for up to `max_block_ms`."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(KafkaTimeoutError),
        stop=lambda _: time.monotonic() >= deadline_s,
        reraise=True,
    )
    retrying(producer.partitions_for, topic)
