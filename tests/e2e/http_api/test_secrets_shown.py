"""Secrets in settings are shown nowhere, by any request or failure."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.errors import RecommenderError
from models.settings import Settings
from ops.embedded_servers import redis_binary
from ops.processes import listens
from tests.e2e.commands.test_commands import BARE, command
from tests.servers import ROOT, own_port, own_ports, wait_until
from tests.streams.forwarding.personalize_stub import PersonalizeStub

SECRET = "Pl4nted"
START_S = 240.0
PATHS = (
    "/readyz", "/healthz", "/metrics", "/openapi.json", "/docs", "/recommend?user_id=ada",
    "/forwarding", "/trending", "/personalize/recommendations",
)  # fmt: skip


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A Redis with a user and a password."""
    port = own_port()
    folder = tmp_path / "redis-of-others"
    folder.mkdir()
    (folder / "redis.conf").write_text(
        f'port {port}\nbind 127.0.0.1\nsave ""\nuser default off\n'
        f"user app on >{SECRET}-redis ~* &* +@all\n"
    )
    with subprocess.Popen(
        [redis_binary(), "redis.conf"], cwd=folder, stdout=subprocess.DEVNULL
    ) as server:
        wait_until(lambda: listens(server.pid, port), within_s=60, what="Redis listens")
        yield port, server
        server.kill()


def body_of(url: str, data: bytes | None = None) -> str:
    """The body of an answer or error."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.mark.slow
def test_no_secret_shows_anywhere(
    tmp_path: Path, redis: tuple[int, subprocess.Popen[bytes]]
) -> None:
    """In no answer, log, file or command, at level debug, before and after a fault."""
    (redis_port, server), port = redis, own_port()
    metrics_port = own_ports(2)  # of the worker and of the jobs
    work = tmp_path / "work"
    work.mkdir()
    secrets = {
        "RECOMMENDER_REDIS": f"redis://app:{SECRET}-redis@127.0.0.1:{redis_port}/0",
        "RECOMMENDER_PERSONALIZE_ACCESS_KEYS": json.dumps({"AKIAEXAMPLE": f"{SECRET}-key"}),
        "AWS_ACCESS_KEY_ID": "AKIAOTHER",
        "AWS_SECRET_ACCESS_KEY": f"{SECRET}-aws",
        "AWS_SESSION_TOKEN": f"{SECRET}-token",
    }
    asked: list[str] = []
    url = f"http://127.0.0.1:{port}"
    with PersonalizeStub() as stub:
        settings = BARE | secrets | {
            "PYTHONPATH": str(ROOT),
            "RECOMMENDER_LOG_LEVEL": "debug",
            "RECOMMENDER_DRAIN_S": "0.1",
            "RECOMMENDER_FORWARD_TRACKING_ID": "theirs",
            "RECOMMENDER_SHADOW_CAMPAIGN_ARN": "arn:aws:personalize:us-east-1:0:campaign/x",
            "AWS_ENDPOINT_URL_PERSONALIZE_EVENTS": stub.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        log = (work / "up.log").open("wb")
        up = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--port", str(port)],
            cwd=work, env=settings | {"RECOMMENDER_METRICS_PORT": str(metrics_port)},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        forward: subprocess.Popen[bytes] | None = None
        try:
            wait_until(
                lambda: "Ctrl-C stops" in (work / "up.log").read_text() or up.poll() is not None,
                within_s=START_S,
                what="up is running",
            )
            assert up.poll() is None, (work / "up.log").read_text()
            forward = subprocess.Popen(
                [sys.executable, "-m", "cli", "forward"],
                cwd=work, env=settings, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            event = {"eventType": "click", "itemId": "i", "sentAt": time.time()}
            sent = json.dumps({"sessionId": "s", "eventList": [event]}).encode()
            asked.append(body_of(f"{url}/events", sent))
            wait_until(lambda: bool(stub.requests), within_s=START_S, what="an event is forwarded")
            asked += [body_of(url + path) for path in PATHS]
            asked.append(body_of(f"http://127.0.0.1:{metrics_port}/metrics"))
            for arguments in (
                ("status",), ("status", "--json"), ("status", "--partitions"),
                ("dead-letters", "list"), ("topics",),
            ):  # fmt: skip
                done = command(*arguments, cwd=work, **secrets)
                asked.append(done.stdout + done.stderr)
            server.kill()
            server.wait()
            asked += [body_of(url + path) for path in ("/readyz", "/recommend?user_id=ada")]
            done = command("status", cwd=work, **secrets)
            asked.append(done.stdout + done.stderr)
            files = {
                path: path.read_bytes().decode("latin-1")
                for path in work.rglob("*")
                if path.is_file()
            }
        finally:
            # Without Redis neither could end in order.
            if forward is not None:
                forward.kill()
                forward.wait()
            up.send_signal(signal.SIGTERM)
            up.wait(120)
            log.close()
    files |= {work / "up.log": (work / "up.log").read_text()}

    assert "servers.json" in {path.name for path in files}
    assert "DEBUG" in files[work / "up.log"]
    assert '"accepted":1' in asked[0]
    for text in asked:
        assert SECRET not in text
    for path, text in files.items():
        found = [line for line in text.splitlines() if SECRET in line]
        assert not found, (path, found[:3])


# A path is no URL any more: its slashes are single.
@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - {"data_dir"}))
def test_a_secret_in_a_wrong_value_is_not_repeated(name: str) -> None:
    """Of any setting, as a URL may be put into the wrong variable."""
    variable = f"RECOMMENDER_{name.upper()}"
    written = f"redis://app:{SECRET}@host:6379/0"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(variable, written)
        try:
            shown = repr(Settings())
        except (ValueError, RecommenderError) as error:
            shown = str(error)
    assert SECRET not in shown
