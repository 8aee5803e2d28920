"""Commands that run the service: everything together, or one process of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import shutil
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from models.code_cache import compile_once
from models.errors import NotConfigured, Unavailable
from models.settings import Settings

if TYPE_CHECKING:
    from ops.stack import MessageCounts, Stack

from cli.audit import record
from cli.forked_commands import call_lean, forked_command
from cli.group import main, say
from cli.servers import (
    check_access,
    check_port_is_free,
    check_servers,
    reachable_settings,
    report_ready,
    serve_metrics,
    settings_with_servers,
    wait_for_servers,
    warn_of_memory,
)

port_option = click.option(
    "--port", type=click.IntRange(0, 65535), help="Port of the API; default 8080."
)


@main.command()
@port_option
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
def up(port: int | None, workers: int) -> None:
    """Run everything: workers, jobs and API, with embedded broker and Redis unless configured."""
    settings = Settings() if port is None else Settings(port=port)
    check_servers(settings)
    say_what_starts(settings)
    compile_once(say)

    with (
        contextlib.suppress(KeyboardInterrupt),
        started_stack(settings, workers=workers) as stack,
    ):
        say(f"recommender: {stack.api_url}  (API reference: {stack.api_url}/docs)")
        call_lean(warn_of_memory, stack.settings)
        stack.supervisor.run()


def started_stack(
    settings: Settings, *, workers: int = 1, is_fresh: bool = False
) -> AbstractContextManager[Stack]:
    """Everything that `up` and `demo` run, ended with the block; see `ops.stack.run_stack`."""
    from ops.stack import run_stack

    return run_stack(
        settings,
        say=say,
        make_topics=functools.partial(call_lean, make_topics),
        messages=count_broker_messages(),
        run_command=forked_command(),
        workers=workers,
        is_fresh=is_fresh,
    )


def say_what_starts(settings: Settings) -> None:
    """Say what begins, before anything that takes seconds is loaded."""
    own = [name for name, at in (("broker", settings.kafka), ("Redis", settings.redis)) if not at]
    say(f"starting {', '.join([*own, 'worker', 'jobs'])} and API")


@main.command()
@port_option
@click.option("--once", is_flag=True, help="Show the effect of one click, then stop.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def demo(port: int | None, once: bool, as_json: bool) -> None:
    """Run everything with simulated shoppers, and show how a click changes an answer."""
    settings = Settings() if port is None else Settings(port=port)
    say_what_starts(settings)
    from models.servers.running_servers import DEMO
    from ops import demo as shown

    if settings.tls_certificate_file or settings.requires_keys:
        raise NotConfigured("the demo is for loopback, without TLS and API keys: run `up` instead")
    update = {"data_dir": settings.data_dir / DEMO, "cache_s": shown.DEMO_CACHE_S}
    settings = settings.model_copy(update=update)
    check_servers(settings)
    compile_once(say)
    with (
        contextlib.suppress(KeyboardInterrupt),
        started_stack(settings, is_fresh=True) as stack,
    ):
        shown.run_demo(stack, once=once, as_json=as_json, say=say, write=click.echo)
    # Simulated data is not kept; after a failure this is not reached, and the logs stay.
    shutil.rmtree(settings.data_dir)
    with contextlib.suppress(OSError):
        settings.data_dir.parent.rmdir()


@main.command()
def api() -> None:
    """Run the HTTP API."""
    settings = settings_with_servers()
    check_port_is_free(settings.host, settings.port, "RECOMMENDER_PORT")
    try:
        settings = check_servers(settings)
    except Unavailable as error:
        # It starts all the same; `/readyz` reports what is missing.
        say(f"not ready yet: {error}")
    warn_of_memory(settings)
    check_access(settings)
    compile_once(say)

    import uvicorn

    from api.app import create_app
    from api.personalize.service_model import service_operations
    from api.server.connections import allow_connections
    from api.server.server_options import server_options
    from models.state.clients.client import client_of
    from models.state.shards.sharded_store import store_of
    from streams.agents.learning.running_challengers import RunningChallengers
    from streams.kafka.producing.publisher import Publisher
    from streams.operations.kafka_console import KafkaConsole

    allow_connections(settings.max_connections)
    app = create_app(
        settings,
        store_of(client_of(settings, reads_replica=True), settings),
        Publisher(settings),
        kafka=KafkaConsole(settings),
        challengers=RunningChallengers(settings) if settings.challengers else None,
    )
    # Its first caller would wait for it.
    service_operations()
    # What is loaded stays for ever: walking through it again and again would take the garbage
    # collector tens of milliseconds in the middle of a request.
    gc.collect()
    gc.freeze()
    uvicorn.run(app, **server_options(settings, app.state.gates))


@main.command()
def worker() -> None:
    """Run a worker: apply events to the state, and train the ranker."""
    settings = warn_of_memory(wait_for_servers(serve_metrics(settings_with_servers())))
    compile_once(say)

    from streams.agents.worker import Worker, app_of
    from streams.kafka.faust_clients.faust_app import run

    while True:
        one = Worker(settings)
        run(app_of(one, ready=report_ready))
        if not one.has_moved:
            return
        # Its group has other shards: it begins anew on those.
        settings = wait_for_servers(settings)


@main.command()
def jobs() -> None:
    """Run jobs of the Amazon Personalize API: imports, training, batch inference, deletions."""
    settings = wait_for_servers(serve_metrics(settings_with_servers()))
    compile_once(say)

    from streams.jobs.runner import run

    while run(settings, ready=report_ready):
        settings = wait_for_servers(settings)


@main.command()
def forward() -> None:
    """Run the forwarder: send every event to Amazon Personalize."""
    settings = wait_for_servers(serve_metrics(settings_with_servers()))

    from streams.forwarding.app import forward_app
    from streams.kafka.faust_clients.faust_app import run

    run(forward_app(settings))


@main.command()
def topics() -> None:
    """Create the topics that do not exist yet, and set for how long topics keep messages."""
    from models.state.copies.format_check import on_stored_shards
    from streams.kafka.topics import apply_retention, ensure_topics

    settings = reachable_settings(needs_redis=False)
    if settings.redis:
        try:
            settings = on_stored_shards(settings)
        except Unavailable:
            # The topics of deltas are of the layout that is stored there, whatever the setting.
            if settings.shards > 1:
                raise
    made = ensure_topics(settings)
    click.echo(f"made {', '.join(made)}" if made else "all topics exist")
    changed = apply_retention(settings)
    for one in changed:
        before = f"{one.before_s / 86400:g} days" if one.before_s >= 0 else "ever"
        click.echo(f"{one.topic}: kept for {one.wanted_s / 86400:g} days now, for {before} before")
    if changed:
        record(settings, "set_retention", [f"{one.topic} {one.wanted_s:g} s" for one in changed])


def make_topics(settings: Settings) -> None:
    """Create the topics that do not exist yet, those of the group's layout of shards."""
    from models.state.copies.format_check import check_format
    from streams.kafka.topics import ensure_topics

    ensure_topics(check_format(settings))


