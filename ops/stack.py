"""The whole stack as children of one process: what `recommender up` and `recommender demo` run."""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.errors import NotConfigured
from models.settings import Settings
from ops.embedded import free_port, supervise_broker, supervise_redis
from ops.processes import SUPERVISOR_PID
from ops.supervisor import Supervisor

KAFKA_PORT, REDIS_PORT = 9092, 6379
"""Preferred by the embedded servers; others are taken where these are in use."""

READY_S = 180.0
"""Longest wait for the API: after a change of the source its inner loops are compiled anew."""


class Servers(msgspec.Struct, frozen=True):
    """Where a running stack's servers are."""

    kafka: str
    redis: str
    api: str = ""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    supervisor: Supervisor
    settings: Settings
    api_url: str


def located(settings: Settings) -> Settings:
    """The settings with the addresses of the servers filled in, from a running `up` if need be.

    Raises
    ------
    NotConfigured
        Neither is named, and no `recommender up` runs on this data folder.
    """
    if settings.kafka and settings.redis:
        return settings
    try:
        servers = msgspec.json.decode(_note(settings.data_dir).read_bytes(), type=Servers)
    except FileNotFoundError as error:
        raise NotConfigured(
            "no servers: start `recommender up` in this folder, or set RECOMMENDER_KAFKA and"
            " RECOMMENDER_REDIS"
        ) from error
    return settings.model_copy(
        update={
            "kafka": settings.kafka or servers.kafka,
            "redis": settings.redis or servers.redis,
        }
    )


@contextlib.contextmanager
def running(
    settings: Settings,
    *,
    say: Callable[[str], None],
    make_topics: Callable[[Settings], object],
    workers: int = 1,
) -> Iterator[Stack]:
    """Start what is not configured, then topics, workers, jobs and the API; stop all at the end.

    Parameters
    ----------
    make_topics
        Makes the topics; called again when the embedded broker had to be started again.
    """

    def on_restart(name: str) -> None:
        if name == "broker":
            make_topics(full)

    with Supervisor(settings.data_dir, say=say, on_restart=on_restart) as supervisor:
        kafka = settings.kafka or supervise_broker(supervisor, port=KAFKA_PORT)
        redis = settings.redis or supervise_redis(supervisor, port=REDIS_PORT)
        full = settings.model_copy(
            update={"kafka": kafka, "redis": redis, "port": free_port(settings.port)}
        )
        make_topics(full)
        environment = _environment(full)
        for number in range(workers):
            name = "worker" if workers == 1 else f"worker-{number + 1}"
            supervisor.start(name, _command("worker"), environment)
        supervisor.start("jobs", _command("jobs"), environment)
        url = f"http://{'127.0.0.1' if full.host == '0.0.0.0' else full.host}:{full.port}"  # noqa: S104
        supervisor.start(
            "api",
            _command("api"),
            environment,
            port=full.port,
            ready=lambda: _answers(f"{url}/readyz"),
            ready_s=READY_S,
        )
        note = _note(settings.data_dir)
        note.write_bytes(msgspec.json.encode(Servers(kafka, redis, url)))
        try:
            yield Stack(supervisor, full, url)
        finally:
            note.unlink(missing_ok=True)


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "cli", name]


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        SUPERVISOR_PID: str(os.getpid()),
        "RECOMMENDER_KAFKA": settings.kafka,
        "RECOMMENDER_REDIS": settings.redis,
        "RECOMMENDER_HOST": settings.host,
        "RECOMMENDER_PORT": str(settings.port),
        "RECOMMENDER_CACHE_S": str(settings.cache_s),
        "RECOMMENDER_DATA_DIR": str(settings.data_dir.resolve()),
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own loopback address
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _note(data_dir: Path) -> Path:
    return data_dir / "servers.json"
