"""A real Redis server for the tests of the store."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from models.settings import Settings
from models.store import Store, connect
from ops.embedded import start_redis

_groups = itertools.count()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: Any) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store with a group of its own."""
    settings = Settings(group=f"g{next(_groups)}", cache_s=0)
    one = Store(connect(redis_url), settings)
    yield one
    await one.redis.aclose()
