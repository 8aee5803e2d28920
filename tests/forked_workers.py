"""Processes of pytest-xdist that are forked from one which has imported all tests.

Importing them and the product takes ten seconds of CPU, and six processes would each spend them.
The product's own fork server (`tests.forked_processes`) is one for all of them, too.
pytest-xdist starts a process as any command that speaks on its standard streams: here a short-lived
program that hands those streams to the fork server, which forks a process that speaks on them.
Whatever of it runs when the tests have ended is killed with the server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path


def start_fork_server(paths: Sequence[str]) -> tuple[str, Callable[[], None]]:
    """Start the fork server, which imports the tests at `paths`.

    Returns
    -------
    tuple of str and callable
        The command that starts a process, and what ends the server and all of its processes.
    """
    directory = tempfile.TemporaryDirectory(prefix="tests-")
    address = str(Path(directory.name, "socket"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, __file__, "serve", str(listener.fileno()), *paths],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            # A fork would lose the threads that numpy starts, which wait by spinning besides.
            env={"OPENBLAS_NUM_THREADS": "1"} | os.environ,
        )

    def end() -> None:
        server.communicate()
        directory.cleanup()

    return shlex.join([sys.executable, "-S", "-E", __file__, "connect", address]), end


def _connect(address: str) -> None:
    """Hand the standard streams to a new process, and end when it has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [b"\n"], [0, 1, 2])
        # Of a process that has died the other side sees it by the end of its output.
        with Path(os.devnull).open("r+b") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(nothing.fileno(), 1)
        server.recv(1)


def _serve(listener: socket.socket, paths: Sequence[str]) -> None:
    """Import all tests, then fork a process for each that connects."""
    sys.path[0] = str(Path.cwd())
    import_tests(paths)
    from ops.forked_processes import end_fork_server, load_now

    load_now()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A collection would write to every page, and each process would then have its own copy of it.
    gc.collect()
    gc.freeze()
    forked: list[int] = []
    while True:
        readable, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in readable:
            break
        connection, _ = listener.accept()
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        process = os.fork()
        if process == 0:
            listener.close()
            _become_worker(streams)
            return
        forked.append(process)
        connection.close()
        for stream in streams:
            os.close(stream)
    for process in forked:
        if os.waitpid(process, os.WNOHANG) == (0, 0):
            os.kill(process, signal.SIGKILL)
    for process in forked:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)
    end_fork_server()


def import_tests(paths: Sequence[str]) -> None:
    """Import the test modules at the paths; those that cannot be are left to who tries again.

    Of these pytest leaves behind what there is until the error, as if it were the whole module.
    """
    import pytest

    failed: list[str] = []

    class Failures:
        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed:
                failed.append(report.nodeid.removesuffix(".py").replace("/", "."))

    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *paths], [Failures()])
    for name in failed:
        sys.modules.pop(name, None)


def _become_worker(streams: Sequence[int]) -> None:
    """Do what `python -c` does for pytest-xdist, on the given standard streams."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _share_fork_server()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.argv[:] = ["-c"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(eval(sys.stdin.readline()), vars(main))  # noqa: S307, S102  as it is meant to be started


def _share_fork_server() -> None:
    """Use the product's fork server of the process above: this one can neither await nor end it.

    No public function hands it on. A tracker of resources is started anew when it is needed.
    """
    server, tracker = forkserver._forkserver, resource_tracker._resource_tracker
    server._forkserver_pid = None  # type: ignore[attr-defined]
    server.ensure_running = lambda: None  # type: ignore[method-assign]
    tracker._fd = tracker._pid = None  # type: ignore[attr-defined]


if __name__ == "__main__":
    what, where, *given = sys.argv[1:]
    if what == "connect":
        _connect(where)
    else:
        _serve(socket.socket(fileno=int(where)), given)
