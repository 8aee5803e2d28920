"""An S3 for tests: moto's server, and an AWS environment that knows no other."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.processes import listens
from tests.servers import own_port, wait_until

START_S = 180.0


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """The address of a running server without buckets.

    In a process of its own: all of moto's servers in one process are the same.
    """
    port = own_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: process.poll() is not None or listens(process.pid, port),
            within_s=START_S,
            what="moto listens",
        )
        if process.returncode is not None:
            raise RuntimeError(f"moto ended with {process.returncode}")
        yield url
    finally:
        process.kill()
        process.wait()


def use_aws_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Made-up credentials, and nobody's own configuration."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
