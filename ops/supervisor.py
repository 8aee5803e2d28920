"""Supervisor of the processes of `recommender up`: start, restart after a crash, end of all."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from models.errors import CannotStart, RecommenderError
from models.settings.environment import READY_FILE
from models.waits import waits_s
from ops import orphans
from ops.forked_processes import fork
from ops.processes import (
    Process,
    bound_log,
    end_process,
    end_with_parent,
    how_it_ended,
    listens,
    log_path,
    log_tail,
    release,
    spawn,
)

READY_S = 30.0
FIRST_DELAY_S, LAST_DELAY_S = 0.5, 10.0
"""Backoff of restarts: doubled from the first delay to the last."""

STEADY_S = 60.0
"""Uptime after which a child's backoff begins again at the first delay."""

TICK_S = 0.1


def _delays_s() -> Iterator[float]:
    return waits_s(FIRST_DELAY_S, LAST_DELAY_S)


@dataclass
class _Child:
    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None
    log: Path
    port: int | None
    ready: Callable[[], bool] | None
    ready_s: float
    restart_note: str
    stop_signal: signal.Signals
    ready_file: Path
    tells_ready: bool
    after_stop: Callable[[Callable[[], bool]], None]
    function: Callable[[], object] | None
    process: Process | None = None
    record: orphans.ProcessRecord | None = None
    is_ready: bool = False
    started_s: float = 0.0
    due_s: float = 0.0
    delays_s: Iterator[float] = field(default_factory=_delays_s)

    def answers(self) -> bool:
        if self.ready is None and self.port is None and not self.tells_ready:
            return True
        if self.process is None or self.process.poll() is not None:
            return False
        if self.tells_ready and not self.ready_file.exists():
            return False
        if self.ready is not None and not self.ready():
            return False
        return self.port is None or listens(self.process.pid, self.port)

    def postpone(self) -> float:
        """Set the time of the next attempt by exponential backoff; gives the delay."""
        delay_s = next(self.delays_s)
        self.due_s = time.monotonic() + delay_s
        return delay_s


