"""Accepted messages at the end of `recommender up`: in effect, or counted as lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.embedded_servers import start_redis
from tests.e2e.commands.test_commands import BARE, children_of
from tests.servers import ROOT, own_port, wait_until

START_S = 240.0


class Up:
    """A running `recommender up` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.port = own_port()
        self._log = folder / f"up-{self.port}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", "--port", str(self.port)],
                cwd=folder, env=BARE | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_until(
            lambda: "Ctrl-C stops" in self.said or self.process.poll() is not None,
            within_s=START_S,
            what="up is running",
        )
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        """Its output."""
        return self._log.read_text()

    def send(self, n: int) -> list[str]:
        """Send this many events, each in a message of its own; gives their tokens."""
        tokens = []
        for number in range(n):
            event = {"eventType": "click", "itemId": f"i{number % 7}", "sentAt": time.time()}
            body = json.dumps({"sessionId": f"s{number}", "eventList": [event]}).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/events", body) as answer:
                tokens.append(str(json.loads(answer.read())["after"]))
        return tokens

    def has(self, token: str) -> bool:
        """True if an event is in effect."""
        url = f"http://127.0.0.1:{self.port}/recommend?after={token}"
        with urllib.request.urlopen(url) as answer:
            return bool(json.loads(answer.read())["freshness"]["afterReached"])

    def worker(self) -> psutil.Process:
        """The process of its worker."""
        (found,) = [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "worker" in {child.name(), *child.cmdline()[-1:]}
        ]
        return found


def events_in_effect(folder: Path) -> int:
    """Events in effect in the embedded Redis of a folder, started alone."""
    redis = start_redis(folder / ".recommender")

    async def counted() -> int:
        settings = Settings(redis=redis.url)
        store = Store(connect(settings.redis), settings)
        try:
            return int((await store.counts()).get("events", 0))
        finally:
            await store.redis.aclose()

    try:
        return asyncio.run(counted())
    finally:
        redis.stop()


@pytest.mark.slow
def test_ctrl_c_drains_and_a_kill_is_counted(tmp_path: Path) -> None:
    """After Ctrl-C all are in effect; after a kill the next start counts the lost ones."""
    up = Up(tmp_path)
    up.send(150)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(120) == 0
    drained = events_in_effect(tmp_path)

    killed = Up(tmp_path)
    for token in killed.send(3):
        wait_until(lambda: killed.has(token), within_s=START_S, what="it is in effect")  # noqa: B023
    worker = killed.worker()
    os.kill(worker.pid, signal.SIGSTOP)
    killed.send(7)
    killed.process.kill()
    killed.process.wait()
    if worker.is_running():
        worker.kill()
    wait_until(lambda: children_of(tmp_path) == [], within_s=60, what="nothing is left")
    kept = events_in_effect(tmp_path)

    last = Up(tmp_path)
    last.process.send_signal(signal.SIGINT)
    assert last.process.wait(120) == 0

    assert drained == 150
    assert "the last run" not in killed.said
    assert kept == 153
    assert "the last run was killed: 7 messages that it had accepted and not yet" in last.said
