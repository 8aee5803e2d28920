"""Real servers for tests and benchmarks: Apache Kafka from its published jars, Redis of the PATH.

Both run as in docker-compose.yml: its version of Kafka, its environment and its command line,
with nothing changed but the ports, the addresses and the folders. Each listens on loopback only.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.drill.servers import LOG4J
from ops.ports import ReservedPort

ROOT = Path(__file__).resolve().parents[1]
LOG4J_VERSION = "2.25.4"
"""Of the log4j that this version of Kafka brings; its SLF4J binding is not among Kafka's jars."""

MAVEN_ATTEMPTS = 3

INHERITED = {name: os.environ[name] for name in ("PATH", "CI_RUN_MARK") if name in os.environ}
"""Variables that a server inherits; CI finds orphans by its mark."""

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>recommender</groupId>
  <artifactId>jars</artifactId>
  <version>1</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
DEPENDENCY = """\
    <dependency>
      <groupId>{0}</groupId>
      <artifactId>{1}</artifactId>
      <version>{2}</version>
    </dependency>"""


LEAST_PAUSE_S, MOST_PAUSE_S = 0.05, 0.25


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Return as soon as `condition()` holds; fail after `within_s` with `what`.

    It is asked ever more seldom: to ask takes CPU, of which what is waited for has the more. A wait
    gets longer by a tenth at most.
    """
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        if waited_s > within_s:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(min(max(LEAST_PAUSE_S, waited_s / 10), MOST_PAUSE_S))


def require(*programs: str) -> None:
    """Skip the test if one of `programs` is not on the PATH; with CI=true fail it."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        unavailable(f"not on the PATH: {', '.join(missing)}")


def unavailable(reason: str) -> None:
    """Skip the test for `reason`; with CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def compose() -> dict[str, Any]:
    """The parsed docker-compose.yml, anchors and merge keys resolved."""
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return parsed


SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Options of a JVM that runs for seconds: it takes half the CPU to start and to get fast enough."""


def own_port() -> int:
    """A loopback port reserved until the tests have ended."""
    return own_ports(1)


def own_ports(n: int) -> int:
    """First of consecutive loopback ports reserved until the tests have ended."""
    while True:
        with contextlib.ExitStack() as reserved:
            first = ReservedPort()
            reserved.callback(first.release)
            try:
                for number in range(first.number + 1, first.number + n):
                    reserved.callback(ReservedPort(number).release)
            except (OSError, OverflowError):
                continue
            atexit.register(reserved.pop_all().close)
            return first.number


@dataclass
class Server:
    """A process with a health check, which can be stopped, killed and started again.

    Parameters
    ----------
    address
        Address for clients.
    command, environment
        Command and its whole environment; nothing is inherited.
    health
        A command that exits 0 while the server is well.
    directory
        Its working directory; `server.log` there has its output.
    """

    address: str
    command: list[str]
    environment: Mapping[str, str]
    health: list[str]
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Output of the process, over all its starts."""
        return (self.directory / "server.log").read_text(errors="replace")

    def is_healthy(self) -> bool:
        """True if the health check passes; fails if the process has ended."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} is not running:\n{self.log[-4000:]}")
        check = subprocess.run(
            self.health, env=self.environment, capture_output=True, timeout=30, check=False
        )
        return check.returncode == 0

    def start(self, *, within_s: float = 90) -> None:
        """Start the process and return when it is healthy."""
        with (self.directory / "server.log").open("ab") as log:
            # Its own session: Ctrl-C goes to the test run, which then stops its servers in order.
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self.is_healthy, within_s=within_s, what=f"{self.command[0]} healthy")
        except TimeoutError as error:
            error.add_note(self.log[-4000:])
            raise

    def stop(self, *, within_s: float = 60) -> int:
        """Ask the process to end, wait for it, and give its exit code."""
        return self._end(signal.SIGTERM, within_s)

    def kill(self) -> None:
        """End the process, and any it has started, as a crash does."""
        self._end(signal.SIGKILL, 10)

    def _end(self, by: signal.Signals, within_s: float) -> int:
        if self.process is None:
            return 0
        if by is signal.SIGKILL and self.process.poll() is None:
            os.killpg(self.process.pid, by)
        self.process.send_signal(by)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.process = None
        return code


@contextlib.contextmanager
def running(server: Server, *ports: ReservedPort) -> Iterator[Server]:
    """The server, started; stopped at the end, and its ports given back."""
    try:
        server.start()
        yield server
    finally:
        try:
            server.stop()
        finally:
            for port in ports:
                port.release()


def kafka_version() -> str:
    """The version of Apache Kafka in docker-compose.yml."""
    image: str = compose()["services"]["kafka"]["image"]
    return image.rpartition(":")[2]


def kafka_jars() -> Path:
    """The folder of Apache Kafka's jars; fetched with Maven at the first call, then kept."""
    return maven_jars(
        f"kafka-{kafka_version()}",
        ("org.apache.kafka", "kafka_2.13", kafka_version()),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J_VERSION),
    )


def maven_jars(name: str, *artifacts: tuple[str, str, str]) -> Path:
    """A folder with the jars of artifacts, given by group, name and version, and what they need.

    Fetched with Maven at the first call, then kept under that name.
    """
    jars = ROOT / ".cache" / name
    if jars.is_dir():
        return jars
    require("mvn")
    jars.parent.mkdir(exist_ok=True)
    with (jars.parent / "maven.lock").open("w") as lock:
        # Two Mavens that fill the same empty repository at once spoil each other's files.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _fetch_jars(jars, artifacts)
    return jars


