"""A stack for end-to-end tests: servers, the product's own processes, an HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr
from redis import Redis as RedisConnection

from models.settings import Settings
from models.state.clients.client import client_of
from models.state.groups.group_registry import REGISTRY
from models.state.shards.sharded_store import store_of
from models.state.shards.stored_layout import settings_on_stored_shards
from models.state.store import Store
from models.state.tenants import Tenants
from ops.embedded_servers import Server as EmbeddedServer
from ops.embedded_servers import start_broker, start_redis
from ops.forked_processes import ForkedProcess
from streams.kafka.topics import ensure_topics
from streams.operations.status import Status, read_status
from tests.forked_processes import command_result, start_command
from tests.openapi_document import check_answer
from tests.servers import ROOT, debian_redis, own_port, shared_kafka, wait_until

T = TypeVar("T")
PATIENCE_S = 180.0
EMBEDDED_SESSION_TIMEOUT_S = 2.0
_numbers = itertools.count()


@dataclass
class Redis:
    """A Redis server that tests stop, kill and restart on its port and data."""

    url: str
    data: Path
    stop: Callable[[], object]
    kill: Callable[[], object]
    start: Callable[[], object]

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Stopped within the block, and started again whatever fails in it: tests share it."""
        self.stop()
        try:
            yield
        finally:
            self.start()


@dataclass
class Servers:
    """Kafka and Redis, both embedded or both real.

    Attributes
    ----------
    session_timeout_s
        Apache Kafka allows no less than 6 s, the embedded broker does.
    """

    kafka: str
    redis: Redis
    session_timeout_s: float = 6.0


@contextlib.contextmanager
def embedded_servers(directory: Path) -> Iterator[Servers]:
    """The embedded broker and Redis."""
    broker = start_broker(directory)
    port = own_port()
    running = {"redis": start_redis(directory, port=port)}

    def kill() -> None:
        running["redis"].process.kill()
        running["redis"].process.wait()

    def start() -> EmbeddedServer:
        running["redis"] = start_redis(directory, port=port)
        return running["redis"]

    url, data = running["redis"].url, directory / "redis"

    def stop() -> None:
        running["redis"].stop()

    try:
        yield Servers(
            broker.address, Redis(url, data, stop, kill, start), EMBEDDED_SESSION_TIMEOUT_S
        )
    finally:
        running["redis"].stop()
        broker.stop()


@contextlib.contextmanager
def apache_servers(directory: Path, shared: Path) -> Iterator[Servers]:
    """Apache Kafka and the Redis of the PATH, as docker-compose.yml runs them.

    All processes with the same folder `shared` have one Kafka; each may stop its own Redis.
    """
    redis_dir = directory / "redis"
    with shared_kafka(shared) as kafka, debian_redis(redis_dir) as redis:
        yield Servers(kafka, Redis(redis.address, redis_dir, redis.stop, redis.kill, redis.start))


