"""Processes of the project in a drill: workers and the API, restarted under the same name."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.drill.servers import paused
from ops.forked_processes import fork
from ops.ports import free_port
from ops.processes import Process, end_process, end_with_parent, log_tail, release, spawn

STOP_WITHIN_S = 60.0
COMMAND_WITHIN_S = 300.0

# On a system where forks are not safe, a command of its own interpreter, in a folder of its own.
_IN_FOLDER = ("/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "in-folder")


@dataclass
class RestartedProcess:
    """A process of the project, restarted under the same name.

    Attributes
    ----------
    ended
        Exit codes of its unexpected ends.
    is_over
        True if it is not restarted, because the site ends.
    """

    name: str
    start: Callable[[], Process]
    running: Process | None = None
    ended: list[int] = field(default_factory=list)
    is_over: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def up(self) -> None:
        """Start it if it does not run, and note if it ended by itself."""
        with self.lock:
            if self.is_over:
                return
            if self.running is not None:
                code = self.running.poll()
                if code is None:
                    return
                self.ended.append(code)
            self.running = self.start()

    def down(self, by: signal.Signals) -> str:
        """Stop it; after SIGTERM it must end in time and without an error. Gives how it ended."""
        with self.lock:
            process, self.running = self.running, None
            if process is None:
                return f"{self.name} did not run"
            code = process.poll()
            is_by_itself = code is not None
            if code is None:
                process.send_signal(by)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(STOP_WITHIN_S)
            if code is None:
                process.kill()
                process.wait()
            # A signal during the start or the very end makes SIGTERM its exit status.
            is_wrong = by is signal.SIGTERM and code not in {0, -signal.SIGTERM}
            if not self.is_over and (code is None or is_by_itself or is_wrong):
                self.ended.append(-signal.SIGKILL if code is None else code)
            end_process(process)
            return f"process {process.pid} ended with {code}"

    @contextlib.contextmanager
    def paused(self) -> Iterator[int]:
        """Not scheduled meanwhile, as on a machine that swaps; gives its process id."""
        with self.lock:
            self.up()
            pid = self.running.pid if self.running else 0
            with paused(pid):
                yield pid


@dataclass
class Processes:
    """Starts commands of the project, and ends what is left of them.

    Parameters
    ----------
    run_command
        Runs the command in `sys.argv`, in a forked process; `None` starts a new interpreter.
    environment
        The whole environment of each, to which those of a process are added.
    folder
        Where they run.
    logs
        Folder of what they print.
    """

    run_command: Callable[[], object] | None
    environment: Mapping[str, str]
    folder: Path
    logs: Path
    started: list[Process] = field(default_factory=list)
    is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _n: int = 0

    def start(self, *arguments: str, name: str, **extra: str) -> tuple[Process, Path]:
        """Start a command; gives it and its log."""
        environment = {**self.environment, **extra}
        with self._lock:
            if self.is_over:
                raise RuntimeError("the drill ends: no process is started")
            self._n += 1
            log = self.logs / f"{name}-{self._n}.log"
            process = self._forked(arguments, environment, log, name)
            end_with_parent(process)
            release(process)
            self.started = [one for one in self.started if one.poll() is None] + [process]
        return process, log

    def _forked(
        self, arguments: tuple[str, ...], environment: dict[str, str], log: Path, name: str
    ) -> Process:
        if self.run_command is None:
            command = [*_IN_FOLDER, str(self.folder), sys.executable, "-m", "cli", *arguments]
            return spawn(command, environment, log, gated=True)
        return fork(
            self.run_command,
            ["recommender", *arguments],
            environment,
            log,
            name=name,
            directory=self.folder,
            gated=True,
        )

    def restarted(self, name: str, command: str, extra: Mapping[str, str]) -> RestartedProcess:
        """A process that is not yet up."""

        def start() -> Process:
            # The metrics of a worker that is killed keep their port for a moment.
            own = {**extra, "RECOMMENDER_METRICS_PORT": str(free_port())}
            return self.start(command, name=name, **own)[0]

        return RestartedProcess(name, start)

    def run(self, *arguments: str) -> str:
        """Run a command that ends by itself; gives what it prints.

        Raises
        ------
        RuntimeError
            It has failed.
        """
        process, log = self.start(*arguments, name=arguments[0])
        try:
            code = process.wait(COMMAND_WITHIN_S)
        finally:
            end_process(process)
        if code:
            raise RuntimeError(
                f"recommender {' '.join(arguments)} ended with {code}{log_tail(log)}"
            )
        return log.read_text(errors="replace")

    def log_tails(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"{log.name}{log_tail(log)}" for log in sorted(self.logs.iterdir()))

    def kill_all(self) -> None:
        """Kill what runs: whatever it holds is thrown away."""
        with self._lock:
            self.is_over = True
            for process in self.started:
                process.kill()
            for process in self.started:
                end_process(process)
            self.started = []
