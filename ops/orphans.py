"""The data folder's lock and its ledger of running processes, and ending what outlived them.

The lock belongs to the supervisor and dies with it. So whoever holds it may take every process
in the ledger for a leftover, provided that it still is the process that was recorded.
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
"""How long a leftover may take to end after it was asked to; then it is killed."""

CLOCK_ERROR_S = 2.0
"""How far two readings of one creation time may differ: the kernel rounds the boot time."""


class ProcessRecord(msgspec.Struct, frozen=True):
    """One child in the ledger; a pid alone may since have been given to another process."""

    name: str
    pid: Annotated[int, msgspec.Meta(gt=1, lt=2**31)]
    create_time_s: float


def process_record(name: str, pid: int) -> ProcessRecord:
    """The ledger's record of a living process."""
    return ProcessRecord(name, pid, psutil.Process(pid).create_time())


@contextlib.contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold the data folder, creating it when missing; the end of the process frees it too.

    Raises
    ------
    CannotStart
        When a living process holds it, or the folder cannot be used.
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
    """Put these records in the place of all others; a reader sees either, never a mixture."""
    draft = data_dir / "processes.json.new"
    draft.write_bytes(msgspec.json.encode(list(records)))
    draft.replace(data_dir / "processes.json")


def kill_orphans(data_dir: Path) -> list[str]:
    """End what an earlier supervisor left behind; gives a line for each, for people.

    A process is ended only when its pid and creation time are those of the ledger, and with it
    all that it started; a pid that has since been given to another process is left alone.

    Raises
    ------
    CannotStart
        When a living supervisor holds the folder, or a leftover cannot be ended.
    """
    with lock_data_dir(data_dir):
        return kill_orphans_held(data_dir)


def kill_orphans_held(data_dir: Path) -> list[str]:
    """The same as `kill_orphans`, for a caller that already holds the folder."""
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
        remains = _remains(entry)
        if remains:
            end_processes(remains, patience_s=PATIENCE_S)
            lines.append(f"{entry.name}: ended pid {entry.pid}, left by an earlier run")
    write_ledger(data_dir, [])
    return lines


def end_processes(processes: Iterable[psutil.Process], *, patience_s: float) -> None:
    """End processes that need not be children: asked with SIGTERM, killed after `patience_s`.

    Raises
    ------
    CannotStart
        When one of them survives being killed.
    """
    left = [process for process in processes if _is_alive(process)]
    if patience_s:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        left = _survivors(left, patience_s)
    for process in left:
        # Whom it could not reach, another user's say, is named below.
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
    """Whether it still runs; the dead whom nobody has waited for do not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remains(entry: ProcessRecord) -> list[psutil.Process]:
    """What is left of a recorded process: itself, what it started, and its session."""
    if entry.create_time_s < psutil.boot_time() - CLOCK_ERROR_S:
        return []
    found: set[psutil.Process] = set()
    try:
        process = psutil.Process(entry.pid)
        if abs(process.create_time() - entry.create_time_s) > CLOCK_ERROR_S:
            return []
        # In a container started anew, this very process may have the number and almost the time.
        if process in {psutil.Process(), *psutil.Process().parents()}:
            return []
        found = {process, *process.children(recursive=True)}
    except psutil.NoSuchProcess:
        pass
    # A session's number is not given out again while it has members, even without its leader.
    found.update(member for member in psutil.process_iter() if _session(member.pid) == entry.pid)
    return [process for process in found if _is_alive(process)]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
