"""Fixtures of the end-to-end tests: one suite, on the embedded stack and on Apache Kafka."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as properties
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import NodeManager

from ops.embedded_servers import Server, start_broker, start_redis
from tests.forked_workers import start_fork_server
from tests.servers import ROOT, unavailable
from tests.stack import (
    Servers,
    Stack,
    apache_servers,
    deployment_as_before,
    embedded_servers,
    make_stacks,
    new_stack,
    own_name,
)

_numbers = itertools.count()

# How long an example takes says something about the machine, nothing about the property.
properties.register_profile(
    "untimed",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # To explain a failure takes minutes of running it again, after which it is no clearer.
    phases=[one for one in Phase if one is not Phase.explain],
)
properties.load_profile("untimed")

# Every session of botocore would read the descriptions of services anew, for up to half a second.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# After Ctrl-C each process of pytest-xdist has this long to stop what it has started.
NodeManager.EXIT_TIMEOUT = 60


LONG = (
    "tests/e2e/http_api/test_schemathesis.py",
    "tests/e2e/shards/test_reshard.py",
    "tests/e2e/faults/test_resilience.py",
    "tests/e2e/faults/test_drill.py",
    "tests/personalize/clients/test_other_clients.py",
    "tests/ops/test_deployment.py",
    "tests/e2e/servers/test_secured_kafka.py",
    "tests/e2e/commands/test_commands.py",
    "tests/ops/test_installation.py",
    "tests/e2e/pages/test_page.py",
    "tests/e2e/shards/test_sharded_drill.py",
    "tests/e2e/servers/test_three_machines.py",
    "tests/models/evaluation/test_protocol.py",
    "tests/streams/agents/test_mutants.py",
    "tests/test_coverage_fuzz.py",
    "tests/e2e/test_catch_up.py",
    "tests/e2e/faults/test_hung_servers.py",
    "tests/e2e/faults/test_unreadable.py",
    "tests/e2e/faults/test_lost_tail.py",
    "tests/e2e/faults/test_full.py",
    "tests/streams/forwarding/test_forwarder_faults.py",
    "tests/e2e/faults/test_forwarder_unreadable.py",
    "tests/e2e/test_erasures.py",
    "tests/e2e/test_forwarder_erasures.py",
    "tests/streams/recordings/test_replay.py",
    "tests/models/state/resharding/test_shard_copy.py",
    "tests/models/state/shards/test_sharded_steps.py",
    "tests/streams/provisioning/test_apply.py",
    "tests/models/evaluation/test_off_policy.py",
    "tests/models/state/groups/test_group_registry.py",
    "tests/streams/agents/test_exactly_once.py",
    "tests/personalize/jobs/test_imports.py",
    "tests/personalize/test_shadow.py",
    "tests/e2e/commands/test_readme.py",
    "tests/personalize/jobs/test_runner.py",
    "tests/models/state/test_withdrawals.py",
    "tests/models/state/test_outcomes.py",
)
"""Modules of long tests, the longest first: one that began last would have all others wait."""

TOGETHER = (
    "tests/e2e/servers/test_secured_kafka.py",
    "tests/ops/test_deployment.py",
    "tests/ops/test_installation.py",
    "tests/e2e/pages/test_page.py",
    "tests/personalize/clients/test_other_clients.py",
    "tests/personalize/jobs/test_imports.py",
    "tests/e2e/commands/test_readme.py",
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


def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """All processes are forked from one that has imported the tests."""
    command, end = start_fork_server(config.args)
    config.add_cleanup(end)
    for spec in specs:
        spec.python = command


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
    # Of these the collector runs in the middle: see `_abandoned_sockets`.
    ignored = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(ignored)


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
    """kafka-python leaves sockets of lost connections to the garbage collector.

    It runs behind each test, and not within one that is short: there it would fail whichever test
    happens to run.
    """
    if request.node.get_closest_marker("unit") is not None:
        yield
        return
    if request.node.get_closest_marker("slow") is None:
        gc.disable()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    # Only now: enabled before, it could run while warnings still are errors.
    gc.enable()
    # What is left, modules above all, is looked through once: that takes a quarter of a second.
    gc.freeze()


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The embedded servers, which accept batches that Apache Kafka refuses."""
    with embedded_servers(tmp_path_factory.mktemp("embedded")) as started:
        yield started


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Apache Kafka and the Redis of the PATH."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with apache_servers(tmp_path_factory.mktemp("apache"), shared / "kafka") as started:
        yield started


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests run on servers of both kinds, but those marked `any_broker` on the embedded ones.

    A test that is parametrized by `servers` itself runs on those that it names.
    """
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "servers" in metafunc.fixturenames and "servers" not in named:
        kinds: list[Any] = ["embedded"]
        if metafunc.definition.get_closest_marker("any_broker") is None:
            kinds.append(pytest.param("apache", marks=pytest.mark.kafka))
        metafunc.parametrize("servers", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """Running servers of each kind, which outlive the tests of the other kind."""
    started: Servers = request.getfixturevalue(request.param)
    return started


@pytest.fixture
def stack(servers: Servers, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks with topics of their own; ends their processes after the test."""
    with deployment_as_before(servers), make_stacks(servers, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis that a module's tests share."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An embedded broker that a module's tests share."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def running(servers: Servers, tmp_path_factory: Any) -> Iterator[Stack]:
    """A stack with a worker and an API that a module's tests share: each uses users of its own.

    Started anew for each module it costs less than it would by asking Kafka until the last test.
    Its answers wait longer for an event than a busy machine takes to have it in effect.
    """
    number = next(_numbers)
    one = new_stack(
        servers,
        own_name(f"shared{number}"),
        tmp_path_factory.mktemp("shared"),
        cache_s=0.1,
        after_timeout_s=5.0,
        cors_origins=["https://shop.example"],
    )
    with deployment_as_before(servers), one.serving():
        yield one


def recorded(name: str) -> Path:
    """A real data set; absent, the test is skipped, and fails in CI."""
    path = ROOT.parent / "shared" / "data" / name / "events.csv.gz"
    if not path.exists():
        unavailable(f"no {path.parent.name} data set beside the project")
    return path
