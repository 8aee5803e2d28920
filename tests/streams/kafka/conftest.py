"""Brokers for tests of clients of Kafka."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.settings import Settings
from ops.embedded_servers import Server, start_broker
from streams.kafka.topics import ensure_topics
from tests.servers import own_port


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker that this module's tests share, each with a topic prefix of its own."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server.address
    server.stop()


@pytest.fixture
def settings(broker: str) -> Settings:
    """Settings with topics of this test's own."""
    made = Settings(kafka=broker, topic_prefix=f"{uuid.uuid4().hex}.", partitions=3)
    ensure_topics(made)
    return made


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """A broker for one test, which may stop it."""
    server = start_broker(tmp_path, port=own_port())
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.stop()
