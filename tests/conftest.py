"""Fixtures of the end-to-end tests: one suite, on the embedded stack and on Apache Kafka."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import NodeManager

from ops.embedded_servers import start_redis
from streams.kafka.topics import ensure_topics
from tests.servers import ROOT, unavailable
from tests.stack import Servers, Stack, apache_servers, embedded_servers, make_stacks, new_stack

KINDS = {"embedded": embedded_servers, "apache": apache_servers}
_numbers = itertools.count()

# How long an example takes says something about the machine, nothing about the property.
properties.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("untimed")

# Every session of botocore would read the descriptions of services anew, for up to half a second.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# After Ctrl-C each process of pytest-xdist has this long to stop what it has started.
NodeManager.EXIT_TIMEOUT = 60


LONG = (
    "tests/ops/test_helm.py",
    "tests/e2e/test_schemathesis.py",
    "tests/e2e/test_drill.py",
    "tests/e2e/test_secured_kafka.py",
    "tests/ops/test_deployment.py",
    "tests/ops/test_installation.py",
    "tests/e2e/test_commands.py",
    "tests/e2e/test_resilience.py",
    "tests/e2e/test_page.py",
    "tests/models/evaluation/test_protocol.py",
    "tests/streams/agents/test_mutants.py",
    "tests/e2e/test_hung_servers.py",
    "tests/e2e/test_unreadable.py",
    "tests/e2e/test_lost_tail.py",
    "tests/e2e/test_full.py",
    "tests/streams/forwarding/test_forwarder_faults.py",
    "tests/e2e/test_forwarder_unreadable.py",
    "tests/e2e/test_erasures.py",
    "tests/e2e/test_forwarder_erasures.py",
)
"""Modules of long tests, the longest first."""

TOGETHER = (
    "tests/ops/test_helm.py",
    "tests/e2e/test_secured_kafka.py",
    "tests/ops/test_deployment.py",
    "tests/ops/test_installation.py",
    "tests/e2e/test_page.py",
)
"""Of these, those whose tests share what takes long; others' tests go to any free process."""


def pytest_xdist_auto_num_workers() -> int:
    """Three processes a core, for many tests wait for others."""
    return 3 * (os.cpu_count() or 1)


class _LongTestsFirst(LoadFileScheduling):  # type: ignore[misc]
    """Modules to processes as they get free, but the tests of `LONG` ones one by one."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if module in LONG and module not in TOGETHER else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """With `--dist loadfile`, long tests are spread."""
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return _LongTestsFirst(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, and those that start no server last, so that all processes end together."""

    def place(item: pytest.Item) -> int:
        module = item.nodeid.partition("::")[0]
        if module in LONG:
            return LONG.index(module)
        return len(LONG) + (item.get_closest_marker("unit") is not None)

    items.sort(key=place)


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
def _abandoned_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """kafka-python leaves sockets of refused connections to the garbage collector."""
    yield
    if request.node.get_closest_marker("unit") is not None:
        return
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
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis that a module's tests share."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


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
