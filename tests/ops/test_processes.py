"""A child process: its log, its end, and its end with its parent."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from models.errors import CannotStart
from ops import processes
from tests.ops.supervisor_fixtures import DEAF, SLEEPER, is_alive, python, wait_until

ESCAPED = (
    "import subprocess, sys; "
    f"subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], start_new_session=True).wait()"
)


def test_descendants_end_with_a_process(tmp_path: Path) -> None:
    """Even a grandchild in a session of its own is ended."""
    process = processes.spawn(python(ESCAPED), None, tmp_path / "log")
    wait_until(lambda: len(processes._descendants(process)) == 1)
    (grandchild,) = processes._descendants(process)
    processes.end_process(process)
    assert process.returncode == -signal.SIGTERM
    assert not is_alive(grandchild.pid)


def test_at_once_kills_a_process_without_grace(tmp_path: Path) -> None:
    """A process that ignores its stop signal is killed once `at_once` is true."""
    log = tmp_path / "log"
    process = processes.spawn(python(DEAF), None, log)
    wait_until(lambda: "deaf" in log.read_text())
    processes.end_process(process, at_once=lambda: True)
    assert process.returncode == -signal.SIGKILL


def test_a_gated_process_runs_only_after_its_release(tmp_path: Path) -> None:
    """If its parent dies first, it ends without having run."""
    log = tmp_path / "log"
    script = python("print('ran')")
    shut = processes.spawn(script, None, log, gated=True)
    assert shut.stdin is not None
    shut.stdin.close()
    shut.wait()
    assert log.read_text() == ""
    opened = processes.spawn(script, None, log, gated=True)
    processes.release(opened)
    assert opened.wait() == 0
    assert log.read_text() == "ran\n"


def test_a_command_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    """The error names the command."""
    with pytest.raises(CannotStart, match="/no/such/command"):
        processes.spawn(["/no/such/command"], None, tmp_path / "log")


def test_the_tail_of_a_log_is_short_and_harmless(tmp_path: Path) -> None:
    """It holds the last lines, without control characters."""
    log = tmp_path / "log"
    log.write_bytes(b"early\n" * 1000 + b"\xff\x1b[31mlate\x1b[0m\n")
    tail = processes.log_tail(log)
    assert tail.count("\n") == processes.TAIL_LINES
    assert tail.endswith("[31mlate[0m")
    assert "\x1b" not in tail


def test_a_log_is_bounded_while_its_writer_goes_on(tmp_path: Path) -> None:
    """A log over the limit keeps its end, and later output follows it."""
    log = tmp_path / "log"
    with log.open("ab") as writer:
        writer.write(b"x" * processes.MAX_LOG_BYTES + b"end\n")
        writer.flush()
        processes.bound_log(log)
        writer.write(b"after\n")
    assert log.stat().st_size == processes.TAIL_BYTES + len(b"after\n")
    assert log.read_bytes().endswith(b"xend\nafter\n")


@pytest.mark.parametrize("ending", ["input()", "pass"])
def test_embedded_servers_end_with_their_parent(tmp_path: Path, ending: str) -> None:
    """After kill -9, and if a script ends without `stop`."""
    script = (
        "from pathlib import Path; from ops.embedded_servers import start_broker, start_redis; "
        f"folder = Path({str(tmp_path)!r}); "
        "print(start_broker(folder).process.pid, start_redis(folder).process.pid, flush=True); "
    )
    with subprocess.Popen(
        python(script + ending), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if ending == "input()":
            assert all(is_alive(pid) for pid in pids)
            parent.kill()
        parent.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_server_that_was_stopped_leaves_no_watcher(tmp_path: Path) -> None:
    """Stopping a server ends its watcher too."""
    process = processes.spawn(python(SLEEPER), None, tmp_path / "log")
    processes.end_with_parent(process)
    watcher = processes._watchers[process]
    processes.end_process(process)
    assert watcher.returncode == 0
    assert process not in processes._watchers


def test_a_server_that_others_ended_leaves_no_watcher(tmp_path: Path) -> None:
    """The next call of `end_with_parent` ends its watcher."""
    killed, next_one = (processes.spawn(python(SLEEPER), None, tmp_path / n) for n in "ab")
    processes.end_with_parent(killed)
    watcher = processes._watchers[killed]
    killed.kill()
    killed.wait()
    processes.end_with_parent(next_one)
    processes.end_process(next_one)
    assert watcher.returncode == 0
    assert killed not in processes._watchers
