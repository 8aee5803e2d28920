"""Commands that cannot work say so in one sentence, without secrets, and end."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli import main
from models.errors import InvalidSetting, RecommenderError, Unavailable
from ops.embedded_servers import redis_binary, start_broker
from ops.processes import listens
from tests.e2e.commands.test_commands import BARE, children_of, command
from tests.forked_processes import start_command
from tests.servers import ROOT, own_port, wait_until
from tests.streams.provisioning.provisioning_fixtures import FILE

SECRET = "Pl4nted"
PATIENCE_S = 60.0
"""Time for a process to start on a busy machine."""

EXPERIMENT = """{"placement": "home", "metric": "click", "arms": [{"name": "a"},
    {"name": "b", "configuration": {"num_results": 10}}]}"""
REDIS, KAFKA = "Redis", "Kafka"
NEEDED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("rebuild --yes", "skip events.clicks 0 0 --yes", "status", "up", "demo --once"),
        (REDIS, KAFKA),
    ),
    **dict.fromkeys(
        ("drill --configured --yes", "report", "experiments list", "experiments start x x.json"),
        (REDIS, KAFKA),
    ),
    **dict.fromkeys(("experiments stop x", "experiments report x", "reshard 4"), (REDIS, KAFKA)),
    **dict.fromkeys(
        (
            "audit",
            "whatif --share 0",
            "dead-letters list",
            "dead-letters replay",
            "dead-letters discard --yes",
        ),
        (KAFKA,),
    ),
    **dict.fromkeys(("replay events.csv", "items import items.csv", "topics"), (KAFKA,)),
    **dict.fromkeys(
        ("keys create x --role read", "keys list", "keys revoke 0123456789ab"), (REDIS,)
    ),
    **dict.fromkeys(("snapshot save folder", "snapshot restore folder"), (REDIS,)),
    "batch --history shop.toml": (REDIS,),
    # While Kafka is away they wait for it, or answer without it.
    **dict.fromkeys(("api", "worker", "jobs", "forward"), (REDIS,)),
    **dict.fromkeys(("config", "evaluate", "prepare", "provision", "snapshot list"), ()),
}
"""Servers without which a command ends at once; a new command must be named here."""


def _commands(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        if isinstance(one, click.Group):
            yield from _commands(one, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def _refused(line: str) -> RecommenderError:
    """The expected error with which a command ends, which is printed as one line."""
    name, *arguments = line.split()
    # Without the group, which would set up the logs of this process.
    command = main.get_command(click.Context(main), name)
    assert command is not None
    with pytest.raises(RecommenderError) as refused:
        command.main(arguments, standalone_mode=False)
    return refused.value


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker."""
    server = start_broker(tmp_path_factory.mktemp("broker"))
    yield server.address
    server.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a Redis with a password."""
    port = own_port()
    command = [redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        [*command, "--requirepass", "another"],
        cwd=tmp_path_factory.mktemp("guarded"),
        stdout=subprocess.DEVNULL,
    ) as server:
        wait_until(lambda: listens(server.pid, port), within_s=PATIENCE_S, what="Redis listens")
        yield f"127.0.0.1:{port}"
        server.terminate()


def _files(folder: Path) -> str:
    return "".join(
        path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("arguments", [("up", "--port", "0"), ("worker",), ("status",)])
def test_a_wrong_password_ends_every_command(
    tmp_path: Path, broker: str, guarded: str, arguments: tuple[str, ...]
) -> None:
    """One sentence names the server and the cause, and not the password."""
    ended = command(
        *arguments, cwd=tmp_path, RECOMMENDER_KAFKA=broker,
        RECOMMENDER_REDIS=f"redis://app:{SECRET}@{guarded}/0", RECOMMENDER_PORT=str(own_port()),
    )  # fmt: skip

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"redis://app:***@{guarded}/0 refuses the user or password" in line
    assert SECRET not in ended.stdout + ended.stderr + _files(tmp_path)
    assert children_of(tmp_path) == []


def test_every_command_ends_without_its_servers(
    tmp_path: Path, broker: str, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wrong password of Redis, and without Kafka: with an expected error, at once."""
    decided = [f"{one} " for one in NEEDED]
    assert {
        name for name in _commands(main) if not any(one.startswith(f"{name} ") for one in decided)
    } == set()
    monkeypatch.chdir(tmp_path)
    Path("events.csv").write_text("USER_ID,ITEM_ID,TIMESTAMP\nu,i,1700000000\n")
    Path("x.json").write_text(EXPERIMENT)
    Path("shop.toml").write_text(FILE)
    monkeypatch.setenv("RECOMMENDER_PORT", str(own_port()))
    # Set by some commands before they know their servers.
    before, client = signal.getsignal(signal.SIGTERM), logging.getLogger("kafka")
    level = client.level
    nobody = f"127.0.0.1:{own_port()}"
    try:
        monkeypatch.setenv("RECOMMENDER_KAFKA", broker)
        monkeypatch.setenv("RECOMMENDER_REDIS", f"redis://app:{SECRET}@{guarded}/0")
        for line in (line for line, servers in NEEDED.items() if REDIS in servers):
            error = _refused(line)
            assert isinstance(error, InvalidSetting), line
            assert f"redis://app:***@{guarded}/0 refuses the user or password" in str(error)
        monkeypatch.setenv("RECOMMENDER_KAFKA", nobody)
        monkeypatch.setenv("RECOMMENDER_REDIS", f"redis://:another@{guarded}/0")
        for line in (line for line, servers in NEEDED.items() if KAFKA in servers):
            error = _refused(line)
            assert isinstance(error, Unavailable), line
            assert f"Kafka at {nobody} cannot be used (nothing listens there)" in str(error)
    finally:
        signal.signal(signal.SIGTERM, before)
        client.setLevel(level)


