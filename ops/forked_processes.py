"""Processes forked from one that has loaded their modules: they start at once and share its memory.

Loading the recommender takes two seconds of CPU and 150 MB in each process. The standard library's
fork server does it once, and each process is forked from it: it has no threads, which a fork would
lose, and ends by itself when this process has ended.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TypeVar

from models.errors import CannotStart

A = TypeVar("A")
T = TypeVar("T")

GRACE_S = 10.0
"""Time limit for processes to end when this one does; then they are killed."""

_forks = multiprocessing.get_context("forkserver")


@dataclass(eq=False)
class ForkedProcess:
    """A process of `fork`; what it offers is named as in `subprocess.Popen`."""

    args: Sequence[str]
    stdin: io.FileIO
    _forked: ForkServerProcess

    @property
    def pid(self) -> int:
        """Process id."""
        return self._forked.pid or 0  # it is started before it is here

    @property
    def returncode(self) -> int | None:
        """Exit code; the negative number of the signal that ended it; None while it runs."""
        return self._forked.exitcode

    def poll(self) -> int | None:
        """The `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the process has ended.

        Raises
        ------
        subprocess.TimeoutExpired
            It has not ended within `timeout` seconds.
        """
        self._forked.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process as a crash does."""
        self.send_signal(signal.SIGKILL)


_running: weakref.WeakSet[ForkedProcess] = weakref.WeakSet()


def preload(modules: Sequence[str]) -> None:
    """Set the modules that later processes find loaded; before the first `fork`."""
    _forks.set_forkserver_preload(list(modules))


def load_now() -> None:
    """Start the fork server, which loads its modules while this process goes on."""
    forkserver.ensure_running()


def end_fork_server() -> None:
    """End the fork server, once no process of it is left: it would go on for a moment."""
    # No public function waits for their end.
    for server in (forkserver._forkserver, resource_tracker._resource_tracker):  # noqa: SLF001
        server._stop()  # type: ignore[union-attr]  # noqa: SLF001


def fork(
    function: Callable[[], object],
    args: Sequence[str],
    env: Mapping[str, str],
    output: Path,
    *,
    name: str,
    errors: Path | None = None,
    directory: Path | None = None,
    gated: bool = False,
) -> ForkedProcess:
    """Start a process that calls a function and ends, in a session of its own.

    Parameters
    ----------
    function
        A function of a module; the process imports it by name.
    args
        Its `sys.argv`.
    env
        Its whole environment.
    output, errors
        Files to which what it prints is added; without `errors`, both go to `output`.
    name
        Its name in lists of processes, where the system keeps one: Linux does, of 15 characters.
    directory
        Its working directory; that of this process if not given.
    gated
        Hold the function back until a line is written to its `stdin`; it ends if that is closed.

    Raises
    ------
    CannotStart
        `output` cannot be written.
    """
    files = output, output if errors is None else errors
    try:
        output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        output.touch()
    except OSError as error:
        raise CannotStart(f"{args[0]} cannot be started: {error}") from error
    gate, opener = _forks.Pipe(duplex=False)
    with gate, opener:
        arguments = function, list(args), dict(env), files, directory or Path.cwd(), name, gate
        forked = _forks.Process(target=_run, args=arguments)
        forked.start()
        stdin = io.FileIO(os.dup(opener.fileno()), "w")
    if not gated:
        stdin.write(b"\n")
        stdin.close()
    process = ForkedProcess(args, stdin, forked)
    _running.add(process)
    return process


@atexit.register
def _end_all() -> None:
    """End the processes that this one has left; multiprocessing would wait for them for ever."""
    left = [process for process in _running if process.poll() is None]
    for process in left:
        process.terminate()
    deadline_s = time.monotonic() + GRACE_S
    for process in left:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline_s - time.monotonic()))
        process.kill()


def call(function: Callable[[A], T], argument: A) -> T:
    """The result of a function of a module, called in a forked process; its errors are raised.

    This process need not load what the function uses.

    Raises
    ------
    CannotStart
        The process was killed.
    """
    answers, answer = _forks.Pipe(duplex=False)
    with answers:
        with answer:
            process = _forks.Process(target=_answer, args=(function, argument, answer))
            process.start()
        try:
            result, error = answers.recv()
        except EOFError:
            raise CannotStart("a process was killed before it had an answer") from None
        finally:
            # It has answered, or the caller was interrupted.
            process.kill()
            process.join()
    if error is not None:
        raise error
    found: T = result
    return found


def _answer(function: Callable[[A], T], argument: A, answer: Connection) -> None:
    with answer:
        try:
            result = function(argument)
        except Exception as error:  # noqa: BLE001  raised by the caller
            answer.send((None, error))
        else:
            answer.send((result, None))


def _run(
    function: Callable[[], object],
    args: list[str],
    env: dict[str, str],
    files: tuple[Path, Path],
    directory: Path,
    name: str,
    gate: Connection,
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, file in enumerate((Path(os.devnull), *files)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if descriptor else os.O_RDONLY
        opened = os.open(file, flags, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    with gate:
        is_released = os.read(gate.fileno(), 1)
    if not is_released:
        return
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    os.chdir(directory)
    sys.argv[:] = args
    # Without a name of its own it would be listed as the fork server.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
    function()
