"""A broker, and topics of their own for tests of the forwarder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.embedded_servers import Server, start_broker
from tests.streams.forwarding.forwarding_fixtures import Bench, bench_on


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A broker that a module's tests share, each with topics of its own."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server
    server.stop()


@pytest.fixture
def bench(broker: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Topics and keys of one test."""
    with bench_on(broker, tmp_path, request.node.name.replace("[", "-").replace("]", "")) as made:
        yield made
