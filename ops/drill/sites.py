"""Sites to drill: throw-away servers, or a dataset group of its own on somebody's servers."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kafka.errors import KafkaError

from models.settings import Settings
from models.settings.environment import PREFIX
from models.state.groups.group_registry import erase_group
from ops.drill.load import Load
from ops.drill.proxy import TcpProxy
from ops.drill.reads import admin, stored
from ops.drill.servers import ThrowawayServer, apache_kafka, embedded_broker, throwaway_redis
from ops.drill.site import Site
from ops.drill.site_processes import Processes
from ops.ports import HOST, ReservedPort
from streams.kafka.topics import ensure_topics

WORKERS = 2
PARTITIONS = 8
EMBEDDED_SESSION_TIMEOUT_S, APACHE_SESSION_TIMEOUT_S = 2.0, 6.0
"""Apache Kafka allows no less."""

LOAD_BEHIND_S = 3 * 86400
"""The events' times begin so long ago, and go on faster than a clock."""


class Wish(NamedTuple):
    """The site that a drill is to have.

    Attributes
    ----------
    seed, per_s
        Of the load; messages a second.
    run_command
        Runs the command in `sys.argv`, in a forked process; `None` starts a new interpreter.
    kafka_folder
        An Apache Kafka, instead of the embedded broker.
    redis_program
        Executable of Redis, instead of the embedded one.
    """

    seed: int
    per_s: float
    run_command: Callable[[], object] | None
    kafka_folder: Path | None = None
    redis_program: str | None = None


def throwaway_powers(kafka_folder: Path | None) -> frozenset[str]:
    """Powers of a site on servers of its own."""
    powers = {"kafka", "redis", "kafka-proxy", "redis-proxy"}
    return frozenset(powers | ({"apache"} if kafka_folder else set()))


def configured_powers(settings: Settings) -> frozenset[str]:
    """Powers of a site on the servers that the settings name."""
    return frozenset({"redis-proxy"} if is_plain_redis(settings) else ())


