"""The system under test: Apache Kafka, Redis, workers and an API, with proxies between them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis as Client

from ops.forked_processes import ForkedProcess
from streams.kafka.topics import Topics, ensure_topics
from tests.drill.load import Load
from tests.drill.proxy import TcpProxy
from tests.drill.tails import Tail
from tests.servers import ROOT, Server, apache_kafka, debian_redis, own_port
from tests.stack import Redis, Servers, Stack, new_stack

WORKERS = 2
STOP_WITHIN_S = 60.0
SNAPSHOTS = 4
AOF = "appendonlydir"


@dataclass
class Process:
    """A process of the project, restarted under the same name.

    Attributes
    ----------
    ended
        Exit codes of its unexpected ends.
    is_over
        True if it is not restarted, because the site ends.
    """

    name: str
    start: Callable[[], ForkedProcess]
    running: ForkedProcess | None = None
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

    def down(self, by: signal.Signals) -> None:
        """Stop it; after SIGTERM it must end in time and without an error."""
        with self.lock:
            process, self.running = self.running, None
            if process is None:
                return
            code = process.poll()
            if code is None:
                process.send_signal(by)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(STOP_WITHIN_S)
            if code is None:
                process.kill()
                process.wait()
            # A signal during the start or the very end makes SIGTERM its exit status.
            if code is None or (by is signal.SIGTERM and code not in {0, -signal.SIGTERM}):
                self.ended.append(-signal.SIGKILL if code is None else code)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Not scheduled meanwhile, as on a machine that swaps or a virtual one that is moved."""
        with self.lock:
            self.up()
            assert self.running is not None
            pid = self.running.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.kill(pid, signal.SIGCONT)


@dataclass
class Site:
    """All processes, with operations for the faults."""

    directory: Path
    kafka: Server
    redis: Server
    stack: Stack
    load: Load
    workers: list[Process]
    api: Process
    kafka_proxy: TcpProxy
    redis_proxies: list[TcpProxy]
    environments: list[dict[str, str]]
    snapshots: list[Path] = field(default_factory=list)
    poison: set[tuple[str, int, int]] = field(default_factory=set)
    lost_poison: set[tuple[str, int, int]] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    tails: list[Tail] = field(default_factory=list)
    guests: list[Process] = field(default_factory=list)

    @property
    def client(self) -> Client:
        """A client of Redis itself, past the proxies."""
        return Client.from_url(self.redis.address, socket_timeout=10)

    def up(self) -> None:
        """Restart processes that ended by themselves, and record it."""
        for process in (*self.workers, self.api):
            if process.lock.acquire(blocking=False):
                try:
                    if process.running is not None:
                        process.up()
                finally:
                    process.lock.release()

    def end(self) -> None:
        """End the project's processes; a fault that is still under way starts none again."""
        for process in (*self.workers, *self.guests, self.api):
            process.is_over = True
        self.stack.stop_all()

    def guest(self) -> Process:
        """A worker more, for a while."""
        environment = self.environments[0]
        guest = Process("guest", lambda: self.stack.start("worker", **environment))
        self.guests.append(guest)
        guest.up()
        return guest

    def take_snapshot(self) -> None:
        """Keep the data of Redis as they are on disk at this moment."""
        target = self.directory / "snapshots" / str(time.monotonic_ns())
        with frozen(self.redis):
            shutil.copytree(self.redis.directory / AOF, target)
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
        shutil.rmtree(self.redis.directory / AOF)
        shutil.copytree(snapshot, self.redis.directory / AOF)
        self.redis.start()


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    """A server that is not scheduled meanwhile."""
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2].partition("/")[0])


@contextlib.contextmanager
def site(directory: Path, *, seed: int, per_s: float) -> Iterator[Site]:
    """A running site without load; all of it ends at the end."""
    with contextlib.ExitStack() as closing:
        listeners: dict[str, int] = {}
        kafka_proxy = closing.enter_context(TcpProxy(lambda: listeners["HOST"]))
        kafka = closing.enter_context(
            apache_kafka(directory / "kafka", proxy_port=kafka_proxy.port)
        )
        for listener in kafka.environment["KAFKA_LISTENERS"].split(","):
            listeners[listener.partition(":")[0]] = _port(listener)
        server = closing.enter_context(debian_redis(directory / "redis"))
        redis_port = _port(server.address)
        redis_proxies = [
            closing.enter_context(TcpProxy(lambda: redis_port)) for _ in range(WORKERS + 1)
        ]
        handle = Redis(server.address, server.directory, server.stop, server.kill, server.start)
        stack = new_stack(
            Servers(kafka.address, handle), "drill", directory / "drill", partitions=8
        )
        ensure_topics(stack.settings)
        environments = [
            {
                "RECOMMENDER_KAFKA": f"127.0.0.1:{kafka_proxy.port}",
                "RECOMMENDER_REDIS": f"redis://127.0.0.1:{proxy.port}/0",
            }
            for proxy in redis_proxies
        ]
        *of_workers, of_api = environments

        def worker(environment: dict[str, str]) -> Callable[[], ForkedProcess]:
            return lambda: stack.start(
                "worker", **environment, RECOMMENDER_METRICS_PORT=str(own_port())
            )

        load = Load(
            seed=seed,
            port=stack.settings.port,
            kafka=kafka.address,
            topics=Topics.of(stack.settings),
            per_s=per_s,
            start_s=int(time.time()) - 3 * 86400,
        )
        one = Site(
            directory=directory,
            kafka=kafka,
            redis=server,
            stack=stack,
            load=load,
            workers=[
                Process(f"worker{n}", worker(environment))
                for n, environment in enumerate(of_workers)
            ],
            api=Process("api", lambda: stack.start("api", **of_api)),
            kafka_proxy=kafka_proxy,
            redis_proxies=redis_proxies,
            environments=environments,
        )
        closing.callback(one.end)
        # Compiled once, and not by every process at the same time.
        compiled = [sys.executable, "-c", "import models.serving.recommender"]
        subprocess.run(compiled, cwd=ROOT, check=True, timeout=900)
        for process in (*one.workers, one.api):
            process.up()
        stack.wait_ready()
        yield one


def pause(chance: random.Random, least_s: float, most_s: float) -> None:
    """Wait for a time drawn between the two."""
    time.sleep(chance.uniform(least_s, most_s))
