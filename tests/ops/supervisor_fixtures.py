"""A process with a supervisor that tests interrupt and kill; run as a script, it is that process.

python supervising.py DATA_DIR MODE
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from ops import orphans
from ops.embedded_servers import supervise_broker, supervise_redis
from ops.processes import log_path
from ops.supervisor import Supervisor

SLEEPER = "import time; time.sleep(600)"
FAMILY = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}])"
DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)"
)
"""Does not end on SIGTERM; says so as soon as that is true."""


def python(script: str) -> list[str]:
    """The command that runs these Python statements."""
    return [sys.executable, "-c", script]


def wait_until(condition: Callable[[], bool], *, within_s: float = 90) -> None:
    """Return once the condition holds; fail after a time limit."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """True if a process runs; zombies count as dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def recorded(data_dir: Path) -> dict[str, int]:
    """Pids in the ledger by child name."""
    ledger = (data_dir / "processes.json").read_bytes()
    records = msgspec.json.decode(ledger, type=list[orphans.ProcessRecord])
    return {entry.name: entry.pid for entry in records}


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


@dataclass
class Supervising:
    """A running `python supervising.py`."""

    process: subprocess.Popen[str]
    data_dir: Path

    def read_until(self, word: str) -> str:
        """Its output up to the line that holds the word."""
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if word in line:
                return said
        raise AssertionError(f"ended without saying {word!r}: {said}")

    def kill(self) -> None:
        """Kill it with -9, after the watchers that would end its children."""
        for child in psutil.Process(self.process.pid).children():
            if "watch" in child.cmdline():
                child.kill()
        self.process.kill()
        self.process.wait()

    def everyone(self) -> list[int]:
        """Its children and their descendants, once there are as many as expected."""
        children = recorded(self.data_dir)
        wait_until(lambda: len(family(children["family"])) == 2)
        return [pid for child in children.values() for pid in family(child)]


@contextlib.contextmanager
def supervising(data_dir: Path, mode: str) -> Iterator[Supervising]:
    """Start the script in a mode; at the end, it and its descendants are ended."""
    command = [sys.executable, __file__, str(data_dir), mode]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield Supervising(process, data_dir)
        finally:
            process.kill()
            process.wait()
            orphans.kill_orphans(data_dir)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _never() -> bool:
    _say("not yet")
    return False


def _main(data_dir: Path, mode: str) -> None:
    # A shell's background jobs ignore SIGINT, and pass that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    deaf = log_path(data_dir, "deaf")
    with Supervisor(data_dir, say=_say) as supervisor:
        if mode == "servers":
            supervise_broker(supervisor)
            supervise_redis(supervisor)
            supervisor.start("family", python(FAMILY))
        elif mode == "deaf":
            supervisor.start("deaf", python(DEAF), ready=lambda: "deaf" in deaf.read_text())
        elif mode == "starting":
            supervisor.start("late", python(SLEEPER), ready=_never)
        supervisor.run()
    _say("left")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
