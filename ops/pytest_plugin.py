"""A pytest plugin: Amazon Personalize on this machine for the tests of programs that call it.

The whole service runs for a session of tests, on free ports and in a folder of its own, with its
embedded broker and Redis (extra `embedded`). An entry point of the package registers it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from botocore.client import BaseClient

START_S, END_S = 120.0, 30.0
"""Longest waits for the service to be ready, and to end."""

POLL_S = 0.02
LOG_CHARACTERS = 3000
"""End of the log that an error shows."""

REGION = "us-east-1"
SERVICES = ("PERSONALIZE", "PERSONALIZE_RUNTIME", "PERSONALIZE_EVENTS")

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
"""Clients sign with some; the service of tests takes any."""


@dataclass(frozen=True)
class PersonalizeService:
    """A running service.

    Attributes
    ----------
    url
        Address of the API for AWS clients.
    buckets
        Folder that stands for S3: `s3://data/users.csv` is its file `data/users.csv`.
    """

    url: str
    buckets: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point AWS clients in other processes here."""
        addresses = {f"AWS_ENDPOINT_URL_{name}": self.url for name in SERVICES}
        return {**addresses, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}

    def client(self, service: str) -> BaseClient:
        """A boto3 client: of `personalize`, `personalize-runtime` or `personalize-events`."""
        import boto3  # noqa: PLC0415  a session of tests that uses no fixture pays nothing

        make: Any = boto3.client
        options = {name.lower(): value for name, value in CREDENTIALS.items()}
        client: BaseClient = make(service, endpoint_url=self.url, region_name=REGION, **options)
        return client


@pytest.fixture(scope="session")
def recommender_personalize_settings() -> Mapping[str, str]:
    """Settings of the service, such as `RECOMMENDER_TRAINING_MIN_USERS`; override it for others."""
    return {}


@pytest.fixture(scope="session")
def recommender_personalize(
    tmp_path_factory: pytest.TempPathFactory,
    recommender_personalize_settings: Mapping[str, str],
) -> Iterator[PersonalizeService]:
    """Amazon Personalize's API on this machine, for the session: empty, and ended afterwards."""
    folder = tmp_path_factory.mktemp("recommender")
    buckets = folder / "buckets"
    buckets.mkdir()
    # Settings of a service that the developer runs are not those of tests.
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("RECOMMENDER_")
    }
    environment = {
        **inherited,
        "RECOMMENDER_PORT": "0",
        "RECOMMENDER_DATA_DIR": str(folder / "data"),
        "RECOMMENDER_BUCKETS_DIR": str(buckets),
        **recommender_personalize_settings,
    }
    log = folder / "recommender.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up"],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield PersonalizeService(f"{_address(process, folder / 'data', log)}/personalize", buckets)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        # Its children end with it.
        process.kill()
        process.wait()


@pytest.fixture
def recommender_personalize_env(
    recommender_personalize: PersonalizeService, monkeypatch: pytest.MonkeyPatch
) -> PersonalizeService:
    """The service, with environment variables that point AWS clients made by the test to it."""
    for name, value in recommender_personalize.environment.items():
        monkeypatch.setenv(name, value)
    return recommender_personalize


def _address(process: subprocess.Popen[bytes], data: Path, log: Path) -> str:
    """Address of the API once everything runs.

    Raises
    ------
    RuntimeError
        The service has ended or is not ready in time; with the end of its log.
    """
    from models.servers.running_servers import announced_api  # noqa: PLC0415  as above

    deadline_s = time.monotonic() + START_S
    while (address := announced_api(data)) is None:
        if process.poll() is not None or time.monotonic() > deadline_s:
            shown = log.read_text(errors="replace")[-LOG_CHARACTERS:]
            how = "has ended" if process.poll() is not None else f"is not ready in {START_S:g} s"
            raise RuntimeError(f"recommender up {how}:\n{shown}")
        time.sleep(POLL_S)
    return address
