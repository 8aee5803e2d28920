"""The API in this process on a real port, with an embedded Redis and a fake publisher."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httptools
import uvicorn

from api.app import create_app
from api.dependencies import EventPublisher
from api.read_your_writes import LoadIncarnations
from api.server.server_options import server_options
from models.audit_entries import AuditEntry
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.embedded_servers import start_redis
from tests.servers import own_port

PATIENCE_S = 60.0


async def _written(_: AuditEntry) -> None:
    """Take an entry of the audit log."""


async def _none_written(_: int) -> list[AuditEntry]:
    """No entries of the audit log."""
    return []


async def _sent(_: Sequence[tuple[bytes, bytes]]) -> None:
    """Take served lists."""


@dataclass(frozen=True)
class FakePublisher:
    """A publisher whose methods a test provides."""

    publish: Callable[..., Awaitable[str]]
    put: Callable[..., Awaitable[str]]
    incarnations: LoadIncarnations
    missing: Callable[[], Awaitable[list[str]]]
    audit: Callable[[AuditEntry], Awaitable[None]] = _written
    put_served: Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[None]] = _sent

    audit_entries: Callable[[int], Awaitable[list[AuditEntry]]] = _none_written

    async def close(self) -> None:
        """Nothing is connected."""


@dataclass(frozen=True)
class Reply:
    """An answer as received over a socket."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A socket to the API, for requests that no HTTP client sends."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send data, as far as the server reads it before it closes the connection."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def reply(self, *, to: str = "GET") -> Reply:
        """The next answer; fails if the connection ends before it is complete."""
        parsed = _Answer()
        parser = httptools.HttpResponseParser(parsed)
        head, _, rest = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        parser.feed_data(head + b"\r\n\r\n")
        length = 0 if to == "HEAD" else int(parsed.headers.get("content-length", "0"))
        while len(rest) < length:
            rest += self._more()
        self._received = rest[length:]
        return Reply(parser.get_status_code(), parsed.headers, rest[:length])

    def rest(self) -> bytes:
        """All data until the connection ends."""
        received, self._received = self._received, b""
        with contextlib.suppress(ConnectionError):
            while data := self.socket.recv(65536):
                received += data
        return received

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._received += self._more()
        return self._received

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended after {self._received[:200]!r}")
        return data


class _Answer:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()


@dataclass(frozen=True)
class Api:
    """A running API."""

    port: int

    def client(self) -> Client:
        """A new connection."""
        return Client(self.port)

    def ask(self, request: bytes | str, *, method: str = "GET") -> Reply:
        """The answer to a request on a connection of its own."""
        with self.client() as client:
            client.send(request.encode() if isinstance(request, str) else request)
            return client.reply(to=method)

    def get(self, path: str, *headers: str, method: str = "GET") -> Reply:
        """The answer to a request without a body; `Host: localhost` unless overridden."""
        return self.ask(request(path, *headers, method=method), method=method)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a counter or gauge; 0 without the series."""
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        series = f"{name}{{{shown}}} " if labels else f"{name} "
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith(series):
                return float(line.removeprefix(series))
        return 0.0


def request(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request; `Host: localhost` unless overridden."""
    lines = [f"{method} {path} HTTP/1.1"]
    if not any(header.lower().startswith("host:") for header in headers):
        lines.append("Host: localhost")
    lines += headers
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def run_api(
    directory: Path, *, kafka: EventPublisher | None = None, **settings: Any
) -> Iterator[Api]:
    """An API on a port of its own, with a Redis of its own."""
    redis = start_redis(directory)
    try:
        with serve_api(Settings(redis=redis.url, port=own_port(), **settings), kafka) as one:
            yield one
    finally:
        redis.stop()


@contextlib.contextmanager
def serve_api(settings: Settings, kafka: EventPublisher | None = None) -> Iterator[Api]:
    """An API with these settings, whose Redis must run."""
    app = create_app(
        settings, Store(connect(settings.redis), settings), kafka or accepting_publisher()
    )
    server = uvicorn.Server(uvicorn.Config(app, **server_options(settings, app.state.gates)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "the API has started")
        yield Api(settings.port)
    finally:
        server.should_exit = True
        thread.join()


def accepting_publisher(**overridden: Any) -> EventPublisher:
    """A publisher that accepts everything at once."""

    async def taken(*_: object) -> str:
        return "c0-0"

    async def incarnations() -> dict[str, str]:
        return {"clicks": "a", "purchases": "b", "items": "c", "users": "d"}

    async def missing() -> list[str]:
        return []

    made: dict[str, Any] = {
        "publish": taken,
        "put": taken,
        "incarnations": incarnations,
        "missing": missing,
    }
    return FakePublisher(**(made | overridden))
