"""HTTPS by the API itself, headers of every answer, and proxies that are trusted."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from api.server.server_options import server_options
from models.audit_entries import AuditEntry
from models.errors import InvalidSetting
from models.servers.tls import context_of_own_server
from models.settings import Settings
from ops.embedded_servers import start_redis
from tests.access.api_key_fixtures import keyed_api
from tests.api_server import Api, accepting_publisher, request, run_api, serve_api
from tests.servers import own_port


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return certificate, key


@pytest.fixture(scope="module")
def secure(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API with TLS."""
    redis = start_redis(tmp_path_factory.mktemp("redis"))
    settings = Settings(
        redis=redis.url,
        port=own_port(),
        tls_certificate_file=str(files[0]),
        tls_key_file=str(files[1]),
        keep_alive_s=1,
    )
    try:
        with serve_api(settings) as api:
            yield api
    finally:
        redis.stop()


def connected(api: Api, certificate: Path) -> ssl.SSLSocket:
    """A connection with TLS."""
    plain = socket.create_connection(("127.0.0.1", api.port), timeout=30)
    return context_of_own_server(str(certificate)).wrap_socket(plain)


def test_answers_come_over_tls(secure: Api, files: tuple[Path, Path]) -> None:
    """With a year of HSTS; without TLS there is no answer."""
    url = f"https://localhost:{secure.port}/recommend"
    with urllib.request.urlopen(url, context=context_of_own_server(str(files[0]))) as answer:
        assert json.load(answer)["recipe"]
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
    with socket.create_connection(("127.0.0.1", secure.port), timeout=30) as plain:
        plain.sendall(request("/healthz"))
        with contextlib.suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP")


def test_old_tls_is_refused(secure: Api, files: tuple[Path, Path]) -> None:
    """TLS 1.2 is the oldest."""
    context = context_of_own_server(str(files[0]))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=30) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


@pytest.mark.parametrize("sent", [b"no HTTP\r\n\r\n", request("/", "X: " + "x" * 40_000)])
def test_refusals_end_connections_over_tls(
    secure: Api, files: tuple[Path, Path], sent: bytes
) -> None:
    """TLS has no half-closed connections: the refusal is sent, and the connection closed."""
    with connected(secure, files[0]) as client:
        client.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := client.recv(65536):
                received += data
    assert received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert secure_is_up(secure, files[0])


def secure_is_up(api: Api, certificate: Path) -> bool:
    """True if it answers."""
    with connected(api, certificate) as client:
        client.sendall(request("/healthz"))
        return client.recv(100).startswith(b"HTTP/1.1 200")


def test_a_wrong_certificate_is_an_error_of_the_setting(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """No file, no PEM, and no key are told in one sentence."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no PEM")
    for certificate, key in (
        (str(tmp_path / "none.pem"), ""),
        (str(broken), ""),
        (str(files[0]), ""),
        (str(files[0]), str(broken)),
    ):
        settings = Settings(tls_certificate_file=certificate, tls_key_file=key)
        with pytest.raises(InvalidSetting, match="RECOMMENDER_TLS_CERTIFICATE_FILE"):
            server_options(settings)


def test_every_answer_has_security_headers(tmp_path: Path) -> None:
    """Errors too; no answer names the software, and JSON is not for caches."""
    with run_api(tmp_path) as api:
        for path in (
            "/recommend",
            "/docs",
            "/",
            "/no-such",
            "/recommend?num_results=0",
            "/healthz",
        ):
            headers = api.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert "server" not in headers
            assert headers["cache-control"] == "no-store"
        for path in ("/", "/console", "/docs"):
            policy = api.get(path).headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("trusted", "address"),
    [([], "127.0.0.1"), (["10.0.0.0/8"], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.9")],
)
def test_only_trusted_proxies_tell_where_a_request_is_from(
    tmp_path: Path, trusted: list[str], address: str
) -> None:
    """The audit log has the address of the connection, unless a trusted proxy tells another."""
    written: list[AuditEntry] = []

    async def write(entry: AuditEntry) -> None:
        written.append(entry)

    kafka = accepting_publisher(audit=write)
    with keyed_api(tmp_path, kafka=kafka, trusted_proxies=trusted) as one:
        key = f"X-Api-Key: {one.key('manage')}"
        one.status("DELETE", "/users/u", key, "X-Forwarded-For: 203.0.113.9")

    assert [entry.address for entry in written] == [address]
