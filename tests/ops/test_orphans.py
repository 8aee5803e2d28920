"""The sweep ends everything that is left of a killed supervisor, and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import psutil
import pytest

from models.errors import CannotStart
from ops import orphans
from ops.supervisor import Supervisor
from tests.ops.supervisor_fixtures import SLEEPER, is_alive, python, supervising, wait_until


def test_a_sweep_ends_all_that_a_killed_supervisor_left(tmp_path: Path) -> None:
    """After kill -9, broker, Redis, a child and the child's child are ended, with a line each."""
    with supervising(tmp_path, "servers") as killed:
        killed.read_until("running")
        left = killed.everyone()
        killed.kill()
        assert [is_alive(pid) for pid in left] == [True] * 4
        lines = orphans.kill_orphans(tmp_path)
        assert [line.split(":")[0] for line in lines] == ["broker", "redis", "family"]
        assert [is_alive(pid) for pid in left] == [False] * 4
        assert orphans.kill_orphans(tmp_path) == []


def test_the_next_supervisor_sweeps_before_it_starts(tmp_path: Path) -> None:
    """The lock of a killed supervisor does not stop the next one, which ends what was left."""
    with supervising(tmp_path, "servers") as killed:
        killed.read_until("running")
        left = killed.everyone()
        killed.kill()
        with supervising(tmp_path, "servers") as second:
            assert second.read_until("running").count("left by an earlier run") == 3
            assert not any(is_alive(pid) for pid in left)


def test_a_pid_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    """A living process with another creation time than the recorded one survives the sweep."""
    with subprocess.Popen(python(SLEEPER), start_new_session=True) as innocent:
        real = orphans.process_record("worker", innocent.pid)
        earlier = msgspec.structs.replace(real, create_time_s=real.create_time_s - 5)
        orphans.write_ledger(tmp_path, [earlier])
        assert orphans.kill_orphans(tmp_path) == []
        assert is_alive(innocent.pid)
        innocent.kill()


def test_a_sweep_never_ends_the_process_that_sweeps(tmp_path: Path) -> None:
    """A ledger that names this process, or the one that started it, ends neither."""
    own = [orphans.process_record("worker", pid) for pid in (os.getpid(), os.getppid()) if pid > 1]
    orphans.write_ledger(tmp_path, own)
    assert orphans.kill_orphans(tmp_path) == []


def test_what_a_dead_process_started_is_ended(tmp_path: Path) -> None:
    """A recorded process that died alone still answers for its session."""
    script = (
        "import subprocess, sys; input(); "
        f"print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid)"
    )
    with subprocess.Popen(
        python(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdin is not None
        assert leader.stdout is not None
        orphans.write_ledger(tmp_path, [orphans.process_record("worker", leader.pid)])
        leader.stdin.write(b"go\n")
        leader.stdin.flush()
        orphan = int(leader.stdout.readline())
        leader.wait()
        assert is_alive(orphan)
        assert len(orphans.kill_orphans(tmp_path)) == 1
        assert not is_alive(orphan)


@pytest.mark.parametrize(
    "damage",
    [b"", b"[{]", b"7", b'["\xff"]', b'[{"name":"x","pid":1,"create_time_s":0}]'],
)
def test_a_damaged_ledger_is_reported_and_ends_nothing(tmp_path: Path, damage: bytes) -> None:
    """Half a file, or one that names pid 1, costs a line, not the start."""
    (tmp_path / "processes.json").write_bytes(damage)
    (line,) = orphans.kill_orphans(tmp_path)
    assert "damaged" in line
    assert orphans.kill_orphans(tmp_path) == []


def test_two_supervisors_cannot_share_a_folder(tmp_path: Path) -> None:
    """The second start, and a sweep, fail with the first one's pid; after its end both work."""
    with supervising(tmp_path, "nothing") as first:
        first.read_until("running")
        with pytest.raises(CannotStart, match=f"pid {first.process.pid}.*RECOMMENDER_DATA_DIR"):
            Supervisor(tmp_path, say=print).__enter__()
        with pytest.raises(CannotStart, match="in use"):
            orphans.kill_orphans(tmp_path)
        first.process.kill()
        first.process.wait()
        with Supervisor(tmp_path, say=print):
            pass


def test_a_folder_that_cannot_be_used_gives_one_clear_error(tmp_path: Path) -> None:
    """A file in the folder's place is named in the error."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"file.*RECOMMENDER_DATA_DIR"):
        orphans.kill_orphans(tmp_path / "file")


def test_a_process_that_ignores_being_asked_is_killed() -> None:
    """SIGTERM is ignored, SIGKILL cannot be."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); input()"
    with subprocess.Popen(
        python(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        orphans.end_processes([psutil.Process(stubborn.pid)], patience_s=0.1)
        wait_until(lambda: stubborn.poll() is not None)
        assert stubborn.returncode == -9
