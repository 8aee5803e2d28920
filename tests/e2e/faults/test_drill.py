"""The drill at a small size, and that it finds what is wrong; `make drill` runs it in full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import TopicPartition

from cli.forked_commands import run_command_line
from models.errors import InvalidSetting
from models.settings import Settings
from models.state.messages import StoredMessage
from ops.drill.course import Plan, chosen, run
from ops.drill.event_log import log_of
from ops.drill.faults.fault_registry import FAULTS
from ops.drill.lost_tails import Tail
from ops.drill.observations import FaultFigures, Observations, Probe, Strike, covered_s
from ops.drill.proxy import TcpProxy
from ops.drill.reads import Record, admin, redis_command
from ops.drill.report import report_lines, report_of
from ops.drill.sites import Wish, throwaway_powers, throwaway_site
from tests.broken_workers import acknowledging_first, counting_twice
from tests.servers import kafka_jars, require, require_java
from tests.stack import embedded_servers

# A producer whose broker was killed leaves the pair of sockets by which kafka-python wakes it.
leaves_sockets = pytest.mark.filterwarnings(
    r"ignore:unclosed <socket.socket fd=\d+, family=1, type=1, proto=0>:ResourceWarning",
    r"ignore:Exception ignored in. <socket.socket fd=\d+, family=1, type=1, proto=0>",
)

PER_S = 15.0
"""Messages a second: enough for some dozens under way at each fault. More would only take CPU."""

QUICK = ("late", "repeated", "worker-paused", "redis-scripts-flushed", "poison")


def drilled(
    folder: Path, plan: Plan, run_command: Callable[[], object] = run_command_line, **more: Any
) -> dict[str, Any]:
    """The report of a drill on throw-away servers."""
    opened = throwaway_site(folder, Wish(plan.seed, PER_S, run_command, **more))
    site, outcome = run(opened, plan, print)
    return report_of(site, outcome, seed=plan.seed)


@leaves_sockets
@pytest.mark.kafka
def test_a_small_drill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """With fifteen kinds of faults or more, every event takes effect once."""
    require("redis-server")
    require_java()
    plan = Plan(seed=7, n_faults=18)
    report = drilled(tmp_path, plan, kafka_folder=kafka_jars(), redis_program="redis-server")
    assert report["kinds"] >= 15
    assert report["acknowledged_events"] > 300
    assert report["passed"], json.dumps(report, indent=1)
    assert all(own["seen"] for own in report["by_kind"].values())


@leaves_sockets
@pytest.mark.slow
def test_a_drill_of_the_embedded_servers(tmp_path: Path) -> None:
    """Without Java; whatever is counted was compared."""
    report = drilled(tmp_path, Plan(seed=11, n_faults=8))
    assert report["passed"], json.dumps(report, indent=1)
    assert (report["lost"], report["doubled"]) == (0, 0)
    assert all(report["compared"].values())
    assert "lost 0, doubled 0: passed" in report_lines(report)[-1]


@leaves_sockets
@pytest.mark.slow
@pytest.mark.parametrize(
    ("run_command", "found"), [(counting_twice, "doubled"), (acknowledging_first, "lost")]
)
def test_a_broken_worker_is_found(
    tmp_path: Path, run_command: Callable[[], object], found: str
) -> None:
    """The drill can fail."""
    report = drilled(tmp_path, Plan(seed=3, n_faults=5, names=QUICK), run_command)
    assert report[found] > 0
    assert not report["passed"]
    assert f"{found} {report[found]}" in report_lines(report)[-1]


@leaves_sockets
@pytest.mark.slow
def test_nothing_is_left_on_somebodys_servers(tmp_path: Path) -> None:
    """A drill in a dataset group of its own, beside data that stay as they are."""
    with embedded_servers(tmp_path) as servers:
        settings = Settings(kafka=servers.kafka, redis=servers.redis.url)
        redis_command(settings, "SET", "theirs", "1")
        environment = {
            "RECOMMENDER_KAFKA": settings.kafka,
            "RECOMMENDER_REDIS": settings.redis,
            "RECOMMENDER_SESSION_TIMEOUT_S": "2",
        }
        done = subprocess.run(
            [sys.executable, "-m", "cli", "drill", "--configured", "--yes", "--json",
             "--faults", "4", "--only", "redis-connections-reset,worker-killed,api-killed,late"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["faults"] == 4
        assert redis_command(settings, "KEYS", "*") == [b"theirs"]
        with admin(settings) as client:
            assert list(client.list_topics()) == []


@pytest.mark.slow
def test_an_interrupted_drill_leaves_nothing(tmp_path: Path) -> None:
    """No process and no folder, after SIGINT in the midst of a fault."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "drill", "--only", "worker-zombie,redis-paused"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "stood still" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 4
    process.send_signal(signal.SIGINT)
    process.stderr.close()
    assert process.wait(60) == 1
    assert list(tmp_path.glob("recommender-drill-*")) == []
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


