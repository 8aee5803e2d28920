"""`run_stack` around its children: ports, metrics, and the note for other commands."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from models.errors import CannotStart, NotConfigured
from models.servers.running_servers import announced, located
from models.settings import Settings
from ops.orphans import lock_data_dir
from ops.stack import _api_port, _metrics


def test_only_the_default_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default port may be replaced, which is said; an explicit one may not."""
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"port {port} is taken by \S+"):
            _api_port(Settings(port=port), said.append)
        monkeypatch.setattr(Settings.model_fields["port"], "default", port)
        Settings.model_rebuild(force=True)
        try:
            other = _api_port(Settings(), said.append)
        finally:
            monkeypatch.undo()
            Settings.model_rebuild(force=True)
    assert other != port
    assert said == [said[0]]
    assert f"listens on {other} instead" in said[0]


def test_children_have_metrics_on_ports_of_their_own() -> None:
    """No child has a metrics port if none is configured."""
    assert _metrics(Settings(metrics_port=9100), 2) == {"RECOMMENDER_METRICS_PORT": "9102"}
    assert _metrics(Settings(), 2) == {"RECOMMENDER_METRICS_PORT": "0"}


def test_servers_are_found_while_they_run_and_without_their_password(tmp_path: Path) -> None:
    """The note of a killed supervisor is ignored; no password is stored."""
    settings = Settings(data_dir=tmp_path)
    full = Settings(
        kafka="k:9092", redis="redis://u:Pl4nted@h:1/0", data_dir=tmp_path, partitions=3
    )
    with lock_data_dir(tmp_path), announced(tmp_path, full, "http://a"):
        note = tmp_path / "servers.json"
        assert note.stat().st_mode & 0o077 == 0
        assert "Pl4nted" not in note.read_text()
        found = located(settings, needs_redis=False)
        assert (found.kafka, found.partitions) == ("k:9092", 3)
        elsewhere = Settings(kafka="other:9092", data_dir=tmp_path)
        assert located(elsewhere, needs_redis=False).partitions == 16
        with pytest.raises(NotConfigured, match="wants a password"):
            located(settings)
        kept = note.read_bytes()
    note.write_bytes(kept)
    with pytest.raises(NotConfigured, match="no servers"):
        located(settings, needs_redis=False)
