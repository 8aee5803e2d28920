"""Requests that come while their gate is full: refused by the server's protocol, which goes on."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.server.admission import Gate
from api.server.server_options import server_options
from models.settings import Settings
from tests.servers import own_port, wait_until

ANSWER = "answered"


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers everything, whatever the gates say."""
    assert scope["type"] == "http"
    await PlainTextResponse(ANSWER)(scope, receive, send)


@pytest.fixture(scope="module")
def gate() -> Gate:
    """One that lets one request in."""
    return Gate(1, "answers", "Redis", clock=lambda: 0.0)


@pytest.fixture(scope="module")
def port(gate: Gate) -> Iterator[int]:
    """A server with that gate in front of two routes."""
    settings = Settings(port=own_port())
    gates = {("GET", "/recommend"): gate, ("POST", "/events"): gate}
    options = server_options(settings, gates) | {"lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(application, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started, within_s=30, what="the server has started")
    yield settings.port
    server.should_exit = True
    thread.join()


@contextlib.contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection that stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    yield connection
    connection.close()


def test_refused_and_answered_on_one_connection(gate: Gate, port: int) -> None:
    """With the headers of every answer; the body of a refused request is dropped."""
    with connected(port) as connection:
        for method, path, body in (
            ("GET", "/recommend?user_id=u", None),
            ("POST", "/events", b"x" * 100_000),
        ):
            with gate:
                connection.request(method, path, body)
                response = connection.getresponse()
                error = json.loads(response.read())["error"]
            assert (response.status, error["type"]) == (429, "overloaded")
            assert "Redis" in error["message"]
            assert response.headers["retry-after"] == "1"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["date"]
            connection.request(method, path, body)
            response = connection.getresponse()
            assert (response.status, response.read().decode()) == (200, ANSWER)


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/health", {}),
        ("POST", "/recommend", {}),
        ("HEAD", "/recommend", {}),
        ("GET", "/recommend", {"Origin": "https://shop.example"}),
    ],
)
def test_other_requests_reach_the_application(
    gate: Gate, port: int, method: str, path: str, headers: dict[str, str]
) -> None:
    """It knows which of them wait for the server, and the headers that a page needs."""
    with connected(port) as connection, gate:
        connection.request(method, path, headers=headers)
        assert connection.getresponse().status == 200


def test_requests_in_one_packet_are_answered_in_order(gate: Gate, port: int) -> None:
    """Whoever refuses them: the protocol at once, or the application when their turn comes."""
    one = b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n"
    last = b"GET /recommend HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, gate:
        client.sendall(one % b"/recommend" + one % b"/health" + one % b"/recommend" + last)
        received = b""
        while data := client.recv(65536):
            received += data
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses[:2] == [b"429", b"200"]
    assert statuses[3] == b"429"
    assert received.count(b"connection: close") == 1
    assert len(statuses) == 4


def test_a_client_of_http_1_0_is_left(gate: Gate, port: int) -> None:
    """It reads until the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, gate:
        client.sendall(b"GET /recommend HTTP/1.0\r\n\r\n")
        received = b""
        while data := client.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")


def test_as_many_as_fit_are_let_through_at_once() -> None:
    """Requests of one step of the event loop count before they have entered."""

    class Loop:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def call_soon(self, call: object) -> None:
            self.calls.append(call)

    loop, gate = Loop(), Gate(3, "answers", "Redis", clock=lambda: 0.0)
    with gate:
        refused = [gate.announce(loop) is not None for _ in range(5)]  # type: ignore[arg-type]
    assert refused == [False, False, True, True, True]
    (forget,) = loop.calls
    assert callable(forget)
    forget()
    assert gate.announce(loop) is None  # type: ignore[arg-type]