@pytest.mark.unit
def test_faults_that_are_not_possible_are_refused() -> None:
    """An unknown one, and one that needs more than the embedded servers."""
    powers = throwaway_powers(None)
    with pytest.raises(InvalidSetting, match="no fault 'no-such'"):
        chosen(["no-such"], powers)
    with pytest.raises(InvalidSetting, match="kafka-killed is not possible here: it needs an Ap"):
        chosen(["kafka-killed"], powers)
    assert len(chosen([], powers)) >= 30
    assert len(chosen([], frozenset())) >= 12
    assert len(chosen([], throwaway_powers(Path()))) == len(FAULTS) >= 40


@pytest.mark.unit
def test_lost_events_in_effect_come_before_those_at_their_offsets() -> None:
    """Twice at one offset, and once behind it."""
    place = TopicPartition("clicks", 0)
    tails = [
        Tail(place, 2, [event(2, "b"), event(3, "c"), event(4, "never")], in_effect=3),
        Tail(place, 2, [event(2, "d"), event(3, "never")], in_effect=2),
        Tail(place, 3, [event(3, "f"), event(4, "g")], in_effect=9),
        Tail(place, 3, [event(3, "never")], in_effect=-1),
    ]
    log = log_of([event(0, "a"), event(2, "e"), event(3, "c"), event(4, "h")], tails, Settings())
    assert items_of(log.messages["clicks", 0]) == ["a", "b", "c", "d", "e", "f", "g", "c", "h"]
    assert {name: places[0][2] for name, places in log.positions.items()} == {
        "id-a": 0,
        "id-e": 2,
        "id-c": 3,
        "id-h": 4,
    }


@pytest.mark.unit
def test_time_without_acceptance() -> None:
    """Messages that wait at the same time count once."""
    assert covered_s([]) == 0
    assert covered_s([(5.0, 6.0), (1.0, 4.0), (2.0, 3.0), (3.5, 4.5)]) == 4.5


@pytest.mark.unit
def test_what_callers_saw_belongs_to_the_fault_of_that_time() -> None:
    """Until an event that was sent after the fault is in effect, or until the next fault."""
    seen = Observations(
        probes=[Probe(0, 1, 2), Probe(11, 13, 17), Probe(31, 32, 50), Probe(51, 52, 53)],
        unaccepted=[(11, 13)],
        unanswered=[(12, 14), (33, 36)],
        strikes=[Strike(("a",), 9, 10), Strike(("a", "b"), 30, 31), Strike(("c",), 40, 41)],
    )
    found = seen.by_kind()
    assert found["a"] == FaultFigures(2, 3, 18, 7)
    assert found["b"] == FaultFigures(1, 3, 18, None)
    assert found["c"] == FaultFigures(1, 0, 18, 12)
    assert seen.worst_freshness_s == 18


def test_a_proxy_tells_what_it_did() -> None:
    """How many connections it broke off, and what it held back."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with TcpProxy(lambda: address) as proxy:
            assert proxy.reset() == 0
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
            peer, _ = server.accept()
            with client, peer:
                client.sendall(b"a")
                assert peer.recv(1) == b"a"
                proxy.silence()
                client.sendall(b"b")
                until_s = time.monotonic() + 20
                while proxy.n_held == 0 and time.monotonic() < until_s:
                    time.sleep(0.01)
                proxy.resume()
                assert peer.recv(1) == b"b"
                assert proxy.n_held == 1
                assert proxy.reset() == 1
                with pytest.raises(ConnectionResetError):
                    client.recv(1)


def event(offset: int, item: str) -> Record:
    """A message of one event on an item."""
    told = {"eventId": f"id-{item}", "eventType": "click", "itemId": item, "sentAt": 1_790_000_000}
    body = {"sessionId": "s", "eventList": [told]}
    return Record("clicks", 0, offset, json.dumps(body).encode())


def items_of(messages: list[StoredMessage]) -> list[str]:
    """Items of the messages, whose numbers must begin at 0."""
    assert [message.offset for message in messages] == list(range(len(messages)))
    return [message.events[0].item_id for message in messages]
