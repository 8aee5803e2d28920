"""Fixtures of the end-to-end tests: one suite, on the embedded stack and on Apache Kafka."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties
from xdist.workermanage import NodeManager

from streams.kafka.topics import ensure_topics
from tests.servers import ROOT, unavailable
from tests.stack import Servers, Stack, apache_servers, embedded_servers, make_stacks, new_stack

KINDS = {"embedded": embedded_servers, "apache": apache_servers}
_numbers = itertools.count()

# How long an example takes says something about the machine, nothing about the property.
properties.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("untimed")

# After Ctrl-C each process of pytest-xdist has this long to stop what it has started.
NodeManager.EXIT_TIMEOUT = 60


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores, for many tests wait for others."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True, scope="session")
def _quiet_kafka() -> None:
    """Keep kafka-python's log records from holding on to sockets of refused connections."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


_of_unit_tests = False


def _refuse_servers(event: str, _: tuple[object, ...]) -> None:
    if _of_unit_tests and event in {"subprocess.Popen", "socket.connect"}:
        raise RuntimeError(f"{event}: a unit test starts no server and connects to none")


sys.addaudithook(_refuse_servers)


@pytest.fixture(autouse=True)
def _no_servers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold tests that are marked `unit` to that: `make test-unit` answers in seconds."""
    global _of_unit_tests  # noqa: PLW0603  an audit hook cannot be taken back
    _of_unit_tests = request.node.get_closest_marker("unit") is not None
    yield
    _of_unit_tests = False


@pytest.fixture(autouse=True)
def _abandoned_sockets() -> Iterator[None]:
    """kafka-python leaves sockets of refused connections to the garbage collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    # What is left, modules above all, is looked through once: that takes a quarter of a second.
    gc.freeze()


@pytest.fixture(
    scope="session", params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)]
)
def servers(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Servers]:
    """Running servers of each kind."""
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
def stack(servers: Servers, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks with topics of their own; ends their processes after the test."""
    with make_stacks(servers, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def running(servers: Servers, tmp_path_factory: Any) -> Iterator[Stack]:
    """A stack with a worker and an API that a module's tests share: each uses users of its own.

    Started anew for each module it costs less than it would by asking Kafka until the last test.
    """
    number = next(_numbers)
    one = new_stack(
        servers,
        f"shared{number}",
        tmp_path_factory.mktemp("shared"),
        cache_s=0.1,
        after_timeout_s=1.0,
        cors_origins=["https://shop.example"],
    )
    ensure_topics(one.settings)
    one.start("worker")
    one.start("api")
    try:
        one.wait_ready()
        yield one
    finally:
        one.stop_all()


def recorded(name: str) -> Path:
    """A real data set; absent, the test is skipped, and fails in CI."""
    path = ROOT.parent / "shared" / "data" / name / "events.csv.gz"
    if not path.exists():
        unavailable(f"no {path.parent.name} data set beside the project")
    return path