def test_the_audit_log_of_a_kafka_without_topics(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the command that makes them."""
    monkeypatch.setenv("RECOMMENDER_KAFKA", broker)
    assert "has no topic audit: run `recommender topics` first" in str(_refused("audit"))


@pytest.mark.parametrize("arguments", [("up", "--port", "0"), ("topics",)])
def test_commands_that_do_not_wait_end_without_kafka(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """The error names the address and the cause."""
    nobody = f"127.0.0.1:{own_port()}"
    ended = command(
        *arguments, cwd=tmp_path, RECOMMENDER_KAFKA=nobody, RECOMMENDER_REDIS=f"redis://{nobody}/0"
    )

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"Kafka at {nobody} cannot be used (nothing listens there)" in line


@pytest.mark.parametrize("name", ["worker", "api"])
def test_processes_wait_for_a_server_that_is_away(tmp_path: Path, broker: str, name: str) -> None:
    """They name it at once, without the password."""
    nobody = f"127.0.0.1:{own_port()}"
    servers = {
        "RECOMMENDER_KAFKA": broker,
        "RECOMMENDER_REDIS": f"redis://app:{SECRET}@{nobody}/0",
        "RECOMMENDER_PORT": str(own_port()),
    }
    said = tmp_path / "said"
    process = start_command(
        [name],
        environment=BARE | {"PYTHONPATH": str(ROOT)} | servers,
        directory=tmp_path,
        output=said,
    )
    try:
        wait_until(
            lambda: f"Redis at redis://app:***@{nobody}/0 cannot be used" in said.read_text(),
            within_s=PATIENCE_S,
            what="it names the missing server",
        )
        time.sleep(1)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    assert SECRET not in _files(tmp_path)


def test_a_taken_explicit_port_is_an_error(tmp_path: Path) -> None:
    """It names the port and its process; no process is left."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        by_option = command("up", "--port", port, cwd=tmp_path)
        by_variable = command("up", cwd=tmp_path, RECOMMENDER_PORT=port)
        metrics = command(
            "worker", cwd=tmp_path, RECOMMENDER_METRICS_PORT=port,
            RECOMMENDER_KAFKA="localhost:1", RECOMMENDER_REDIS="redis://localhost:1",
        )  # fmt: skip

    for ended in (by_option, by_variable, metrics):
        assert ended.returncode == 1
        assert f"port {port} is taken by " in ended.stderr
    assert "RECOMMENDER_METRICS_PORT" in metrics.stderr
    assert children_of(tmp_path) == []


@pytest.mark.parametrize("arguments", [("up",), ("status",)])
def test_a_misspelt_variable_ends_every_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The error suggests the nearest name."""
    ended = command(*arguments, cwd=tmp_path, RECOMMENDER_REDIS_URL=f"redis://:{SECRET}@h:1")

    assert ended.returncode == 1
    assert "no setting RECOMMENDER_REDIS_URL: did you mean RECOMMENDER_REDIS?" in ended.stderr
    assert SECRET not in ended.stderr
