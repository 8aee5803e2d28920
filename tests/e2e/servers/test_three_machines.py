"""What docs/deploy.md tells to do, done on one machine: three servers of each, and one is lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from ops.drill.servers import LOG4J
from tests.redis_servers import Node
from tests.redis_servers import running as running_redis
from tests.servers import (
    INHERITED,
    ROOT,
    SHORT_LIVED,
    Server,
    kafka_jars,
    own_port,
    require_java,
)
from tests.stack import Redis, Servers, Stack

pytestmark = pytest.mark.kafka

DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()
MACHINES = ("m1", "m2", "m3")
PORTS = (9092, 9093, 6379, 26379)
PROGRAMS = {
    "bin/kafka-storage.sh": "kafka.tools.StorageTool",
    "bin/kafka-server-start.sh": "kafka.Kafka",
}
"""The class that each of Kafka's scripts runs."""


def block(language: str, containing: str) -> str:
    """The one block of the document in a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    [found] = [one for one in blocks if containing in one]
    return str(found)


@dataclass(frozen=True)
class Addresses:
    """Ports of loopback in place of the machines' own."""

    ports: dict[tuple[str, int], int]

    def placed(self, text: str, machine: str) -> str:
        """A text of the document as it is on a machine."""
        for (name, inside), port in self.ports.items():
            text = re.sub(rf"\b{name}([: ]){inside}\b", rf"127.0.0.1\g<1>{port}", text)
            if name == machine:
                text = text.replace(f"//:{inside}", f"//127.0.0.1:{port}")
        return text.replace("bind * -::*", "bind 127.0.0.1")