def read_lag(settings: Settings) -> int:
    """Messages in Kafka beyond the watermarks; raises `Unavailable`."""
    from streams.operations.status import read_status

    return asyncio.run(read_status(settings, now_s=time.time())).lag


def begin_record(settings: Settings) -> None:
    """Begin to record what the embedded broker acknowledges."""
    from streams.kafka.consuming import acknowledged

    acknowledged.begin(settings)


def read_lost(settings: Settings) -> dict[str, int]:
    """Acknowledged messages of each partition that are lost; raises `Unavailable`."""
    from streams.kafka.consuming import acknowledged

    return asyncio.run(acknowledged.lost(settings))


def count_broker_messages() -> MessageCounts:
    """Counts of accepted messages not in effect, taken in processes of their own."""
    from ops.stack import MessageCounts

    counted: dict[str, int] = {}

    def lag(settings: Settings) -> int:
        try:
            return call_lean(read_lag, settings)
        except Unavailable as error:
            say(str(error))
            return 0

    def lost(settings: Settings) -> int | None:
        try:
            found = call_lean(read_lost, settings)
        except Unavailable as error:
            say(str(error))
            return None
        n_new = sum(n for field, n in found.items() if field not in counted)
        counted.update(found)
        return n_new

    return MessageCounts(lag, functools.partial(call_lean, begin_record), lost)