def _fetch_jars(jars: Path, artifacts: Sequence[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory(dir=jars.parent) as directory:
        pom = Path(directory, "pom.xml")
        pom.write_text(
            POM.format(dependencies="\n".join(DEPENDENCY.format(*each) for each in artifacts))
        )
        fetched = Path(directory, "jars")
        # With `-U` it asks again for what could not be had before, which it remembers for a day.
        command = ["mvn", "-q", "-B", "-U", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
        for _ in range(MAVEN_ATTEMPTS):
            maven = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=600,
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if maven.returncode == 0:
                break
        else:
            unavailable(f"Maven could not fetch {jars.name}:\n{maven.stdout[-4000:]}")
        # A rename is atomic: the folder has all of the jars or is not there.
        fetched.rename(jars)


def require_java() -> None:
    """Skip the test without Java 17 or newer; with CI=true fail it."""
    require("java")
    version = subprocess.run(
        ["java", "-version"], capture_output=True, text=True, timeout=60, check=True
    ).stderr
    major = re.search(r'version "(\d+)', version)
    if major is None or int(major[1]) < 17:
        unavailable(f"Apache Kafka needs Java 17 or newer, found: {version.splitlines()[0]}")


def _on_loopback(text: str, ports: Mapping[str, ReservedPort]) -> str:
    """`text` with each of the container's addresses replaced by its port on loopback."""
    for inside, port in ports.items():
        address = rf"(?:kafka|127\.0\.0\.1)?([:/]){inside}\b"
        text = re.sub(address, rf"127.0.0.1\g<1>{port.number}", text)
    return text


@contextlib.contextmanager
def apache_kafka(directory: Path, *, jvm: Sequence[str] = SHORT_LIVED) -> Iterator[Server]:
    """A running Apache Kafka with its data in `directory`; `address` is the bootstrap server.

    It is set up from the environment of docker-compose.yml by the same program that the
    container image uses. Takes about ten seconds, and on a first run the time to fetch 45 MB.

    Parameters
    ----------
    jvm
        Options of the JVM beside those of docker-compose.yml.
    """
    require_java()
    jars = kafka_jars()
    service = compose()["services"]["kafka"]
    ports = {
        inside: ReservedPort()
        for inside in re.findall(r":(\d+)", service["environment"]["KAFKA_LISTENERS"])
    }
    environment = {
        **INHERITED,
        **{name: _on_loopback(value, ports) for name, value in service["environment"].items()},
        "KAFKA_LOG_DIRS": str(directory / "data"),
    }
    java = [
        "java",
        *environment["KAFKA_HEAP_OPTS"].split(),
        *jvm,
        f"-Dlog4j2.configurationFile={directory / 'log4j2.yaml'}",
        "-cp",
        f"{jars}/*",
    ]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.properties").touch()
    (directory / "log4j2.yaml").write_text(LOG4J)
    if not (directory / "data" / "meta.properties").exists():
        setup = subprocess.run(
            [
                *java,
                "kafka.docker.KafkaDockerWrapper",
                "setup",
                "--default-configs-dir",
                directory,
                "--mounted-configs-dir",
                directory / "mounted",
                "--final-configs-dir",
                directory,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        if setup.returncode != 0:
            raise RuntimeError(f"Apache Kafka could not be set up:\n{setup.stdout[-4000:]}")
    server = Server(
        address=_on_loopback("kafka:9092", ports),
        command=[*java, "kafka.Kafka", str(directory / "server.properties")],
        environment=environment,
        health=[_on_loopback(word, ports) for word in service["healthcheck"]["test"][1:]],
        directory=directory,
    )
    with running(server, *ports.values()):
        yield server


@contextlib.contextmanager
def shared_kafka(directory: Path) -> Iterator[str]:
    """Address of one Apache Kafka for all processes that name the same folder.

    The first starts it, and ends it once no other uses it: each holds a lock until then, which
    the system gives back for a process that dies.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / "address"
    with contextlib.ExitStack() as held:
        with (directory / "starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            is_first = not written.exists()
            if is_first:
                own = Path(tempfile.mkdtemp(dir=directory))
                written.write_text(held.enter_context(apache_kafka(own)).address)
            address = written.read_text()
            used = held.enter_context((directory / "used").open("w"))
            fcntl.flock(used, fcntl.LOCK_SH)
        try:
            yield address
        finally:
            if is_first:
                written.unlink()
                with (directory / "starting").open("w") as starting:
                    fcntl.flock(starting, fcntl.LOCK_EX)
                fcntl.flock(used, fcntl.LOCK_EX)


@contextlib.contextmanager
def debian_redis(directory: Path) -> Iterator[Server]:
    """A running `redis-server` from the PATH with its data in `directory`; `address` is its URL."""
    require("redis-server", "redis-cli")
    service = compose()["services"]["redis"]
    port = ReservedPort()
    program, *arguments = service["command"]
    client, *check = service["healthcheck"]["test"][1:]
    directory.mkdir(parents=True, exist_ok=True)
    server = Server(
        address=f"redis://127.0.0.1:{port.number}/0",
        command=[
            program,
            *arguments,
            "--port",
            str(port.number),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
        ],
        environment=INHERITED,
        health=[client, "-p", str(port.number), *check],
        directory=directory,
    )
    with running(server, port):
        yield server
