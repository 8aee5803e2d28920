"""Orphans of a killed supervisor are ended, and no other process is."""

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


def test_all_orphans_of_a_killed_supervisor_are_ended(tmp_path: Path) -> None:
    """After kill -9: broker, Redis, a child and its child, with a line for each."""
    with supervising(tmp_path, "servers") as killed:
        killed.read_until("running")
        left = killed.everyone()
        killed.kill()
        assert [is_alive(pid) for pid in left] == [True] * 4
        lines = orphans.kill_orphans(tmp_path)
        assert [line.split(":")[0] for line in lines] == ["broker", "redis", "family"]
        assert [is_alive(pid) for pid in left] == [False] * 4
        assert orphans.kill_orphans(tmp_path) == []


def test_the_next_supervisor_ends_orphans_before_it_starts(tmp_path: Path) -> None:
    """The lock of a killed supervisor does not block the next one."""
    with supervising(tmp_path, "servers") as killed:
        killed.read_until("running")
        left = killed.everyone()
        killed.kill()
        with supervising(tmp_path, "servers") as second:
            assert second.read_until("running").count("left by an earlier run") == 3
            assert not any(is_alive(pid) for pid in left)


def test_a_process_with_a_reused_pid_survives(tmp_path: Path) -> None:
    """Its creation time differs from the recorded one."""
    with subprocess.Popen(python(SLEEPER), start_new_session=True) as innocent:
        real = orphans.process_record("worker", innocent.pid)
        earlier = msgspec.structs.replace(real, create_time_s=real.create_time_s - 5)
        orphans.write_ledger(tmp_path, [earlier])
        assert orphans.kill_orphans(tmp_path) == []
        assert is_alive(innocent.pid)
        innocent.kill()


def test_the_caller_never_ends_itself(tmp_path: Path) -> None:
    """A ledger that names this process or its parent ends neither."""
    own = [orphans.process_record("worker", pid) for pid in (os.getpid(), os.getppid()) if pid > 1]
    orphans.write_ledger(tmp_path, own)
    assert orphans.kill_orphans(tmp_path) == []


def test_descendants_of_a_dead_process_are_ended(tmp_path: Path) -> None:
    """The session of a recorded process that died is ended."""
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
    """An incomplete file, or one that names pid 1, is reported, and the start goes on."""
    (tmp_path / "processes.json").write_bytes(damage)
    (line,) = orphans.kill_orphans(tmp_path)
    assert "damaged" in line
    assert orphans.kill_orphans(tmp_path) == []


def test_two_supervisors_cannot_share_a_folder(tmp_path: Path) -> None:
    """A second start fails with the first one's pid; after its end it works."""
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
    """The error names a file in the folder's place."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"file.*RECOMMENDER_DATA_DIR"):
        orphans.kill_orphans(tmp_path / "file")


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    """SIGKILL cannot be ignored."""
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(); input()"
    with subprocess.Popen(
        python(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        orphans.end_processes([psutil.Process(stubborn.pid)], patience_s=0.1)
        wait_until(lambda: stubborn.poll() is not None)
        assert stubborn.returncode == -9
