"""The whole stack as children of one process, for `recommender up` and `recommender demo`."""

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
from models.servers.running_servers import announced
from models.servers.tls import context_of_own_server
from models.settings import Settings
from ops.embedded_servers import supervise_broker, supervise_redis
from ops.forked_processes import end_fork_server, load_now
from ops.ports import free_port, is_free_port, port_holder
from ops.supervisor import Supervisor

KAFKA_PORT, REDIS_PORT = 9092, 6379
"""Preferred ports of the embedded servers; free ones are used if these are taken."""

EMBEDDED_PARTITIONS = 4
"""Partitions of each event topic on the embedded broker: each fetch of a consumer names every
partition, which costs both sides CPU, and one machine needs few."""

READY_S = 300.0
"""Longest wait for a process to be ready: on half a busy core it loads for a minute."""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    supervisor: Supervisor
    settings: Settings
    api_url: str


@dataclass(frozen=True)
class MessageCounts:
    """Counts of accepted messages that are not in effect.

    Attributes
    ----------
    lag
        Messages in Kafka beyond the watermarks.
    begin
        Begins to record the messages that the embedded broker of these settings acknowledges.
    lost
        Messages lost with the memory of that broker since `begin`, or since the last call; `None`
        if unknown.
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
    run_command: Callable[[], object] | None,
    workers: int = 1,
    is_fresh: bool = False,
) -> Iterator[Stack]:
    """Start servers that are not configured, topics, workers, jobs and API; stop all at the end.

    Parameters
    ----------
    make_topics
        Makes the topics; called again after a restart of the embedded broker.
    messages
        Counts of accepted messages that are not in effect.
    run_command
        Runs the command in `sys.argv`, in a forked process; `None` starts a new interpreter for
        each command.
    is_fresh
        Delete the data of an earlier embedded Redis of this folder first.
    """

    def drain(ends_at_once: Callable[[], bool]) -> None:
        # The API is down, so nothing new arrives; messages not in effect are lost with the broker.
        deadline_s = time.monotonic() + settings.drain_s
        while (left := messages.lag(full)) and not ends_at_once() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        if left:
            say(f"{left} accepted messages have not taken effect and are lost with the broker")

    def on_restart(name: str) -> None:
        if name == "broker":
            say(_lost_messages_text("the broker ended", messages.lost(full)))
            make_topics(full)

    port = _api_port(settings, say)
    is_forking = run_command is not None
    with _supervised(settings, say, on_restart, is_forking=is_forking) as supervisor:
        was_killed = (settings.data_dir / "servers.json").exists() and not is_fresh
        if is_fresh:
            shutil.rmtree(settings.data_dir / "redis", ignore_errors=True)
        # The broker is forked, as soon as the fork server has loaded; Redis starts meanwhile.
        redis = settings.redis or supervise_redis(supervisor, port=REDIS_PORT)
        kafka = settings.kafka or supervise_broker(supervisor, port=KAFKA_PORT)
        full = settings.model_copy(update={"kafka": kafka, "redis": redis, "port": port})
        if not settings.kafka and "partitions" not in settings.model_fields_set:
            full = full.model_copy(update={"partitions": max(EMBEDDED_PARTITIONS, workers)})
        if not settings.kafka:
            if was_killed:
                say(_lost_messages_text("the last run was killed", messages.lost(full)))
            messages.begin(full)
        make_topics(full)
        _start_processes(
            supervisor, full, workers, run_command, drain if not settings.kafka else None
        )
        supervisor.settle()
        url = _url(full)
        with announced(settings.data_dir, full, url):
            yield Stack(supervisor, full, url)


@contextlib.contextmanager
def _supervised(
    settings: Settings,
    say: Callable[[str], None],
    on_restart: Callable[[str], None],
    *,
    is_forking: bool,
) -> Iterator[Supervisor]:
    """A supervisor, and beside it the fork server, which ends after it."""
    with contextlib.ExitStack() as ends:
        ends.callback(end_fork_server)
        supervisor = Supervisor(settings.data_dir, say=say, on_restart=on_restart)
        ends.enter_context(supervisor)
        if is_forking:
            load_now()
        yield supervisor


def _start_processes(
    supervisor: Supervisor,
    settings: Settings,
    workers: int,
    run_command: Callable[[], object] | None,
    drain: Callable[[Callable[[], bool]], None] | None,
) -> None:
    """Start workers, jobs and API, all at once; `drain` is called when the API has ended."""
    environment = _environment(settings)
    names = ["worker"] if workers == 1 else [f"worker-{n + 1}" for n in range(workers)]
    for number, name in enumerate([*names, "jobs"]):
        supervisor.start(
            name,
            _command(name.partition("-")[0], run_command),
            environment | _metrics(settings, number),
            ready_s=READY_S,
            tells_ready=True,
            waits=False,
            function=run_command,
        )
    supervisor.start(
        "api",
        _command("api", run_command),
        environment,
        port=settings.port,
        ready=lambda: _answers(f"{_url(settings)}/readyz", settings.tls_certificate_file),
        ready_s=READY_S,
        waits=False,
        after_stop=drain or (lambda _ends_at_once: None),
        function=run_command,
    )


def _command(name: str, run_command: Callable[[], object] | None) -> list[str]:
    return ["recommender", name] if run_command else [sys.executable, "-m", "cli", name]


def _url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104
    return f"http{'s' if settings.tls_certificate_file else ''}://{host}:{settings.port}"


def _api_port(settings: Settings, say: Callable[[str], None]) -> int:
    """Port of the API; a free one if the default, not an explicit one, is taken."""
    port = settings.port
    if not port or is_free_port(port, settings.host):
        return port or free_port()
    taken = f"port {port} is taken by {port_holder(port)}"
    if "port" in settings.model_fields_set:
        raise CannotStart(f"{taken}: choose another with --port or RECOMMENDER_PORT")
    other = free_port()
    say(f"{taken}: the API listens on {other} instead")
    return other


def _environment(settings: Settings) -> dict[str, str]:
    inherited = dict(os.environ)
    # A secret that is given twice is an error.
    inherited.pop("RECOMMENDER_REDIS_FILE", None)
    return {
        **inherited,
        "RECOMMENDER_KAFKA": settings.kafka,
        "RECOMMENDER_REDIS": settings.redis,
        "RECOMMENDER_HOST": settings.host,
        "RECOMMENDER_PORT": str(settings.port),
        "RECOMMENDER_CACHE_S": str(settings.cache_s),
        "RECOMMENDER_DATA_DIR": str(settings.data_dir.resolve()),
        "RECOMMENDER_PARTITIONS": str(settings.partitions),
    }


def _metrics(settings: Settings, number: int) -> dict[str, str]:
    """The metrics port of each child: consecutive from the configured one."""
    port = settings.metrics_port
    return {"RECOMMENDER_METRICS_PORT": str(port + number if port else 0)}


def _answers(url: str, certificate_file: str) -> bool:
    try:
        context = context_of_own_server(certificate_file) if certificate_file else None
        with urllib.request.urlopen(url, timeout=2, context=context):  # noqa: S310  our own loopback address
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _lost_messages_text(what: str, n_lost: int | None) -> str:
    """The message about a broker that ended without a drain."""
    if n_lost == 0:
        return f"{what}: all that it had accepted had taken effect"
    messages = "messages" if n_lost is None else f"{n_lost} messages"
    return (
        f"{what}: {messages} that it had accepted and not yet brought into effect were lost with"
        " the memory of its broker"
    )
