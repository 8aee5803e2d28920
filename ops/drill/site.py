"""The system under test: servers, workers and an API, with proxies between them."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import CannotStart, RecommenderError
from models.settings import Settings
from ops.drill.load import Load
from ops.drill.lost_tails import Tail
from ops.drill.proxy import TcpProxy
from ops.drill.reads import redis_command
from ops.drill.servers import ThrowawayServer
from ops.drill.site_processes import Processes, RestartedProcess

SNAPSHOTS = 4
"""States of Redis that are kept at a time."""

AOF = "appendonlydir"
READY_S = 180.0
SEEN_WITHIN_S = 60.0
"""A process that was killed has connections again by then."""

POWERS = {
    "redis": "a Redis of its own, to stop and to give older data",
    "kafka": "a Kafka of its own, to pause",
    "apache": "an Apache Kafka of its own, to restart and to give an older log",
    "kafka-proxy": "a proxy before Kafka",
    "redis-proxy": "a proxy before Redis",
}
"""Powers of a site: what it may permit the drill to do."""


class Interrupted(RecommenderError):
    """The drill ends before it is complete."""


class NotSeen(RecommenderError):
    """A fault had no effect."""


@dataclass
class Site:
    """All processes, with operations for the faults.

    Attributes
    ----------
    settings
        Of the dataset group that is drilled, with the servers' own addresses.
    redis, kafka
        Servers that the drill may stop; `None` where they are somebody's.
    """

    directory: Path
    settings: Settings
    powers: frozenset[str]
    processes: Processes
    load: Load
    workers: list[RestartedProcess]
    api: RestartedProcess
    kafka_proxy: TcpProxy | None
    redis_proxies: list[TcpProxy]
    environments: list[dict[str, str]]
    own_redis: ThrowawayServer | None = None
    own_kafka: ThrowawayServer | None = None
    snapshots: list[Path] = field(default_factory=list)
    poison: set[tuple[str, int, int]] = field(default_factory=set)
    lost_poison: set[tuple[str, int, int]] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    tails: list[Tail] = field(default_factory=list)
    guests: list[RestartedProcess] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def redis(self) -> ThrowawayServer:
        """The Redis of this drill, of a site with the power `redis`."""
        if self.own_redis is None:
            raise NotSeen("this Redis is somebody's")
        return self.own_redis

    @property
    def kafka(self) -> ThrowawayServer:
        """The Kafka of this drill, of a site with the power `kafka`."""
        if self.own_kafka is None:
            raise NotSeen("this Kafka is somebody's")
        return self.own_kafka

    def ask_redis(self, *words: str | int) -> Any:  # noqa: ANN401  of any command
        """The answer of Redis itself to a command, past the proxies."""
        return redis_command(self.settings, *words)

    def pause(self, chance: random.Random, least_s: float, most_s: float) -> None:
        """Wait for a time drawn between the two.

        Raises
        ------
        Interrupted
            The drill ends meanwhile.
        """
        self.wait(chance.uniform(least_s, most_s))

    def wait(self, for_s: float) -> None:
        """Wait; raises `Interrupted` if the drill ends meanwhile."""
        if self.ending.wait(for_s):
            raise Interrupted("the drill ends")

    def wait_until(self, condition: Callable[[], bool], *, within_s: float, what: str) -> None:
        """Wait until a condition holds; raises `Interrupted`, or `TimeoutError` with `what`."""
        until_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until_s:
                raise TimeoutError(f"{what}: not within {within_s:g} s")
            self.wait(0.05)

    def seen(self, act: Callable[[], int], what: str) -> int:
        """Result of `act` once it is not 0: how often a fault was seen to have an effect.

        Raises
        ------
        NotSeen
            It has given 0 for so long.
        """
        until_s = time.monotonic() + SEEN_WITHIN_S
        while not (found := act()):
            if time.monotonic() > until_s:
                raise NotSeen(f"no effect was seen: {what}")
            self.wait(0.05)
        return found

    def up(self) -> None:
        """Restart processes that ended by themselves, and record it."""
        for process in (*self.workers, self.api):
            if process.lock.acquire(blocking=False):
                try:
                    if process.running is not None:
                        process.up()
                finally:
                    process.lock.release()

    def wait_ready(self) -> None:
        """Wait until an event that is sent over HTTP takes effect.

        Raises
        ------
        CannotStart
            None does, with the ends of the processes' logs.
        """
        until_s = time.monotonic() + READY_S
        while not self.load.probe(within_s=5):
            self.up()
            if time.monotonic() > until_s:
                raise CannotStart(f"no event takes effect\n{self.processes.log_tails()}")
            self.wait(0.1)

    def end(self) -> None:
        """End the project's processes; a fault that is still under way starts none again."""
        self.ending.set()
        for process in (*self.workers, *self.guests, self.api):
            process.is_over = True
        self.processes.kill_all()

    def guest(self) -> RestartedProcess:
        """A worker more, for a while."""
        guest = self.processes.restarted("guest", "worker", self.environments[0])
        self.guests.append(guest)
        guest.up()
        return guest

    def take_snapshot(self) -> None:
        """Keep the data of Redis as they are on disk at this moment; nothing of somebody's."""
        if self.own_redis is None:
            return
        target = self.directory / "snapshots" / str(time.monotonic_ns())
        with self.redis.paused():
            shutil.copytree(self.redis.data / AOF, target)
        self.snapshots.append(target)
        while len(self.snapshots) > SNAPSHOTS:
            shutil.rmtree(self.snapshots.pop(0))

    def forget_snapshots(self) -> None:
        """Discard the snapshots of Redis."""
        while self.snapshots:
            shutil.rmtree(self.snapshots.pop())

    def restore(self, snapshot: Path) -> None:
        """Redis crashes and restarts with the data of a snapshot."""
        self.redis.kill()
        shutil.rmtree(self.redis.data / AOF)
        shutil.copytree(snapshot, self.redis.data / AOF)
        self.redis.start()


def stop_orderly(site: Site) -> None:
    """Stop what workers and the API do; each must end in time and without an error."""
    for process in (*site.workers, site.api):
        process.down(signal.SIGTERM)
