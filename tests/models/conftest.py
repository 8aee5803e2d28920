"""A real Redis server for the tests of models."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.embedded_servers import start_redis

_groups = itertools.count()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: Any) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
async def make_store(redis_url: str) -> AsyncIterator[Callable[..., Store]]:
    """Creates stores with groups of their own and the given settings."""
    made: list[Store] = []

    def make(**settings: Any) -> Store:
        group = f"g{next(_groups)}"
        made.append(Store(connect(redis_url), Settings(group=group, **{"cache_s": 0, **settings})))
        return made[-1]

    yield make
    for one in made:
        await one.redis.flushdb()
        await one.redis.aclose()


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    """A store with a group of its own."""
    return make_store()