@contextlib.contextmanager
def kafka(directory: Path, at: Addresses) -> Iterator[list[Server]]:
    """Three brokers with the document's properties, formatted and started by its commands."""
    require_java()
    java = [
        *("java", "-Xms128m", "-Xmx384m", *SHORT_LIVED),
        f"-Dlog4j2.configurationFile={directory / 'log4j2.yaml'}",
        *("-cp", f"{kafka_jars()}/*"),
    ]
    directory.mkdir()
    (directory / "log4j2.yaml").write_text(LOG4J)
    lines = [shlex.split(line) for line in block("sh", "kafka-storage.sh").splitlines()]
    [_, formatting, starting] = [[*java, PROGRAMS[words[0]], *words[1:]] for words in lines]
    brokers = []
    for number, machine in enumerate(MACHINES, start=1):
        folder = directory / machine
        (folder / "config").mkdir(parents=True)
        properties = at.placed(block("properties", "process.roles"), machine)
        properties = properties.replace("node.id=1", f"node.id={number}")
        properties = properties.replace("PLAINTEXT://m1:", f"PLAINTEXT://{machine}:")
        own = at.ports[machine, 9092]
        properties = re.sub(
            r"(advertised.listeners=PLAINTEXT://).*", rf"\g<1>127.0.0.1:{own}", properties
        )
        properties = properties.replace("/var/lib/kafka", str(folder / "data"))
        (folder / "config" / "server.properties").write_text(properties)
        brokers.append(
            Server(
                address=f"127.0.0.1:{own}",
                command=[word for word in starting if word != "-daemon"],
                environment=INHERITED,
                health=["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{own}"],
                directory=folder,
            )
        )
    words = [word.replace("THE-ID", "c3RyZWFtLXJlY29tbWVuZA") for word in formatting]
    for broker in brokers:
        subprocess.run(
            words, cwd=broker.directory, env=INHERITED, check=True, timeout=120,
            stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
    try:
        # Together: one alone waits for the others.
        with concurrent.futures.ThreadPoolExecutor(len(brokers)) as pool:
            list(pool.map(Server.start, brokers))
        yield brokers
    finally:
        # Not asked to end, for the last one would wait for the others.
        for broker in brokers:
            broker.kill()


@contextlib.contextmanager
def redis(directory: Path, at: Addresses) -> Iterator[tuple[list[Node], list[Node]]]:
    """Primary and replica, and the Sentinels, with the document's configurations."""
    server, sentinel = block("conf", "appendonly"), block("conf", "sentinel monitor")
    [follow] = re.findall(r"`(replicaof .*?)`", DOCUMENT)
    servers, sentinels = [], []
    for machine in MACHINES:
        port = at.ports[machine, 6379]
        lines = [at.placed(server, machine), f"port {port}", 'save ""']
        if machine == "m2":
            lines.append(at.placed(follow, machine))
        if machine != "m3":
            servers.append(Node(port, directory / machine, lines))
        port = at.ports[machine, 26379]
        lines = [at.placed(sentinel, machine), f"port {port}"]
        sentinels.append(Node(port, directory / f"sentinel-{machine}", lines, ("--sentinel",)))
    with running_redis([*servers, *sentinels]):
        yield servers, sentinels


def stack(directory: Path, at: Addresses) -> Stack:
    """The recommender of one machine, with the document's settings file and secret."""
    directory.mkdir()
    (directory / "logs").mkdir()
    config, secret = directory / "recommender.toml", directory / "redis"
    config.write_text(at.placed(block("toml", "redis_sentinel_master"), "m1"))
    [url] = re.findall(r"echo '(redis://.*?)'", DOCUMENT)
    secret.write_text(at.placed(url, "m1") + "\n")
    variables = {
        "RECOMMENDER_CONFIG": str(config),
        "RECOMMENDER_REDIS_FILE": str(secret),
        "RECOMMENDER_PORT": str(own_port()),
        "RECOMMENDER_DATA_DIR": str(directory),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = Settings()

    def nothing() -> None:
        pass

    servers = Servers(settings.kafka, Redis(settings.redis, directory, nothing, nothing, nothing))
    return Stack(servers, settings, directory / "logs", {**os.environ, **variables})


def click(one: Stack, number: int) -> None:
    """Send an event until it is accepted, as a sender does."""
    event = {"eventId": f"e{number}", "eventType": "click", "itemId": "tent", "sentAt": time.time()}
    body = {"userId": f"u{number}", "sessionId": f"s{number}", "eventList": [event]}
    one.wait(lambda: one.ask("POST", "/events", body)[0] == 202, "an event is accepted")


def n_events(one: Stack) -> float:
    """Events in effect; -1 while no primary answers."""
    try:
        return one.counts().get("events", 0.0)
    except AWAY_ERRORS:
        return -1.0


def test_one_machine_may_be_lost(tmp_path: Path) -> None:
    """Every command and file of the document works; then answers go on, and each event counts."""
    at = Addresses({(name, inside): own_port() for name in MACHINES for inside in PORTS})
    with kafka(tmp_path / "kafka", at) as brokers, redis(tmp_path / "redis", at) as found:
        servers, sentinels = found
        first, second = (stack(tmp_path / name, at) for name in ("first", "second"))
        try:
            for line in block("sh", "recommender topics").splitlines()[1:]:
                _, *arguments = shlex.split(line)
                ended = first.run(*arguments)
                assert ended.returncode == 0, ended.stderr
            for one in (first, second):
                one.start("worker")
                one.start("api")
                one.wait_ready()
            n_before = n_events(second)
            for number in range(20):
                click(first, number)
            second.wait(lambda: n_events(second) == n_before + 20, "in effect")

            for process in first.processes:
                process.kill()
            for node in (brokers[0], servers[0], sentinels[0]):
                node.kill()
            for number in range(20, 40):
                click(second, number)
                assert second.recommend(f"user_id=u{number}")["items"]
            second.wait(lambda: n_events(second) >= n_before + 40, "in effect without a machine")
            assert n_events(second) == n_before + 40
            assert second.status().lag == 0
        finally:
            first.stop_all()
            second.stop_all()
