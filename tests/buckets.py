"""An S3 for tests: moto's server, and an AWS environment that knows no other."""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.processes import listens
from tests.servers import own_port, wait_until

START_S = 180.0


_idle: list[str] = []


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of a running server without buckets.

    In a process of its own: all of moto's servers in one process are the same. It takes a second to
    start, so that it is emptied and used again until the tests have ended.
    """
    url = _idle.pop() if _idle else _start()
    try:
        yield url
    finally:
        reset = urllib.request.Request(f"{url}/moto-api/reset", method="POST")
        with urllib.request.urlopen(reset, timeout=60) as answer:
            assert answer.status == 200
        _idle.append(url)


def _start() -> str:
    port = own_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(_end, process)
    wait_until(
        lambda: process.poll() is not None or listens(process.pid, port),
        within_s=START_S,
        what="moto listens",
    )
    if process.returncode is not None:
        raise RuntimeError(f"moto ended with {process.returncode}")
    return f"http://127.0.0.1:{port}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def use_aws_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Made-up credentials, and nobody's own configuration."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
