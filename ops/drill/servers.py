"""Throw-away servers that a drill stops, kills and starts again on their ports and data.

Embedded ones, or an Apache Kafka that is installed here; Redis is the embedded one, or another
program. All listen on loopback, and end with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from models.errors import CannotStart
from ops.embedded_servers import Server, broker_answers, server_env, start_broker, start_redis
from ops.ports import HOST, ReservedPort
from ops.processes import end_with_parent, how_it_ended, log_path, log_tail, release, spawn

KAFKA_READY_S = 120.0
JVM = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Little memory, and little time to start: it has a few messages a second."""

OLDEST_JAVA = 17

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=OWN://127.0.0.1:{own},WORKERS://127.0.0.1:{workers},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OWN://127.0.0.1:{own},WORKERS://127.0.0.1:{proxy}
listener.security.protocol.map=OWN:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=OWN
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""

LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "[%d] %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: STDOUT
"""


@dataclass
class ThrowawayServer:
    """A running server of a drill.

    Attributes
    ----------
    make
        Starts it on its port and data; it answers when that returns.
    data
        Folder of its data.
    is_over
        True once it is started no more, because the site ends.
    """

    make: Callable[[], Server]
    data: Path
    running: Server = field(init=False)
    is_over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.running = self.make()

    @property
    def address(self) -> str:
        """Its address, `host:port`."""
        return self.running.address

    @property
    def pid(self) -> int:
        """Process id of its present or last run."""
        return self.running.process.pid

    def start(self) -> None:
        """Start it again; raises `CannotStart` once it is over."""
        with self._lock:
            if self.is_over:
                raise CannotStart("the drill ends: no server is started")
            self.running = self.make()

    def close(self) -> None:
        """End it for good and at once: its data is thrown away."""
        self.is_over = True
        with self._lock:
            self.kill()

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.running.stop()

    def kill(self) -> None:
        """End it as a crash does."""
        self.running.process.kill()
        self.running.process.wait()
        self.running.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It is not scheduled meanwhile.

        Raises
        ------
        RuntimeError
            The system did not stop it.
        """
        with paused(self.running.process.pid):
            yield


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """A process is not scheduled meanwhile, as on a machine that swaps.

    Raises
    ------
    RuntimeError
        The system did not stop it.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        until_s = time.monotonic() + 5
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            if time.monotonic() > until_s:
                raise RuntimeError(f"process {pid} was not stopped")
            time.sleep(0.01)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def throwaway_redis(folder: Path, program: str | None) -> Iterator[ThrowawayServer]:
    """A running Redis that writes every change to its file."""
    with contextlib.ExitStack() as closing:
        port = closing.enter_context(ReservedPort()).number
        server = ThrowawayServer(
            lambda: start_redis(folder, port=port, program=program), folder / "redis"
        )
        closing.callback(server.close)
        yield server


@contextlib.contextmanager
def embedded_broker(folder: Path, workers_port: int, proxy_port: int) -> Iterator[ThrowawayServer]:
    """A running broker whose second listener, for the workers, sends them to a proxy's port."""
    with contextlib.ExitStack() as closing:
        own = closing.enter_context(ReservedPort()).number
        server = ThrowawayServer(
            lambda: start_broker(folder, port=own, proxied=(workers_port, proxy_port)),
            folder / "broker",
        )
        closing.callback(server.close)
        yield server


@contextlib.contextmanager
def apache_kafka(
    folder: Path, installed: Path, workers_port: int, proxy_port: int
) -> Iterator[ThrowawayServer]:
    """A running Apache Kafka of the jars in a folder; takes about ten seconds.

    Raises
    ------
    CannotStart
        There is no Java of a version that it needs, the folder has no jars of Kafka, or it ended.
    """
    classes = _jars(installed)
    _check_java()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.yaml").write_text(LOG4J)
    java = ["java", *JVM, f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}", "-cp", classes]
    properties = folder / "server.properties"
    with contextlib.ExitStack() as closing:
        own = closing.enter_context(ReservedPort()).number
        controller = closing.enter_context(ReservedPort()).number
        properties.write_text(
            PROPERTIES.format(
                own=own,
                workers=workers_port,
                controller=controller,
                proxy=proxy_port,
                folder=folder.resolve(),
            )
        )
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        formatted = subprocess.run(
            [*java, *tool],
            env=server_env(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=KAFKA_READY_S,
            check=False,
        )
        if formatted.returncode:
            text = (formatted.stdout + formatted.stderr).strip()
            raise CannotStart(f"Apache Kafka could not be set up: {text[-2000:]}")
        command = [*java, "kafka.Kafka", str(properties)]
        servers: list[ThrowawayServer] = []

        def start() -> Server:
            return _start_kafka(command, folder, own, lambda: any(one.is_over for one in servers))

        servers.append(ThrowawayServer(start, folder / "data"))
        closing.callback(servers[0].close)
        yield servers[0]


def _start_kafka(
    command: list[str], folder: Path, port: int, is_over: Callable[[], bool]
) -> Server:
    log = log_path(folder, "kafka")
    process = spawn(command, server_env(), log, gated=True)
    end_with_parent(process)
    release(process)
    server = Server("kafka", process, HOST, port)
    until_s = time.monotonic() + KAFKA_READY_S
    while not broker_answers(port) and not is_over():
        code = process.poll()
        if code is not None:
            server.stop()
            raise CannotStart(f"Apache Kafka {how_it_ended(code)}{log_tail(log)}")
        if time.monotonic() > until_s:
            server.stop()
            raise CannotStart(f"Apache Kafka is not ready after {KAFKA_READY_S:g} s{log_tail(log)}")
        time.sleep(0.05)
    return server


def _jars(installed: Path) -> str:
    """The class path of an Apache Kafka, as it is downloaded or as a folder of jars."""
    for folder in (installed / "libs", installed):
        if any(folder.glob("kafka_2.*.jar")):
            return f"{folder.resolve()}/*"
    raise CannotStart(
        f"{installed} is no folder of Apache Kafka: it has no libs/kafka_2.*.jar; "
        "https://kafka.apache.org/downloads has it"
    )


def _check_java() -> None:
    if shutil.which("java") is None:
        raise CannotStart(f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and there is none")
    asked = subprocess.run(
        ["java", "-version"],  # noqa: S607  of the PATH
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    _, _, version = asked.stderr.partition('version "')
    major = version.partition(".")[0].partition('"')[0]
    if asked.returncode or not major.isdigit() or int(major) < OLDEST_JAVA:
        said = (asked.stderr.splitlines() or ["nothing"])[0]
        raise CannotStart(f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and found: {said}")
