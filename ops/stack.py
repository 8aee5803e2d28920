"""The whole stack as children of one process: what `recommender up` and `recommender demo` run."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from models.errors import CannotStart
from models.running_servers import announced
from models.settings import Settings
from ops.embedded_servers import supervise_broker, supervise_redis
from ops.ports import free_port, is_free_port, port_holder
from ops.supervisor import Supervisor

KAFKA_PORT, REDIS_PORT = 9092, 6379
"""Preferred by the embedded servers; others are taken where these are in use."""

READY_S = 300.0
"""Longest wait for a process of ours to be ready: half a busy core takes a minute to load it."""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    supervisor: Supervisor
    settings: Settings
    api_url: str


@dataclass(frozen=True)
class MessageCounts:
    """Counts accepted messages that are not in effect.

    Attributes
    ----------
    lag
        Those that Kafka has.
    begin
        Begins to note what the embedded broker of these settings acknowledges.
    lost
        Those that such a broker took along since then, or since it was asked last; `None` where
        nobody knows.
    """

    lag: Callable[[Settings], int]
    begin: Callable[[Settings], None]
    lost: Callable[[Settings], int | None]


@contextlib.contextmanager
def run_stack(
    settings: Settings,
    *,
    say: Callable[[str], None],
    make_topics: Callable[[Settings], object],
    messages: MessageCounts,
    workers: int = 1,
    is_fresh: bool = False,
) -> Iterator[Stack]:
    """Start what is not configured, then topics, workers, jobs and the API; stop all at the end.

    Parameters
    ----------
    make_topics
        Makes the topics; called again when the embedded broker had to be started again.
    messages
        Counts those that are accepted and not in effect.
    is_fresh
        Begin without what an earlier embedded Redis of this folder has kept.
    """

    def drain(hurries: Callable[[], bool]) -> None:
        # Nothing new comes in any more, and what is not in effect goes with the broker's memory.
        deadline_s = time.monotonic() + settings.drain_s
        while (left := messages.lag(full)) and not hurries() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        if left:
            say(f"{left} accepted messages have not taken effect and are lost with the broker")

    def on_restart(name: str) -> None:
        if name == "broker":
            say(_taken_along("the broker ended", messages.lost(full)))
            make_topics(full)

    port = _api_port(settings, say)
    with Supervisor(settings.data_dir, say=say, on_restart=on_restart) as supervisor:
        was_killed = (settings.data_dir / "servers.json").exists() and not is_fresh
        if is_fresh:
            shutil.rmtree(settings.data_dir / "redis", ignore_errors=True)
        kafka = settings.kafka or supervise_broker(supervisor, port=KAFKA_PORT)
        redis = settings.redis or supervise_redis(supervisor, port=REDIS_PORT)
        full = settings.model_copy(update={"kafka": kafka, "redis": redis, "port": port})
        if not settings.kafka:
            if was_killed:
                say(_taken_along("the last run was killed", messages.lost(full)))
            messages.begin(full)
        make_topics(full)
        environment = _environment(full)
        for number in range(workers):
            name = "worker" if workers == 1 else f"worker-{number + 1}"
            supervisor.start(
                name,
                _command("worker"),
                environment | _metrics(full, number),
                ready_s=READY_S,
                tells_ready=True,
                waits=False,
            )
        supervisor.start(
            "jobs",
            _command("jobs"),
            environment | _metrics(full, workers),
            ready_s=READY_S,
            tells_ready=True,
            waits=False,
        )
        url = f"http://{'127.0.0.1' if full.host == '0.0.0.0' else full.host}:{full.port}"  # noqa: S104
        supervisor.start(
            "api",
            _command("api"),
            environment,
            port=full.port,
            ready=lambda: _answers(f"{url}/readyz"),
            ready_s=READY_S,
            waits=False,
            after_stop=drain if not settings.kafka else lambda _hurries: None,
        )
        supervisor.settle()
        with announced(settings.data_dir, full, url):
            yield Stack(supervisor, full, url)


def _api_port(settings: Settings, say: Callable[[str], None]) -> int:
    """The port for the API; another is only taken where nobody has asked for this one."""
    port = settings.port
    if not port or is_free_port(port, settings.host):
        return port or free_port()
    taken = f"port {port} is taken by {port_holder(port)}"
    if "port" in settings.model_fields_set:
        raise CannotStart(f"{taken}: choose another with --port or RECOMMENDER_PORT")
    other = free_port()
    say(f"{taken}: the API listens on {other} instead")
    return other


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "cli", name]


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "RECOMMENDER_KAFKA": settings.kafka,
        "RECOMMENDER_REDIS": settings.redis,
        "RECOMMENDER_HOST": settings.host,
        "RECOMMENDER_PORT": str(settings.port),
        "RECOMMENDER_CACHE_S": str(settings.cache_s),
        "RECOMMENDER_DATA_DIR": str(settings.data_dir.resolve()),
    }


def _metrics(settings: Settings, number: int) -> dict[str, str]:
    """A port of its own for each child's metrics, where there is one for the first."""
    port = settings.metrics_port
    return {"RECOMMENDER_METRICS_PORT": str(port + number if port else 0)}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own loopback address
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _taken_along(what: str, n_lost: int | None) -> str:
    """What is said of a broker that ended without a drain."""
    if n_lost == 0:
        return f"{what}: all that it had accepted had taken effect"
    messages = "messages" if n_lost is None else f"{n_lost} messages"
    return (
        f"{what}: {messages} that it had accepted and not yet brought into effect were lost with"
        " the memory of its broker"
    )
