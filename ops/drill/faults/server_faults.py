"""Faults of Kafka and of the network."""

from __future__ import annotations

import random

from ops.drill.faults.fault_registry import fault
from ops.drill.proxy import TcpProxy
from ops.drill.site import NotSeen, Site


@fault("kafka", needs=("kafka", "apache"), is_slow=True)
def kafka_killed(site: Site, chance: random.Random) -> str:
    """Kafka is killed -9 and started again."""
    before = site.kafka.pid
    site.kafka.kill()
    site.pause(chance, 0, 3)
    site.kafka.start()
    return f"process {before} was killed, {site.kafka.pid} answers"


@fault("kafka", needs=("kafka", "apache"), is_slow=True)
def kafka_restarted(site: Site, chance: random.Random) -> str:
    """Kafka is stopped and started again."""
    before = site.kafka.pid
    site.kafka.stop()
    site.pause(chance, 0, 1)
    site.kafka.start()
    return f"process {before} was stopped, {site.kafka.pid} answers"


@fault("kafka", needs=("kafka",))
def kafka_paused(site: Site, chance: random.Random) -> str:
    """Kafka is not scheduled, also for longer than the session timeout."""
    with site.kafka.paused():
        site.pause(chance, 0.5, 8)
    return f"process {site.kafka.pid} stood still"


@fault("network", needs=("kafka-proxy",))
def kafka_connections_reset(site: Site, chance: random.Random) -> str:
    """Every connection to Kafka is reset, several times."""
    return _reset(_kafka_proxy(site), site, chance)


@fault("network", needs=("kafka-proxy",))
def kafka_delayed(site: Site, chance: random.Random) -> str:
    """Everything to and from Kafka arrives late."""
    return _delay(_kafka_proxy(site), site, chance)


@fault("network", needs=("kafka-proxy",))
def kafka_silent(site: Site, chance: random.Random) -> str:
    """Kafka is cut off, its connections half open: nothing arrives, and then all or never."""
    return _silence(_kafka_proxy(site), site, chance)


@fault("network", needs=("redis-proxy",))
def redis_connections_reset(site: Site, chance: random.Random) -> str:
    """Connections of a worker or the API to Redis are reset, several times."""
    return _reset(_redis_proxy(site, chance), site, chance)


@fault("network", needs=("redis-proxy",))
def redis_delayed(site: Site, chance: random.Random) -> str:
    """Everything to and from Redis arrives late, for a worker or the API."""
    return _delay(_redis_proxy(site, chance), site, chance)


@fault("network", needs=("redis-proxy",))
def redis_silent(site: Site, chance: random.Random) -> str:
    """A worker or the API is cut off from Redis: a step that was given up may arrive later."""
    return _silence(_redis_proxy(site, chance), site, chance)


def _kafka_proxy(site: Site) -> TcpProxy:
    if site.kafka_proxy is None:
        raise NotSeen("there is no proxy before this Kafka")
    return site.kafka_proxy


def _redis_proxy(site: Site, chance: random.Random) -> TcpProxy:
    """The proxy before Redis of one process, which runs if any does."""
    used = [proxy for proxy in site.redis_proxies if proxy.n_open]
    return chance.choice(used or site.redis_proxies)


def _reset(proxy: TcpProxy, site: Site, chance: random.Random) -> str:
    n = site.seen(proxy.reset, "a connection is reset")
    for _ in range(chance.randrange(6)):
        site.pause(chance, 0, 0.4)
        n += proxy.reset()
    return f"{n} connections were reset"


def _delay(proxy: TcpProxy, site: Site, chance: random.Random) -> str:
    before = proxy.n_held
    proxy.delay(chance.uniform(0.02, 0.4))
    try:
        site.pause(chance, 1, 4)
        n = site.seen(lambda: proxy.n_held - before, "data is delayed")
    finally:
        proxy.delay(0)
    return f"{n} pieces of data were late"


def _silence(proxy: TcpProxy, site: Site, chance: random.Random) -> str:
    before = proxy.n_held
    proxy.silence()
    try:
        site.pause(chance, 0.5, 8)
        n = site.seen(lambda: proxy.n_held - before, "data is held back")
        if chance.random() < 0.5:
            proxy.reset()
    finally:
        proxy.resume()
    return f"{n} pieces of data were held back"
