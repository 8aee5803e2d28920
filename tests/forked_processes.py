"""Commands of the product as processes forked from one that has loaded their modules.

Loading them takes one to two seconds of CPU, and the suites start some hundred processes. A command
runs as it does on a command line: in a session, environment and folder of its own, with its own
signals and exit code. What a start itself does is left to the tests that start `recommender`.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

MODULES = (
    "cli",
    "uvicorn",
    "api.app",
    "ops.logs",
    "streams.agents.worker",
    "streams.forwarding.app",
    "streams.jobs.batch_inference",
    "streams.jobs.runner",
    "streams.jobs.training",
    "streams.kafka.publisher",
    "streams.operations.status",
    "streams.s3_objects",
)
"""What commands load; each of them is importable from anywhere."""

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(list(MODULES))


@dataclass
class ForkedProcess:
    """A started command; what it offers is named as in `subprocess.Popen`."""

    arguments: Sequence[str]
    _forked: ForkServerProcess

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._forked.pid is not None
        return self._forked.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; the negative number of the signal that ended it; None while it runs."""
        return self._forked.exitcode

    def poll(self) -> int | None:
        """The `returncode`."""
        return self.returncode

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, once the process has ended; `subprocess.TimeoutExpired` if it does not."""
        self._forked.join(timeout_s)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(self.arguments, timeout_s or 0)
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


def start_command(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    output: Path,
    errors: Path | None = None,
) -> ForkedProcess:
    """Start a command of `recommender`; see `start_function`."""
    return start_function(
        run_command_line,
        ["recommender", *arguments],
        environment=environment,
        directory=directory,
        output=output,
        errors=errors,
    )


def start_function(
    function: Callable[[], object],
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str],
    directory: Path,
    output: Path,
    errors: Path | None = None,
) -> ForkedProcess:
    """Start a process that calls a function of a module and ends.

    Parameters
    ----------
    arguments
        Its `sys.argv`.
    environment
        Its whole environment.
    directory
        Its working directory.
    output, errors
        Files to which what it prints is added; without `errors`, both go to `output`.
    """
    output.touch()
    forked = _forks.Process(
        target=_run,
        args=(function, arguments, dict(environment), directory, (output, errors or output)),
    )
    forked.start()
    return ForkedProcess(arguments, forked)


def command_result(
    arguments: Sequence[str], *, environment: Mapping[str, str], directory: Path, within_s: float
) -> subprocess.CompletedProcess[str]:
    """Exit code and output of a command of `recommender` that ends by itself."""
    with tempfile.TemporaryDirectory() as printed:
        output, errors = Path(printed, "output"), Path(printed, "errors")
        process = start_command(
            arguments, environment=environment, directory=directory, output=output, errors=errors
        )
        try:
            code = process.wait(within_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


def run_command_line() -> None:
    """What `recommender` does with `sys.argv`."""
    importlib.import_module("cli").main()


def _run(
    function: Callable[[], object],
    arguments: Sequence[str],
    environment: dict[str, str],
    directory: Path,
    printed: tuple[Path, Path],
) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(directory)
    for descriptor, file in enumerate(printed, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[:] = arguments
    function()
