"""Clients of the shared stack, as AWS makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from ops.embedded_servers import start_redis
from tests.personalize.calls_fixtures import client
from tests.personalize.control_fixtures import Control, make_control_plane
from tests.personalize.jobs_fixtures import Service, service
from tests.stack import Stack


@pytest.fixture
def url(running: Stack) -> str:
    """Address of the API for AWS clients."""
    return f"{running.url}/personalize"


@pytest.fixture
def clients(url: str) -> Callable[[str], Any]:
    """Makes a client of a service: `personalize`, `personalize-runtime` or `personalize-events`."""
    return lambda service: client(service, url)


@pytest.fixture(scope="session")
def control_redis(tmp_path_factory: Any) -> Iterator[str]:
    """Address of an embedded Redis for control planes in this process."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
async def make_control(control_redis: str) -> AsyncIterator[Callable[..., Control]]:
    """Makes control planes with given settings, on one empty Redis."""
    made: list[Control] = []

    def make(**settings: Any) -> Control:
        made.append(make_control_plane(control_redis, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.context.registry.redis.flushdb()
        await one.context.recommenders.close()
        await one.context.registry.redis.aclose()


@pytest.fixture
def control(make_control: Callable[..., Control]) -> Control:
    """A control plane without resources."""
    return make_control()


@pytest.fixture(scope="module")
def jobs_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a runner of jobs and an S3, shared by the tests of a module."""
    with service(tmp_path_factory.mktemp("jobs")) as running:
        yield running
