"""A broker, and topics of their own for tests of the forwarder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.embedded_servers import Server
from tests.streams.forwarding.forwarding_fixtures import Bench, bench_on


@pytest.fixture
def bench(broker: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Topics and keys of one test."""
    with bench_on(broker, tmp_path, request.node.name.replace("[", "-").replace("]", "")) as made:
        yield made
