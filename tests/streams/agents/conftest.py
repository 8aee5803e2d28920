"""A real Redis server for the tests of the agents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.embedded_servers import start_redis


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()
