"""Settings of a command, and checks of the servers that they name."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from cli.group import say
from models.errors import CannotStart, NotConfigured, Unavailable
from models.settings import Settings
from models.settings.access import is_loopback
from models.settings.environment import READY_FILE

WAIT_FOR_KAFKA_S = 2.0


def settings_with_servers(*, needs_redis: bool = True) -> Settings:
    """The settings; servers that they do not name are those of a running `up` or `demo`."""
    from models.servers.running_servers import located

    return located(Settings(), needs_redis=needs_redis)


def reachable_settings(*, needs_kafka: bool = True, needs_redis: bool = True) -> Settings:
    """The settings of a command, after a check that their servers answer."""
    settings = settings_with_servers(needs_redis=needs_redis)
    return check_servers(settings, needs_kafka=needs_kafka, needs_redis=needs_redis)


def check_servers(
    settings: Settings, *, needs_kafka: bool = True, needs_redis: bool = True
) -> Settings:
    """Check that the servers named in the settings can be used, and the state in Redis read.

    Returns the settings for the number of shards that the group has there.
    """
    # `up` lives long and needs neither client after this.
    if settings.kafka and needs_kafka:
        from streams.kafka.connections.connection import check_kafka

        check_kafka(settings)
    if settings.redis and needs_redis:
        from models.servers.server_checks import check_redis
        from models.state.copies.format_check import check_format

        check_redis(settings)
        return check_format(settings)
    return settings


def wait_for_servers(settings: Settings) -> Settings:
    """Wait until the servers answer and the topics exist: a worker may start before them.

    Permanent errors, such as a wrong password, are raised.
    """
    from streams.kafka.topics import Topics, topic_ids

    topics, said = Topics.of(settings), ""
    # The client logs every refused connection; `say` below gives the reason once.
    client = logging.getLogger("kafka")
    level = client.level
    client.setLevel(logging.CRITICAL)
    while True:
        try:
            found = check_servers(settings)
            topic_ids(settings, [topics.clicks, topics.purchases])
        except Unavailable as error:
            if str(error) != said:
                said = str(error)
                say(f"waiting: {said}")
            time.sleep(WAIT_FOR_KAFKA_S)
        else:
            client.setLevel(level)
            return found


def warn_of_memory(settings: Settings) -> Settings:
    """Print warnings about the memory of Redis; nothing if Redis is away."""
    from models.state.clients.client import client_of
    from models.state.clients.redis_errors import AWAY_ERRORS
    from models.state.operations.memory import read_memory, risks, shortages

    async def read_warnings() -> list[str]:
        async with client_of(settings) as client:
            memory = await read_memory(client)
        return [*shortages(memory), *risks(memory)]

    try:
        for text in asyncio.run(read_warnings()):
            say(f"WARNING: {text}")
    except AWAY_ERRORS as error:
        logging.getLogger(__name__).info("the memory of Redis was not checked: %s", error)
    return settings


def check_access(settings: Settings) -> None:
    """Raise `NotConfigured` where the API asks for keys and there are none; passes without Redis.

    On loopback a warning is enough: nobody is let in until there is one. A process that starts
    without Redis refuses every key until it has read them.
    """
    from models.state.clients.client import client_of
    from models.state.clients.redis_errors import AWAY_ERRORS
    from models.state.groups.key_store import has_keys

    async def any_keys() -> bool:
        async with client_of(settings) as client:
            return await has_keys(client)

    if not settings.requires_keys:
        return
    try:
        found = asyncio.run(any_keys())
    except AWAY_ERRORS as error:
        logging.getLogger(__name__).info("API keys were not looked for: %s", error)
        return
    if found:
        return
    remedy = "create one with `recommender keys create NAME --role …`"
    if is_loopback(settings.host):
        say(f"WARNING: there are no API keys, so every caller is refused: {remedy}")
        return
    raise NotConfigured(
        f"the API would listen on {settings.host} and there are no API keys: {remedy}, or let "
        "everybody who reaches it do everything with RECOMMENDER_ACCESS=open"
    )


def serve_metrics(settings: Settings) -> Settings:
    """Serve this process's metrics if a port is configured."""
    if settings.metrics_port:
        from prometheus_client import start_http_server

        check_port_is_free(settings.host, settings.metrics_port, "RECOMMENDER_METRICS_PORT")
        start_http_server(settings.metrics_port, settings.host)
    return settings


def check_port_is_free(host: str, port: int, name: str) -> None:
    """Raise `CannotStart` if a port is taken; `name` is the setting to change."""
    from ops.ports import is_free_port, port_holder

    if port and not is_free_port(port, host):
        raise CannotStart(f"port {port} is taken by {port_holder(port)}: set {name} to another")


def report_ready() -> None:
    """Tell the supervisor, if there is one, that this process is ready."""
    file = os.environ.pop(READY_FILE, None)
    if file:
        Path(file).touch()