class Supervisor:
    """Starts children, restarts them after a crash, and leaves no orphans; a context manager.

    Entering locks the data folder and ends the orphans of an earlier run. In the main thread it
    also treats SIGTERM and SIGHUP like Ctrl-C: a `KeyboardInterrupt`, or, inside `run`, the end of
    `run`. In other threads signals are not handled.

    Parameters
    ----------
    data_dir
        Folder of the ledger, the lock and the logs; for one supervisor at a time.
    say
        Called with one line for each event, by the thread that notices it.
    on_restart
        Called with the name of a restarted child once it is ready, before that is said. If it
        raises a `RecommenderError`, it is called again later. Signals wait for its end.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        say: Callable[[str], None],
        on_restart: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._say = say
        self._on_restart = on_restart
        self._children: list[_Child] = []
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._resources = contextlib.ExitStack()
        # The handler only counts: setting an Event in one can deadlock with a wait on it.
        self._n_signals = 0
        self._counts_signals = False
        self._ends_at_once: Callable[[], bool] = self._is_stopping

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            resources.enter_context(orphans.lock_data_dir(self.data_dir))
            for line in orphans.kill_orphans_locked(self.data_dir):
                self._say(line)
            if threading.current_thread() is threading.main_thread():
                self._take_signals(resources)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._resources:
            self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        ready: Callable[[], bool] | None = None,
        ready_s: float = READY_S,
        restart_note: str = "",
        stop_signal: signal.Signals = signal.SIGTERM,
        tells_ready: bool = False,
        waits: bool = True,
        after_stop: Callable[[Callable[[], bool]], None] = lambda _ends_at_once: None,
        function: Callable[[], object] | None = None,
    ) -> None:
        """Start a child and wait until it is ready; `run` restarts it when it dies.

        Parameters
        ----------
        name
            Unique; also names the log.
        argv, env
            Command and its whole environment (`None`: this process's own). The same command is
            used for restarts, so a server comes back on its port with its data.
        port
            TCP port on which the child must listen before it counts as ready.
        ready
            Readiness check, called often and so to be fast. Without `port` and this, a child is
            ready as soon as it runs.
        ready_s
            Time limit for a start or restart.
        restart_note
            Said with every restart: the consequence of the crash.
        stop_signal
            Signal on which the child ends by itself.
        tells_ready
            The child is ready once it has made the file that `READY_FILE` names.
        waits
            Wait here until it is ready; otherwise `settle` waits.
        after_stop
            Called when `stop` has ended the child and all children started after it. Its argument
            returns True once a second signal asks to end at once.
        function
            Function that a forked process calls, with `argv` as its arguments, instead of a command
            that is run.

        Raises
        ------
        CannotStart
            The child died or was not ready in time; the text holds the end of its log.
        """
        child = _Child(
            name=name,
            argv=tuple(argv),
            env=env,
            log=log_path(self.data_dir, name),
            port=port,
            ready=ready,
            ready_s=ready_s,
            restart_note=restart_note,
            stop_signal=stop_signal,
            ready_file=self.data_dir / f"{name}.ready",
            tells_ready=tells_ready,
            after_stop=after_stop,
            function=function,
        )
        with self._lock, self._signals_counted():
            child.log.unlink(missing_ok=True)
            self._children.append(child)
            try:
                self._launch(child)
                if waits:
                    self._await_ready(child)
            except CannotStart:
                self._end(child)
                self._children.remove(child)
                raise
        self._raise_if_stopping(name)

    def settle(self) -> None:
        """Wait until the children started with `waits=False` are ready.

        Raises
        ------
        CannotStart
            As `start` does.
        """
        with self._lock, self._signals_counted():
            for child in self._children:
                self._await_ready(child)
        self._raise_if_stopping("the rest")

    def _raise_if_stopping(self, name: str) -> None:
        if self._n_signals and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        if self._stopping.is_set():
            raise CannotStart(f"{name} is not started: its supervisor is stopping")

    def run(self) -> None:
        """Restart children that die, until a signal or `stop`; the context manager ends them."""
        if threading.current_thread() is threading.main_thread():
            self._counts_signals = True
            self._say("running; Ctrl-C stops")
        while not self._is_stopping():
            with self._lock:
                for child in self._children:
                    if not self._is_stopping():
                        self._supervise(child)
            self._stopping.wait(TICK_S)

    def stop(self) -> None:
        """End every child, last started first; may be called from any thread."""
        self._stopping.set()
        with self._lock, self._signals_counted():
            if not self._children:
                return
            n_before = self._n_signals
            self._ends_at_once = lambda: self._n_signals > min(n_before, 1)
            # The callbacks run last to first, all of them even if one raises.
            with contextlib.ExitStack() as ends:
                ends.callback(self._children.clear)
                for child in self._children:
                    ends.callback(self._stop_one, child)
                ends.callback(self._say, "stopping; another Ctrl-C kills at once")
            orphans.write_ledger(self.data_dir, [])

    def _stop_one(self, child: _Child) -> None:
        if child.process is not None:
            end_process(child.process, ask_with=child.stop_signal, at_once=self._ends_at_once)
            child.ready_file.unlink(missing_ok=True)
            self._say(f"{child.name}: stopped")
            child.after_stop(self._ends_at_once)

    def _launch(self, child: _Child) -> None:
        inherited = os.environ if child.env is None else child.env
        child.ready_file.unlink(missing_ok=True)
        env = {**inherited, READY_FILE: str(child.ready_file)}
        process: Process
        if child.function is None:
            process = spawn(child.argv, env, child.log, gated=True)
        else:
            process = fork(child.function, child.argv, env, child.log, name=child.name, gated=True)
        end_with_parent(process, ask_with=child.stop_signal)
        child.process, child.is_ready = process, False
        child.started_s, child.due_s = time.monotonic(), 0.0
        child.record = orphans.process_record(child.name, process.pid)
        self._write_ledger()
        release(process)

    def _await_ready(self, child: _Child) -> None:
        while not child.is_ready and not self._is_stopping():
            if child.answers():
                child.is_ready = True
                self._say(f"{child.name}: ready{_where(child)}")
                break
            code = None if child.process is None else child.process.poll()
            if code is not None:
                how = how_it_ended(code)
                raise CannotStart(f"{child.name} {how} instead of starting{log_tail(child.log)}")
            if time.monotonic() > child.started_s + child.ready_s:
                raise CannotStart(
                    f"{child.name} is not ready after {child.ready_s:g} s{log_tail(child.log)}"
                )
            time.sleep(0.02)

    def _end(self, child: _Child) -> None:
        if child.process is not None:
            end_process(child.process, ask_with=child.stop_signal, at_once=self._is_stopping)
        child.process = child.record = None
        self._write_ledger()

    def _write_ledger(self) -> None:
        records = (child.record for child in self._children)
        orphans.write_ledger(self.data_dir, [entry for entry in records if entry is not None])

    def _supervise(self, child: _Child) -> None:
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.due_s:
                self._relaunch(child)
        elif (code := child.process.poll()) is not None:
            self._on_death(child, how_it_ended(code))
        elif not child.is_ready:
            if now_s >= child.due_s:
                self._check_restarted(child)
        elif now_s > child.started_s + STEADY_S:
            child.delays_s = _delays_s()
        bound_log(child.log)

    def _relaunch(self, child: _Child) -> None:
        try:
            self._launch(child)
        except (CannotStart, OSError) as error:
            self._on_death(child, f"cannot be started again: {error}")

    def _on_death(self, child: _Child, what: str) -> None:
        self._end(child)
        note = f"; {child.restart_note}" if child.restart_note else ""
        then = f"starting again in {child.postpone():g} s"
        self._say(f"{child.name}: {what}{note}; {then}{log_tail(child.log)}")

    def _check_restarted(self, child: _Child) -> None:
        if child.answers():
            try:
                self._on_restart(child.name)
            except RecommenderError as error:
                wait_s = child.postpone()
                self._say(f"{child.name}: back, but {error}; trying again in {wait_s:g} s")
            else:
                child.is_ready = True
                self._say(f"{child.name}: ready again{_where(child)}")
        elif time.monotonic() > child.started_s + child.ready_s:
            self._on_death(child, f"not ready after {child.ready_s:g} s")

    def _is_stopping(self) -> bool:
        return self._n_signals > 0 or self._stopping.is_set()

    def _take_signals(self, resources: contextlib.ExitStack) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            # `nohup` ignores SIGHUP, and must go on doing so.
            if number != signal.SIGHUP or before != signal.SIG_IGN:
                resources.callback(signal.signal, number, before)
                signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._counts_signals:
            raise KeyboardInterrupt
        self._n_signals += 1

    @contextlib.contextmanager
    def _signals_counted(self) -> Iterator[None]:
        """Count signals here instead of raising; only the main thread is ever interrupted."""
        before = self._counts_signals
        self._counts_signals |= threading.current_thread() is threading.main_thread()
        try:
            yield
        finally:
            self._counts_signals = before


def _where(child: _Child) -> str:
    place = f" on 127.0.0.1:{child.port}" if child.port is not None else ""
    return f"{place} (pid {child.process.pid})" if child.process is not None else place
