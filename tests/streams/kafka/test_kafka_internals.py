"""Members of Faust, aiokafka and kafka-python used below their public interface.

A release that moves one fails here, with its name and the decision that says what it is for.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import fetcher as aio_fetcher
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import Fetcher
from kafka.net.compat import KafkaNetClient
from kafka.net.sasl import get_sasl_mechanism
from kafka.producer.sender import Sender

from streams.kafka.connections.unpacking import MODULES, SIZES
from streams.kafka.faust_clients import faust_app, faust_consumer, fetching
from tests.servers import ROOT

MOVED = (
    "{library} has moved {names}: adapt {module}, then raise the bound in pyproject.toml ({doc})"
)


def check(owner: Any, names: tuple[str, ...], library: str, module: str, decision: str) -> None:
    """Fail with the names that a class neither has nor sets in its constructor."""
    constructors = [vars(cls)["__init__"] for cls in owner.__mro__ if "__init__" in vars(cls)]
    known = set(dir(owner))
    known.update(*(one.__code__.co_names for one in constructors if hasattr(one, "__code__")))
    missing = [f"{owner.__name__}.{name}" for name in names if name not in known]
    assert not missing, MOVED.format(
        library=library, names=missing, module=module, doc=f"docs/decisions/{decision}.md"
    )


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (faust.App, ("_new_transport", "_create_directories", "crash", "consumer_generation_id")),
        (Recovery, ("_wait",)),
        (TableManager, ("recovery", "_recovery", "on_start", "_update_channels")),
        (driver.Producer, ("on_start", "send_and_wait")),
        (driver.AIOKafkaConsumerThread, ("_create_worker_consumer", "_fetch_records", "on_start")),
        (driver.AIOKafkaConsumerThread, ("_ensure_consumer", "call_thread", "assignment")),
        (driver.AIOKafkaConsumerThread, ("_consumer", "_serve", "Worker")),
        (driver.Consumer, ("_new_consumer_thread", "_to_message", "_commit", "highwater")),
        (driver.Consumer, ("seek_to_committed", "perform_seek", "earliest_offsets")),
        (driver.Consumer, ("verify_event_path", "_read_offset", "_thread")),
        (driver.Consumer, ("_wait_next_records", "_buffered_partitions", "scheduler", "callback")),
        (driver.Consumer, ("flow_active", "suspend_flow", "wait_first", "consumer_stopped_errors")),
        (AIOKafkaConsumer, ("_fetch_max_wait_ms", "_isolation_level", "_fetcher", "_client")),
        (AIOKafkaConsumer, ("_subscription", "_closed")),
        (AIOKafkaClient, ("_conns",)),
        (aio_fetcher.Fetcher, ("_fetch_max_wait_ms", "error_future")),
    ],
)
def test_faust_has_the_members_that_are_overridden(owner: Any, names: tuple[str, ...]) -> None:
    """Faust's consumer and aiokafka's under it."""
    check(owner, names, "Faust or aiokafka", "streams/kafka/faust_clients", "0016-faust-internals")


def test_overridden_methods_override_something() -> None:
    """A method of ours with a name that Faust no longer calls would silently do nothing."""
    own = {
        fetching.Fetching: {
            *("_create_worker_consumer", "on_start", "_fetch_records"),
            *("call_thread", "_gather_remaining_tasks"),
        },
        faust_consumer.PositionedConsumer: {
            *("_new_consumer_thread", "seek_to_committed", "_to_message"),
            *("highwater", "verify_event_path", "_drain_messages"),
        },
        faust_app._App: {"_new_transport", "_create_directories"},
        faust_app._Recovery: {"_wait"},
        faust_app._Tables: {"on_start", "recovery"},
    }
    for cls, names in own.items():
        (parent,) = cls.__bases__
        assert names <= set(vars(cls))
        check(parent, tuple(names), "Faust", "streams/kafka/faust_clients", "0016-faust-internals")


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (aio_fetcher.Fetcher, ("_records",)),
        (aio_fetcher.FetchError, ("_error",)),
        (aio_fetcher.FetchResult, ("_partition_records",)),
        (aio_fetcher.PartitionRecords, ("_records", "_tp", "next_fetch_offset")),
        (KafkaConsumer, ("_fetcher",)),
        (Fetcher, ("PartitionRecords", "_parse_fetched_data")),
        (Fetcher.PartitionRecords, ("_unpack_records", "drain", "next_fetch_offset")),
    ],
)
def test_fetchers_have_the_members_that_name_unreadable_batches(
    owner: Any, names: tuple[str, ...]
) -> None:
    """Both clients' fetchers."""
    decision = "0017-unreadable-batches"
    check(
        owner, names, "aiokafka or kafka-python", "streams/kafka/connections/decoding.py", decision
    )


def test_codecs_are_looked_up_where_they_are_bounded() -> None:
    """Every module has decoding functions of ours in it, and every codec is among them."""
    bounded = {
        (name, codec)
        for name in MODULES
        for codec in SIZES
        if hasattr(getattr(importlib.import_module(name), f"{codec}_decode", None), "__wrapped__")
    }
    moved = [name for name in MODULES if name not in {module for module, _ in bounded}]
    assert not moved, MOVED.format(
        library="aiokafka or kafka-python",
        names=moved,
        module="streams/kafka/connections/unpacking.py",
        doc="docs/decisions/0018-bounded-unpacking.md",
    )
    assert {codec for _, codec in bounded} == set(SIZES)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (KafkaProducer, ("_sender",)),
        (Sender, ("force_close", "join")),
        (KafkaNetClient, ("cluster",)),
    ],
)
def test_kafka_python_has_the_members_that_stop_a_producer(
    owner: Any, names: tuple[str, ...]
) -> None:
    """Members by which `connection` ends threads and creates no topics."""
    decision = "0019-producers"
    check(owner, names, "kafka-python", "streams/kafka/connections/connection.py", decision)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (AIOKafkaProducer, ("client", "send", "start", "stop")),
        (AIOKafkaClient, ("cluster", "force_metadata_update", "_topics")),
        (ClusterMetadata, ("partitions_for_topic",)),
    ],
)
def test_aiokafka_has_the_members_that_look_a_topic_up(owner: Any, names: tuple[str, ...]) -> None:
    """A producer that knows no topic asks for all, and lets Kafka make none."""
    check(owner, names, "aiokafka", "streams/kafka/producing/publisher.py", "0019-producers")


@pytest.mark.parametrize("name", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_kafka_python_has_the_mechanisms_that_credentials_are_shown_by(name: str) -> None:
    """Before a client is made."""
    names = ("auth_bytes", "receive", "is_done", "is_authenticated")
    check(
        get_sasl_mechanism(name),
        names,
        "kafka-python",
        "streams/kafka/connections/authentication.py",
        "0025-kafka-security",
    )


def test_one_file_makes_clients() -> None:
    """Another would connect without the settings' certificates and credentials."""
    makers = {
        str(path.relative_to(ROOT))
        for package in ("api", "cli", "models", "ops", "streams")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"bootstrap_servers=|faust\.App\(|_App\(\n", path.read_text())
    }
    # The drill also sends as a client that is not this project's.
    assert makers == {
        "ops/drill/load.py",
        "streams/kafka/connections/connection.py",
        "streams/kafka/faust_clients/faust_app.py",
    }
