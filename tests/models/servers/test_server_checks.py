"""Checks of servers, on real ones and on other listeners."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.errors import InvalidSetting, Unavailable
from models.servers.server_checks import check_redis, kafka_trouble
from models.settings import Settings
from ops.embedded_servers import redis_binary, start_broker, start_redis
from tests.servers import own_port, unavailable, wait_until

SECRET = "Pl4nted"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a Redis that requires a password."""
    port = own_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        [*command, "--requirepass", SECRET],
        cwd=tmp_path_factory.mktemp("guarded"),
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            wait_until(lambda: _accepts(port), within_s=30, what="Redis listens")
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def tls_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A port that speaks TLS, with a self-signed certificate."""
    if shutil.which("openssl") is None:
        unavailable("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    def greet(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(64)

    with _serving(greet) as port:
        yield port


@pytest.fixture(scope="module")
def web_port() -> Iterator[int]:
    """A port of a web server."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def mute_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def _serving(greet: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=greet, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _said(url: str, kind: type[Exception]) -> str:
    with pytest.raises(kind) as raised:
        check_redis(Settings(redis=url))
    said = str(raised.value)
    assert SECRET not in said
    assert "\n" not in said
    return said


def test_a_redis_that_answers_is_fine(tmp_path: Path, guarded: str) -> None:
    """With and without a password."""
    server = start_redis(tmp_path)
    try:
        check_redis(Settings(redis=server.url))
    finally:
        server.stop()
    check_redis(Settings(redis=f"redis://:{SECRET}@{guarded}/0"))


def test_a_missing_or_wrong_password(guarded: str) -> None:
    """Waiting does not help."""
    assert f"{guarded}/0 wants a password" in _said(f"redis://{guarded}/0", InvalidSetting)
    for user in ("", "somebody"):
        said = _said(f"redis://{user}:{SECRET}x@{guarded}/0", InvalidSetting)
        assert "refuses the user or password" in said


def test_a_wrong_scheme(guarded: str, tls_port: int) -> None:
    """The error says which scheme to write."""
    assert "speaks no TLS" in _said(f"rediss://:{SECRET}@{guarded}/0", InvalidSetting)
    assert "write rediss://" in _said(f"redis://127.0.0.1:{tls_port}/0", InvalidSetting)
    said = _said(f"rediss://127.0.0.1:{tls_port}/0", InvalidSetting)
    assert "certificate verify failed" in said


def test_other_servers_than_redis(web_port: int, tmp_path: Path) -> None:
    """A web server, and a Kafka broker."""
    assert "a web server" in _said(f"redis://127.0.0.1:{web_port}/0", InvalidSetting)
    broker = start_broker(tmp_path)
    try:
        _said(f"redis://{broker.address}/0", Unavailable)
    finally:
        broker.stop()


def test_an_absent_redis(mute_port: int) -> None:
    """Waiting may help."""
    port = own_port()
    assert "nothing listens there" in _said(f"redis://127.0.0.1:{port}/0", Unavailable)
    assert "does not answer" in _said(f"redis://127.0.0.1:{mute_port}/0", Unavailable)
    said = _said(f"redis://u:{SECRET}@no-such-host.invalid:6379/0", Unavailable)
    assert "no-such-host.invalid" in said


def test_a_kafka_that_answers_is_fine(tmp_path: Path) -> None:
    """Also as the second of two servers."""
    broker = start_broker(tmp_path)
    try:
        assert kafka_trouble([broker.address]) == ("", True)
        assert kafka_trouble([f"127.0.0.1:{own_port()}", broker.address]) == ("", True)
    finally:
        broker.stop()


def test_other_servers_than_kafka(guarded: str, web_port: int, tls_port: int) -> None:
    """Redis, a web server, TLS: waiting does not help."""
    assert kafka_trouble([guarded]) == ("that is Redis", False)
    assert kafka_trouble([f"127.0.0.1:{web_port}"]) == ("that is a web server", False)
    needed = "set RECOMMENDER_KAFKA_SECURITY_PROTOCOL to ssl or sasl_ssl"
    assert kafka_trouble([f"127.0.0.1:{tls_port}"]) == (f"it speaks TLS: {needed}", False)


def test_an_absent_kafka(mute_port: int) -> None:
    """The cause for each of several servers."""
    nobody = f"127.0.0.1:{own_port()}"
    assert kafka_trouble([nobody]) == ("nothing listens there", True)
    said, may_heal = kafka_trouble([nobody, "no-such-host.invalid:9092"])
    assert f"{nobody}: nothing listens there; no-such-host.invalid:9092: " in said
    assert may_heal
    assert kafka_trouble([f"127.0.0.1:{mute_port}"])[1]
