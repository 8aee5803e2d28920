"""Child processes: start, end with all descendants, log, and end with the parent.

Three mechanisms keep orphan processes from being left behind, each for what the one before misses:
`supervisor.Supervisor` ends its children in order, `end_with_parent` ends a child whose parent was
killed, and `orphans.kill_orphans` ends the rest at the next start.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import psutil

from models.errors import CannotStart
from models.secrets import redacted
from ops import orphans
from ops.forked_processes import ForkedProcess

GRACE_S = 10.0
"""Time limit for a child to end after its stop signal; then it is killed."""

MAX_LOG_BYTES = 16 * 1024 * 1024
TAIL_BYTES, TAIL_LINES = 8192, 15

_WAIT_AND_END = """
read -r ended && exit
kill -s "$2" -- "-$1"
n=0
while kill -s 0 -- "-$1" && [ "$n" -lt "$3" ]; do sleep 1; n=$((n + 1)); done
kill -s KILL -- "-$1"
"""
_WATCH = ("/bin/sh", "-c", _WAIT_AND_END, "watch")
Process: TypeAlias = subprocess.Popen[bytes] | ForkedProcess
"""A child process: of a command, or forked."""

_watchers: dict[Process, subprocess.Popen[bytes]] = {}

# A gated child waits in `read`: if its supervisor dies, the pipe closes and the child ends.
_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "gate")


def log_path(data_dir: Path, name: str) -> Path:
    """Log file of the child with this name."""
    return data_dir / "logs" / f"{name}.log"


def log_tail(log: Path) -> str:
    """Last lines of a log, indented, without control characters and secrets; "" without a log."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    lines = ["".join(c for c in line if c.isprintable()) for line in redacted(text).splitlines()]
    return "".join(f"\n    {line}" for line in lines[-TAIL_LINES:])


def spawn(
    argv: Sequence[str], env: Mapping[str, str] | None, log: Path, *, gated: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that a terminal's Ctrl-C does not reach it.

    Parameters
    ----------
    argv
        Command, whose output is appended to `log`.
    env
        Whole environment; `None` for this process's own.
    gated
        Hold the command back until `release`.

    Raises
    ------
    CannotStart
        The command does not exist; a gated one ends with exit code 127 instead.
    """
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("ab") as output:
            return subprocess.Popen(
                [*_GATE, *argv] if gated else argv,
                bufsize=0,
                env=env,
                stdin=subprocess.PIPE if gated else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise CannotStart(f"{argv[0]} cannot be started: {error}") from error


def release(process: Process) -> None:
    """Let a gated process run its command."""
    if process.stdin is not None:
        # The caller notices its death when it waits for the process.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"\n")
        process.stdin.close()


def end_process(
    process: Process,
    *,
    ask_with: signal.Signals = signal.SIGTERM,
    at_once: Callable[[], bool] = lambda: False,
) -> None:
    """End a child process and its descendants: by a signal, and SIGKILL after `GRACE_S`.

    Parameters
    ----------
    process
        May have ended already; its descendants are killed all the same.
    ask_with
        Signal on which it ends by itself.
    at_once
        Polled while waiting; once true, the process is killed at once.
    """
    family = _descendants(process)
    deadline_s = time.monotonic() + GRACE_S
    process.send_signal(ask_with)
    while process.poll() is None and time.monotonic() < deadline_s and not at_once():
        time.sleep(0.01)
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    # Its descendants are in its group; macOS answers EPERM for a group of dead members.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    orphans.end_processes(family, patience_s=0.0)
    _unwatch(process)


def listens(pid: int, port: int) -> bool:
    """True if this process listens on the TCP port.

    True also if the system does not show the process's connections.
    """
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def end_with_parent(process: Process, *, ask_with: signal.Signals = signal.SIGTERM) -> None:
    """Make a child process end with this process, however this one ends.

    A shell waits at a pipe that only this process can write to: when this process is gone, even by
    kill -9, the pipe closes, and the shell ends the child with its whole session.
    """
    _unwatch_ended()
    number = ask_with.name.removeprefix("SIG")
    _watchers[process] = subprocess.Popen(
        [*_WATCH, str(process.pid), number, f"{GRACE_S:g}"],
        bufsize=0,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _unwatch(process: Process) -> None:
    watcher = _watchers.pop(process, None)
    if watcher is not None and watcher.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            watcher.stdin.write(b"ended\n")
        watcher.stdin.close()
        watcher.wait()


@atexit.register
def _unwatch_ended() -> None:
    """End the watchers of processes that have ended."""
    for process in [one for one in _watchers if one.poll() is not None]:
        _unwatch(process)


def how_it_ended(code: int) -> str:
    """A return code in words.

    >>> how_it_ended(-9)
    'was killed by SIGKILL'
    """
    return f"ended with exit code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"


def bound_log(log: Path) -> None:
    """Cut a log that has grown too large to its end; its writer keeps appending."""
    if not log.exists() or log.stat().st_size <= MAX_LOG_BYTES:
        return
    with log.open("r+b") as file:
        file.seek(-TAIL_BYTES, os.SEEK_END)
        tail = file.read()
        file.seek(0)
        file.truncate()
        file.write(tail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _descendants(process: Process) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