@contextlib.contextmanager
def throwaway_site(folder: Path, wish: Wish) -> Iterator[Site]:
    """A running site on servers of its own, without load; all of it ends at the end.

    Settings of the environment and of a file have no effect on it.
    """
    with contextlib.ExitStack() as closing:
        listener = closing.enter_context(ReservedPort()).number
        proxy = closing.enter_context(TcpProxy(lambda: (HOST, listener)))
        kafka: ThrowawayServer
        if wish.kafka_folder is None:
            kafka = closing.enter_context(embedded_broker(folder, listener, proxy.port))
            session_s = EMBEDDED_SESSION_TIMEOUT_S
        else:
            served = apache_kafka(folder / "kafka", wish.kafka_folder, listener, proxy.port)
            kafka = closing.enter_context(served)
            session_s = APACHE_SESSION_TIMEOUT_S
        redis = closing.enter_context(throwaway_redis(folder, wish.redis_program))
        given: dict[str, Any] = {
            "kafka": kafka.address,
            "redis": f"redis://{redis.address}/0",
            "group": "drill",
            "topic_prefix": "drill.",
            "partitions": PARTITIONS,
            "session_timeout_s": session_s,
            "data_dir": folder / "data",
            "port": closing.enter_context(ReservedPort()).number,
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        # Of nothing but these: not of the environment, nor of a file in this folder.
        settings = Settings.model_construct(**given)
        site = _site(
            closing,
            folder,
            wish,
            settings,
            Processes(
                wish.run_command, inherited | _variables(given), folder, folder / "process-logs"
            ),
            powers=throwaway_powers(wish.kafka_folder),
            kafka_proxy=proxy,
        )
        site.own_redis, site.own_kafka = redis, kafka
        ensure_topics(settings)
        yield _started(site)


@contextlib.contextmanager
def configured_site(folder: Path, wish: Wish, settings: Settings) -> Iterator[Site]:
    """A running site on the servers that the settings name; nothing of it is left there.

    It has a dataset group, topics and a consumer group with a name of their own. Kafka's clients
    connect to the addresses that its brokers name, so there is no proxy before it; there is one
    before a Redis of one address without TLS.
    """
    name = drill_name()
    with contextlib.ExitStack() as closing:
        given: dict[str, Any] = {
            "kafka": settings.kafka,
            "redis": settings.redis,
            "group": name,
            "topic_prefix": f"{name}.",
            "partitions": PARTITIONS,
            "data_dir": folder / "data",
            "host": HOST,
            "access": "auto",
            "port": closing.enter_context(ReservedPort()).number,
            "forward_tracking_id": "",
            "tls_certificate_file": "",
            "tls_key_file": "",
        }
        own = settings.model_copy(update=given | {"forward_tracking_ids": {}})
        environment = dict(os.environ) | _variables(given)
        # A secret that is given twice is an error.
        environment.pop("RECOMMENDER_REDIS_FILE", None)
        closing.callback(remove_traces, own)
        site = _site(
            closing,
            folder,
            wish,
            own,
            Processes(wish.run_command, environment, Path.cwd(), folder / "process-logs"),
            powers=configured_powers(settings),
            kafka_proxy=None,
        )
        ensure_topics(own)
        yield _started(site)


def drill_name() -> str:
    """A name that nothing else on the servers has."""
    return f"drill-{secrets.token_hex(5)}"


def is_plain_redis(settings: Settings) -> bool:
    """True for a Redis at one address without TLS: a proxy can stand before it.

    >>> [is_plain_redis(Settings(redis=url)) for url in ("redis://a:1/0", "rediss://a:1/0")]
    [True, False]
    """
    is_one = not (settings.redis_cluster or settings.redis_sentinel_master)
    return is_one and settings.redis.startswith("redis://")


def remove_traces(settings: Settings) -> None:
    """Delete the topics, the consumer group and the keys of a drill's dataset group.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    try:
        with admin(settings) as client:
            names = [
                name for name in client.list_topics() if name.startswith(settings.topic_prefix)
            ]
            if names:
                client.delete_topics(names)
            with contextlib.suppress(KafkaError):
                client.delete_groups([f"{settings.group}-worker"])
    finally:
        stored(settings, lambda store: erase_group(store.redis, settings.group))


def _variables(given: dict[str, Any]) -> dict[str, str]:
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in given.items()}


def _site(
    closing: contextlib.ExitStack,
    folder: Path,
    wish: Wish,
    settings: Settings,
    processes: Processes,
    *,
    powers: frozenset[str],
    kafka_proxy: TcpProxy | None,
) -> Site:
    """A site whose processes end with `closing`; none is up yet."""
    processes.logs.mkdir(parents=True, exist_ok=True)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    environments: list[dict[str, str]] = [{} for _ in range(WORKERS + 1)]
    redis_proxies = []
    if kafka_proxy is not None:
        for environment in environments:
            environment[f"{PREFIX}KAFKA"] = f"{HOST}:{kafka_proxy.port}"
    if "redis-proxy" in powers:
        url = urlsplit(settings.redis)
        target = url.hostname or HOST, url.port or 6379
        for environment in environments:
            proxy = closing.enter_context(TcpProxy(lambda: target))
            redis_proxies.append(proxy)
            login = url.netloc.rpartition("@")[0]
            place = f"{login}@{HOST}:{proxy.port}" if login else f"{HOST}:{proxy.port}"
            environment[f"{PREFIX}REDIS"] = url._replace(netloc=place).geturl()
    *of_workers, of_api = environments
    load = Load(
        seed=wish.seed,
        settings=settings,
        per_s=wish.per_s,
        start_s=int(time.time()) - LOAD_BEHIND_S,
    )
    site = Site(
        directory=folder,
        settings=settings,
        powers=powers,
        processes=processes,
        load=load,
        workers=[
            processes.restarted(f"worker{n}", "worker", environment)
            for n, environment in enumerate(of_workers)
        ],
        api=processes.restarted("api", "api", of_api),
        kafka_proxy=kafka_proxy,
        redis_proxies=redis_proxies,
        environments=environments,
    )
    closing.callback(site.end)
    return site


def _started(site: Site) -> Site:
    for process in (*site.workers, site.api):
        process.up()
    site.wait_ready()
    return site