@dataclass
class Stack:
    """A group on running servers, with the processes that a test has started."""

    servers: Servers
    settings: Settings
    logs: Path
    environment: dict[str, str]
    processes: list[ForkedProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.settings.port}"

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return command_result(
            arguments, environment=self.environment | extra, directory=ROOT, within_s=300
        )

    def start(self, *arguments: str, **extra: str) -> ForkedProcess:
        """Start a command without end; it is stopped after the test."""
        process = start_command(
            arguments,
            environment=self.environment | extra,
            directory=ROOT,
            output=self.logs / f"{arguments[0]}-{len(self.processes)}.log",
        )
        self.processes.append(process)
        return process

    def log(self) -> str:
        """Output of all processes."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.logs.iterdir())
        )

    @contextlib.contextmanager
    def serving(self) -> Iterator[Stack]:
        """Topics, a worker and an API within the block; their processes end after it."""
        ensure_topics(self.settings)
        self.start("worker")
        self.start("api")
        try:
            self.wait_ready()
            yield self
        finally:
            self.stop_all()

    def stop_all(self) -> None:
        """End every process, by SIGKILL after a time limit."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of a request; 0 and the error without an answer.

        An answer that the API reference does not describe fails the test.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, content = answer.status, answer.read()
                media_type = answer.headers["content-type"] or ""
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read()
                media_type = error.headers["content-type"] or ""
        except OSError as error:
            return 0, str(error)
        check_answer(method, path, sent=body, status=status, media_type=media_type, content=content)
        return status, json.loads(content) if content[:1] in b"{[" else content

    def click(
        self,
        item: str,
        *,
        user: str | None = None,
        session: str = "s",
        tracking_id: str | None = None,
    ) -> str:
        """Send a click; gives its token."""
        message: dict[str, Any] = {
            "sessionId": session,
            "eventList": [{"eventType": "click", "itemId": item, "sentAt": time.time()}],
        }
        if user:
            message["userId"] = user
        if tracking_id:
            message["trackingId"] = tracking_id
        status, answer = self.ask("POST", "/events", message)
        assert status == 202, answer
        return str(answer["after"])

    def recommend(self, query: str) -> dict[str, Any]:
        """The answer of /recommend."""
        status, answer = self.ask("GET", f"/recommend?{query}")
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    def stored(self, read: Callable[[Store], Awaitable[T]], *, group: str | None = None) -> T:
        """Read from the store of a group, by default that of the settings."""
        name = group or self.settings.group

        async def reading() -> T:
            settings = self.settings.model_copy(update={"group": name})
            client = client_of(settings)
            try:
                return await read(
                    store_of(client, await settings_on_stored_shards(client, settings))
                )
            finally:
                await client.aclose()

        return asyncio.run(reading())

    def counts(self, *, group: str | None = None) -> dict[str, float]:
        """A group's counters."""
        return self.stored(lambda store: store.counts(), group=group)

    def status(self) -> Status:
        """The data of `recommender status`, without the start of a process."""
        return asyncio.run(read_status(self.settings, now_s=time.time()))

    def tenant(self, name: str) -> str:
        """Register another group, whose tracking id is its name."""
        group = f"{self.settings.group}-{name}"

        async def register() -> None:
            tenants = Tenants(client_of(self.settings), self.settings)
            await tenants.register(group, group)
            await tenants.redis.aclose()

        asyncio.run(register())
        return group

    def wait(self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Wait until the condition holds; fail with the processes' logs."""
        try:
            wait_until(condition, within_s=within_s, what=what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log()}") from error

    def wait_ready(self) -> None:
        """Wait until an event sent over HTTP takes effect."""
        self.wait(lambda: self.ask("GET", "/readyz")[0] == 200, "the API is ready")
        after = self.click("warm", session="warm")
        self.wait(
            lambda: bool(self.recommend(f"after={after}")["freshness"]["afterReached"]),
            "a first event is in effect",
        )


@contextlib.contextmanager
def make_stacks(servers: Servers, directory: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks with topics of their own; ends their processes afterwards."""
    made: list[Stack] = []

    def make(**settings: Any) -> Stack:
        number = next(_numbers)
        one = new_stack(servers, own_name(f"t{number}"), directory / str(number), **settings)
        ensure_topics(one.settings)
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.stop_all()


@contextlib.contextmanager
def deployment_as_before(servers: Servers) -> Iterator[None]:
    """What belongs to no group of a shared Redis is after the block as it was before.

    API keys, registered groups and trackers, and Amazon Personalize's resources would otherwise be
    found by whichever test comes next.
    """
    with RedisConnection.from_url(servers.redis.url) as client:
        found = {key: (client.pttl(key), client.dump(key)) for key in _of_deployment(client)}
    try:
        yield
    finally:
        with RedisConnection.from_url(servers.redis.url) as client:
            for key in _of_deployment(client):
                client.delete(key)
            for key, (ttl_ms, value) in found.items():
                client.restore(key, max(ttl_ms, 0), value)


def _of_deployment(client: RedisConnection) -> list[bytes]:
    return [*client.scan_iter(f"{{{REGISTRY}}}:*", count=1000)]


def own_name(name: str) -> str:
    """A name that no other process of the tests has: they share Apache Kafka."""
    return f"{os.environ.get('PYTEST_XDIST_WORKER', '')}{name}"


def new_stack(servers: Servers, name: str, directory: Path, **settings: Any) -> Stack:
    """A stack with a group and topics of its own on shared servers; nothing runs yet.

    It has fewer partitions than usual: a broker looks through all of them at each fetch.
    """
    settings = {
        "kafka": servers.kafka,
        "redis": servers.redis.url,
        "partitions": 4,
        "session_timeout_s": servers.session_timeout_s,
        **settings,
    }
    directory.mkdir(parents=True, exist_ok=True)
    logs = directory / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    chosen = Settings(
        group=name,
        topic_prefix=f"{name}.",
        data_dir=directory,
        port=own_port(),
        **settings,
    )
    environment = {
        **os.environ,
        **{
            f"RECOMMENDER_{field.upper()}": value if isinstance(value, str) else json.dumps(value)
            for field, value in (chosen.model_dump(mode="json") | _secrets(chosen)).items()
            if field in {"group", "topic_prefix", "data_dir", "port", *settings}
        },
    }
    return Stack(servers, chosen, logs, environment)


def _secrets(settings: Settings) -> dict[str, str]:
    """Secrets that are set; a dump hides them."""
    return {
        name: value.get_secret_value()
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), SecretStr) and value
    }
