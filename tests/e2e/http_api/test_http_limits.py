"""Hostile and broken HTTP clients: they get an answer, or the connection is cut."""

from __future__ import annotations

import logging
import logging.handlers
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as some

from api.server import connections
from tests.api_server import Api, Client, request, run_api, wait_for

MEBIBYTE = 1024 * 1024
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def one(tmp_path_factory: Any) -> Iterator[Api]:
    """An API with short time limits."""
    with (
        pytest.MonkeyPatch.context() as patched,
        run_api(
            tmp_path_factory.mktemp("api"),
            head_timeout_s=0.3,
            body_timeout_s=0.3,
            write_timeout_s=1,
            keep_alive_s=1,
            after_timeout_s=30,
        ) as made,
    ):
        patched.setattr(connections, "SWEEP_S", 0.05)
        yield made


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (GET + b"X: " + b"x" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (GET + b"X: y\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (GET + b"X" * 100_000, 431, "headers_too_large"),
        (GET + b"X: " + b"x" * 10_000_000, 431, "headers_too_large"),
        (b"\r\n" * 100_000, 431, "headers_too_large"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "target_too_long"),
        (b"GET /?" + b"x" * 10_000_000, 414, "target_too_long"),
        (GET, 408, "timeout"),
        (b"G", 408, "timeout"),
        (POST + b"Content-Length: 9\r\n\r\n{", 408, "timeout"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", 408, "timeout"),
        (POST + b"Content-Length: 99999999\r\n\r\n{", 413, "too_large"),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"8000\r\n" + b" " * 32768 + b"\r\n"
            b"8001\r\n" + b" " * 32769 + b"\r\n",
            413,
            "too_large",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
            400,
            "invalid_request",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 100_000,
            400,
            "invalid_request",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * 60_000,
            400,
            "invalid_request",
        ),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "invalid_request"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "invalid_request"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: -1\r\n\r\n", 400, "invalid_request"),
        (GET + b"Host: other\r\n\r\n", 400, "invalid_request"),
        (GET + b"X : y\r\n\r\n", 400, "invalid_request"),
        (GET + b"X: \x00\r\n\r\n", 400, "invalid_request"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (
            b"GET http://other/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            400,
            "invalid_request",
        ),
        (b"GET http://localhost/healthz HTTP/1.0\r\n\r\n", 400, "invalid_request"),
        (b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "invalid_request"),
        (b"GET /healthz\r\n\r\n", 505, "invalid_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_request"),
    ],
)
def test_broken_limits_and_rules_are_answered_and_cut(
    one: Api, sent: bytes, status: int, kind: str
) -> None:
    """There is one typed error, and nothing after it."""
    with one.client() as client:
        client.send(sent)
        reply = client.reply()
        assert reply.status == status
        assert f'"type":"{kind}"'.encode() in reply.body
        if status != 413:  # the body is read, so that the client gets the answer
            assert reply.headers["connection"] == "close"
            assert client.rest() == b""


def test_endless_headers_cost_nothing(one: Api) -> None:
    """Four connections with endless headers are cut; others are served, in little memory."""
    process = psutil.Process()
    before = process.memory_info().rss

    def flood() -> None:
        block = b"x" * 65536
        for _ in range(20):
            with one.client() as client:
                client.send(GET + b"X: ")
                for _ in range(200):
                    client.send(block)

    flooding = [threading.Thread(target=flood) for _ in range(4)]
    for thread in flooding:
        thread.start()
    while any(thread.is_alive() for thread in flooding):
        assert one.get("/healthz").status == 200
    assert process.memory_info().rss - before < 64 * MEBIBYTE


def test_silent_connections_are_closed(one: Api) -> None:
    """Before a first request and after an answer, without a message."""
    with one.client() as silent, one.client() as answered:
        answered.send(request("/healthz"))
        assert answered.reply().status == 200
        assert silent.rest() == answered.rest() == b""


def test_pipelined_requests_are_all_answered_in_order(one: Api) -> None:
    """However many come at once; a refusal comes after the answers before it."""
    paths = [f"/nowhere/{n}" if n % 2 else "/healthz" for n in range(2000)]
    with one.client() as client:
        sending = threading.Thread(
            target=client.send, args=(b"".join(map(request, paths)) + b"nonsense\r\n\r\n",)
        )
        sending.start()
        assert [client.reply().status for _ in paths] == [
            404 if n % 2 else 200 for n in range(2000)
        ]
        assert client.reply().status == 400
        assert client.rest() == b""
        sending.join()


def test_clients_that_do_not_read_are_cut(one: Api) -> None:
    """Unread answers are bounded: requests are no longer read, then the connection is cut."""
    before = one.metric("recommender_refused_total", reason="unread")
    with one.client() as client:
        asking = request("/") * 1_000_000
        with pytest.raises(ConnectionError):
            client.socket.sendall(asking)
    wait_for(
        lambda: one.metric("recommender_refused_total", reason="unread") > before, "it is counted"
    )


def test_http_1_0_upgrades_and_expectations(one: Api) -> None:
    """HTTP/1.0 needs no Host, a target may name it; upgrades are ignored; `Expect` is answered."""
    assert one.ask(b"GET /healthz HTTP/1.0\r\n\r\n").status == 200
    absolute = b"GET http://LOCALHOST:80/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert one.ask(absolute).status == 200
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with one.client() as client:
        client.send(GET + upgrade + GET + b"\r\n")
        assert client.reply().status == 200
        assert client.rest() == b""
    with one.client() as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert client.reply().status == 100
        client.send(b"{}")
        assert client.reply().status == 400
    with one.client() as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
        assert client.reply().status == 413
        assert client.rest() == b""


def test_connections_beyond_the_bound(tmp_path: Path) -> None:
    """Idle ones make room; if all are busy, a new one gets 503 with Retry-After."""
    with run_api(tmp_path, max_connections=20, after_timeout_s=30) as few:
        idle = [few.client() for _ in range(200)]
        assert few.get("/healthz").status == 200
        assert few.metric("recommender_connections") <= 20
        busy = [few.client() for _ in range(20)]
        for client in busy:
            client.send(request("/recommend?after=c0-99"))
        replies = []

        def is_refused() -> bool:
            replies.append(few.get("/healthz"))
            return replies[-1].status == 503

        wait_for(is_refused, "all are busy")
        assert replies[-1].headers["retry-after"] == "1"
        assert b'"type":"overloaded"' in replies[-1].body
        for client in idle + busy:
            client.socket.close()
        wait_for(lambda: few.get("/healthz").status == 200, "there is room again")


def test_large_bodies_share_a_budget(tmp_path: Path) -> None:
    """A body that finds no memory is refused for now; small and later ones are accepted."""
    large = (
        b"POST /personalize/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    )
    with run_api(tmp_path, max_bodies_bytes=MEBIBYTE, body_timeout_s=60) as one:
        with one.client() as first, one.client() as second:
            first.send(large + b" " * 800_000)
            second.send(large + b" " * 800_000)
            wait_for(
                lambda: one.metric("recommender_refused_total", reason="bodies") > 0, "one is full"
            )
            assert one.ask(request("/events", method="POST", body=b"{}")).status == 400
        wait_for(lambda: one.ask(large + b" " * 900_000).status != 503, "there is room again")


ABORTED = (
    POST + b"Content-Length: 200\r\n\r\n{",
    b"POST /personalize/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200\r\n\r\n{",
    request("/recommend?after=c0-99"),
    request("/similar/x?after=c0-99"),
    request("/items/x?after=c0-99"),
    request("/rank?after=c0-99", method="POST", body=b'{"itemIds":["a"]}'),
)


def test_disconnected_clients_are_no_errors(one: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Each is counted as 499 at once, even if it waited, and nothing is logged."""

    def gone() -> float:
        text = one.get("/metrics").body.decode()
        lines = [line for line in text.splitlines() if "requests_total{" in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'status="499"' in line)

    before = gone()
    with caplog.at_level(logging.INFO):
        for sent in ABORTED:
            with one.client() as client:
                client.send(sent)
                # From outside, a request under way shows only by its missing answer.
                client.socket.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    client.socket.recv(1)
        wait_for(lambda: gone() == before + len(ABORTED), "all are counted")
    assert [record for record in caplog.records if record.name != "uvicorn.access"] == []


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/recommend", "GET, HEAD, OPTIONS, POST"),
        ("/events", "GET, HEAD, OPTIONS, POST"),
        ("/items", "GET, HEAD, OPTIONS, PUT"),
        ("/items/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/users/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/personalize/events", "OPTIONS, POST"),
    ],
)
def test_methods(one: Api, path: str, methods: str) -> None:
    """OPTIONS and 405 list the methods; HEAD is GET without a body."""
    told = one.get(path, method="OPTIONS")
    assert (told.status, told.headers["allow"]) == (204, methods)
    if "GET" in methods:
        full, head = one.get(path), one.get(path, method="HEAD")
        assert (head.status, head.body) == (full.status, b"")
        assert head.headers["content-length"] == full.headers["content-length"]
    if not path.startswith("/personalize"):
        refused = one.get(path, method="PATCH")
        assert (refused.status, refused.headers["allow"]) == (405, methods)


HTTP_WORDS = some.sampled_from(
    [
        b"GET ", b"POST ", b"/healthz", b"/events", b"*", b"http://x/", b" HTTP/1.1", b" HTTP/1.0",
        b"\r\n", b"\n", b"\r\n\r\n", b": ", b"Host: localhost", b"Host: [::1", b"Connection: close",
        b"Content-Length: 5", b"Content-Length: 99", b"Transfer-Encoding: chunked", b"5\r\nhello",
        b"0\r\n\r\n", b"Expect: 100-continue", b"Upgrade: websocket", b"Connection: upgrade",
        b"Origin: null", b"\x00", b"\xff\xfe", b"%", b"%00", b"?after=c0-0",
    ]
)  # fmt: skip


@properties(max_examples=60)
@given(some.lists(some.one_of(HTTP_WORDS, some.binary(max_size=8)), max_size=25))
def test_whatever_is_sent(one: Api, pieces: list[bytes]) -> None:
    """There are answers or silence, then the end; nothing unexpected is logged."""
    handler = logging.handlers.BufferingHandler(1000)
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with one.client() as client:
            for piece in pieces:
                client.send(piece)
            received = client.rest()
        assert not received or received.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 5" not in received.replace(b"HTTP/1.1 505", b"")
        assert one.get("/healthz").status == 200
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.buffer


def test_a_client_helper_notices_a_cut(one: Api) -> None:
    """An incomplete answer is an error of the helper."""
    with Client(one.port) as client, pytest.raises(ConnectionError):
        client.reply()
