"""The supervisor restarts children that die, and leaves no orphans however it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from models.errors import CannotStart, Unavailable
from ops.embedded_servers import broker_answers, supervise_broker, supervise_redis
from ops.supervisor import Supervisor
from tests.ops.supervisor_fixtures import (
    SLEEPER,
    is_alive,
    python,
    recorded,
    supervising,
    wait_until,
)
from tests.servers import own_port


@contextmanager
def running(supervisor: Supervisor) -> Iterator[None]:
    """`run` in a thread, as in a demo; ended afterwards."""
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_child_last_started_first(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, `kill` and a closed terminal leave no process, and an empty ledger."""
    with supervising(tmp_path, "servers") as asked:
        asked.read_until("running")
        everyone = asked.everyone()
        asked.process.send_signal(number)
        said = asked.read_until("left")
        assert asked.process.wait() == 0
        assert [line for line in said.splitlines() if line.endswith(": stopped")] == [
            "family: stopped",
            "redis: stopped",
            "broker: stopped",
        ]
        assert not any(is_alive(pid) for pid in everyone)
        assert recorded(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_leaves_no_child(tmp_path: Path, number: signal.Signals) -> None:
    """A child that is not ready yet is ended too."""
    with supervising(tmp_path, "starting") as asked:
        asked.read_until("not yet")
        (late,) = recorded(tmp_path).values()
        asked.process.send_signal(number)
        asked.read_until("late: stopped")
        assert asked.process.wait() != 0
        assert not is_alive(late)
        assert recorded(tmp_path) == {}


def test_a_second_interrupt_kills_at_once(tmp_path: Path) -> None:
    """A second Ctrl-C kills a child that ignores SIGTERM."""
    with supervising(tmp_path, "deaf") as asked:
        asked.read_until("running")
        (deaf,) = recorded(tmp_path).values()
        asked.process.send_signal(signal.SIGINT)
        asked.read_until("another Ctrl-C")
        asked.process.send_signal(signal.SIGINT)
        asked.read_until("left")
        assert asked.process.wait() == 0
        assert not is_alive(deaf)


def test_redis_comes_back_with_its_data_on_its_port(tmp_path: Path) -> None:
    """After kill -9, clients of the same URL find their data, and both events were said."""
    said: list[str] = []
    with Supervisor(tmp_path, say=said.append) as supervisor:
        url = supervise_redis(supervisor)
        with running(supervisor), redis.Redis.from_url(url) as client:
            client.set("k", "v")
            os.kill(recorded(tmp_path)["redis"], signal.SIGKILL)
            wait_until(lambda: "ready again" in said[-1])
            assert client.get("k") == b"v"
    assert "redis: was killed by SIGKILL; its data is on disk; starting again in 0.5 s" in said[1]
    assert said[-1] == "redis: stopped"


def test_on_restart_is_called_for_a_restarted_broker(tmp_path: Path) -> None:
    """It is called once the broker answers, and again after an error."""
    back: list[str] = []
    said: list[str] = []
    port = own_port()

    def on_restart(name: str) -> None:
        assert broker_answers(port)
        back.append(name)
        if len(back) == 1:
            raise Unavailable("topics cannot be made")

    with Supervisor(tmp_path, say=said.append, on_restart=on_restart) as supervisor:
        assert supervise_broker(supervisor, port=port) == f"127.0.0.1:{port}"
        with running(supervisor):
            os.kill(recorded(tmp_path)["broker"], signal.SIGKILL)
            wait_until(lambda: "ready again" in said[-1])
    assert back == ["broker", "broker"]
    assert "its messages are lost" in said[1]
    assert "back, but topics cannot be made; trying again in 1 s" in said[2]


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    """A supervised server gets a free port if its preferred one is taken."""
    with Supervisor(tmp_path / "one", say=print) as first:
        taken = supervise_redis(first)
        port = int(taken.split(":")[2].removesuffix("/0"))
        with Supervisor(tmp_path / "two", say=print) as second:
            assert supervise_redis(second, port=port) != taken


def test_restarts_back_off_exponentially(tmp_path: Path) -> None:
    """Each death is said with the end of the log; the delays double."""
    said: list[str] = []
    with Supervisor(tmp_path, say=said.append) as supervisor:
        supervisor.start("worker", ["/bin/sh", "-c", "echo broken; exit 3"])
        with running(supervisor):
            wait_until(lambda: len([line for line in said if "exit code 3" in line]) == 3)
    deaths = [line for line in said if "exit code 3" in line]
    waits = [line.split("again in ")[1].split()[0] for line in deaths]
    assert waits == ["0.5", "1", "2"]
    assert all(line.endswith("    broken") for line in deaths)


def test_a_child_that_dies_while_starting_is_an_error(tmp_path: Path) -> None:
    """`start` raises with the end of the log, and forgets the child."""
    with Supervisor(tmp_path, say=print) as supervisor:
        with pytest.raises(CannotStart, match=r"(?s)api ended with exit code 4.*no room"):
            supervisor.start("api", ["/bin/sh", "-c", "echo no room; exit 4"], ready=lambda: False)
        assert recorded(tmp_path) == {}


def test_a_child_that_never_gets_ready_is_an_error(tmp_path: Path) -> None:
    """`start` ends the child after the time limit; a missing program is an error too."""
    with Supervisor(tmp_path, say=print) as supervisor:
        with pytest.raises(CannotStart, match=r"not ready after 0\.2 s"):
            supervisor.start("api", python(SLEEPER), ready=lambda: False, ready_s=0.2)
        with pytest.raises(CannotStart, match=r"(?s)exit code 127.*/no/such"):
            supervisor.start("api", ["/no/such"], ready=lambda: False)
        assert recorded(tmp_path) == {}


def test_a_supervisor_outside_the_main_thread_leaves_signals_alone(tmp_path: Path) -> None:
    """It starts and ends children as usual."""
    handlers: list[object] = []

    def supervise() -> None:
        with Supervisor(tmp_path, say=print) as supervisor:
            supervisor.start("worker", python(SLEEPER))
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=supervise)
    thread.start()
    thread.join()
    assert handlers == [before]
    assert recorded(tmp_path) == {}


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    """The main thread has its earlier handlers again."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Supervisor(tmp_path, say=print):
        pass
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
