"""Three small brokers of Apache Kafka, each of them a controller too, that tests kill and start."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

from ops.drill.servers import LOG4J
from ops.embedded_servers import broker_answers
from tests.servers import INHERITED, kafka_jars, own_ports, require_java, wait_until

BROKERS = 3
JVM = ("-Xms96m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xss512k")
"""Little memory, and little time to start: they have a few messages a second."""

PROPERTIES = """\
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=4
offsets.topic.replication.factor=3
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
replica.lag.time.max.ms=8000
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
"""


class Broker:
    """One of the brokers."""

    def __init__(self, command: Sequence[str], folder: Path, port: int) -> None:
        self.port = port
        self._command, self._folder = command, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or again, on its data; returns at once."""
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=INHERITED,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """True if it serves clients."""
        return broker_answers(self.port)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def kafka_cluster(directory: Path) -> Iterator[list[Broker]]:
    """Running brokers; topics have three replicas, of which two acknowledge what is written."""
    require_java()
    jars, first = kafka_jars(), own_ports(2 * BROKERS)
    numbers = range(1, BROKERS + 1)
    controllers = {number: first + BROKERS + number - 1 for number in numbers}
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in controllers.items())
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    brokers = []
    for number in numbers:
        folder = directory / f"broker-{number}"
        folder.mkdir(parents=True)
        (folder / "log4j2.yaml").write_text(LOG4J)
        properties, port = folder / "server.properties", first + number - 1
        properties.write_text(
            PROPERTIES.format(
                number=number, voters=voters, port=port, controller=controllers[number],
                folder=folder.resolve(),
            )
        )  # fmt: skip
        logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}"
        java = ["java", *JVM, logging, "-cp", f"{jars}/*"]
        subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)],
            env=INHERITED, capture_output=True, stdin=subprocess.DEVNULL, timeout=240, check=True,
        )  # fmt: skip
        brokers.append(Broker([*java, "kafka.Kafka", str(properties)], folder, port))
    try:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            wait_until(broker.answers, within_s=240, what=f"the broker at {broker.port} answers")
        yield brokers
    finally:
        for broker in brokers:
            broker.kill()
