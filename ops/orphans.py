"""Orphan processes: the lock of the data folder, the ledger of its processes, and their end.

The supervisor holds the lock, and its death releases it. So the next holder may treat every process
in the ledger as an orphan, if it is still the recorded process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import psutil

from models.errors import CannotStart

PATIENCE_S = 5.0
"""Time limit for an orphan to end after SIGTERM; then it is killed."""

CLOCK_ERROR_S = 2.0
"""Largest difference of two readings of a creation time: the kernel rounds the boot time."""


class ProcessRecord(msgspec.Struct, frozen=True):
    """One child in the ledger; its creation time tells it from a later process with its pid."""

    name: str
    pid: Annotated[int, msgspec.Meta(gt=1, lt=2**31)]
    create_time_s: float


def process_record(name: str, pid: int) -> ProcessRecord:
    """The record of a running process."""
    return ProcessRecord(name, pid, psutil.Process(pid).create_time())


@contextlib.contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock the data folder, made if missing; the end of the process releases it too.

    Raises
    ------
    CannotStart
        Another process holds the lock, or the folder cannot be used.
    """
    with contextlib.ExitStack() as held:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = held.enter_context((data_dir / "lock").open("a+"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CannotStart(
                f"{data_dir} is in use by a running `recommender up` (pid {file.read(20)}): "
                "stop that one, or set RECOMMENDER_DATA_DIR to another folder"
            ) from error
        except OSError as error:
            raise CannotStart(
                f"the data folder cannot be used: {error}; set RECOMMENDER_DATA_DIR to another"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_ledger(data_dir: Path, records: Iterable[ProcessRecord]) -> None:
    """Replace the ledger atomically by these records."""
    draft = data_dir / "processes.json.new"
    draft.write_bytes(msgspec.json.encode(list(records)))
    draft.replace(data_dir / "processes.json")


def kill_orphans(data_dir: Path) -> list[str]:
    """End the processes that an earlier supervisor left; gives a line of text for each.

    A process is ended, with all its descendants, only if its pid and creation time are those of the
    ledger.

    Raises
    ------
    CannotStart
        A running supervisor holds the folder, or an orphan cannot be ended.
    """
    with lock_data_dir(data_dir):
        return kill_orphans_locked(data_dir)


def kill_orphans_locked(data_dir: Path) -> list[str]:
    """`kill_orphans` for a caller that holds the lock of the folder."""
    ledger = data_dir / "processes.json"
    if not ledger.exists():
        return []
    try:
        records = msgspec.json.decode(ledger.read_bytes(), type=list[ProcessRecord])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        records = []
        lines = [f"{ledger} is damaged ({error}): processes of an earlier run may be left"]
    else:
        lines = []
    for entry in records:
        survivors = _survivors_of(entry)
        if survivors:
            end_processes(survivors, patience_s=PATIENCE_S)
            lines.append(f"{entry.name}: ended pid {entry.pid}, left by an earlier run")
    write_ledger(data_dir, [])
    return lines


def end_processes(processes: Iterable[psutil.Process], *, patience_s: float) -> None:
    """End processes, children or not: with SIGTERM, and SIGKILL after `patience_s`.

    Raises
    ------
    CannotStart
        One of them survives SIGKILL.
    """
    left = [process for process in processes if _is_alive(process)]
    if patience_s:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        left = _survivors(left, patience_s)
    for process in left:
        # A process that cannot be signalled, such as another user's, is named below.
        with contextlib.suppress(psutil.Error):
            process.kill()
    left = _survivors(left, PATIENCE_S)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise CannotStart(f"pid {pids} cannot be ended; end it by hand, then start again")


def _survivors(processes: list[psutil.Process], wait_s: float) -> list[psutil.Process]:
    deadline_s = time.monotonic() + wait_s
    while (left := [process for process in processes if _is_alive(process)]) and (
        time.monotonic() < deadline_s
    ):
        time.sleep(0.02)
    return left


def _is_alive(process: psutil.Process) -> bool:
    """True if running; zombies count as dead."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _survivors_of(entry: ProcessRecord) -> list[psutil.Process]:
    """Running processes of a record: itself, its descendants, and its session."""
    if entry.create_time_s < psutil.boot_time() - CLOCK_ERROR_S:
        return []
    found: set[psutil.Process] = set()
    try:
        process = psutil.Process(entry.pid)
        if abs(process.create_time() - entry.create_time_s) > CLOCK_ERROR_S:
            return []
        # In a restarted container, this process may have the same pid and nearly the same time.
        if process in {psutil.Process(), *psutil.Process().parents()}:
            return []
        found = {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        pass
    # A session id is not reused while the session has members, even without its leader.
    found.update(member for member in psutil.process_iter() if _session(member.pid) == entry.pid)
    return [process for process in found if _is_alive(process)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
