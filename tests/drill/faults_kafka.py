"""Faults of Kafka and of the network."""

from __future__ import annotations

import random

from tests.drill.faults import fault
from tests.drill.proxy import TcpProxy
from tests.drill.site import Site, frozen, pause


@fault("kafka", is_slow=True)
def kafka_killed(site: Site, chance: random.Random) -> None:
    """Kafka is killed -9 and started again."""
    site.kafka.kill()
    pause(chance, 0, 3)
    site.kafka.start()


@fault("kafka", is_slow=True)
def kafka_restarted(site: Site, chance: random.Random) -> None:
    """Kafka is stopped and started again."""
    site.kafka.stop()
    pause(chance, 0, 1)
    site.kafka.start()


@fault("kafka")
def kafka_halted(site: Site, chance: random.Random) -> None:
    """Kafka is paused, also for longer than the session timeout."""
    with frozen(site.kafka):
        pause(chance, 0.5, 8)


@fault("network")
def kafka_connections_reset(site: Site, chance: random.Random) -> None:
    """Every connection to Kafka is reset, several times."""
    for _ in range(chance.randrange(1, 6)):
        site.kafka_proxy.reset()
        pause(chance, 0, 0.5)


@fault("network")
def kafka_delayed(site: Site, chance: random.Random) -> None:
    """Everything to and from Kafka arrives late."""
    _delay(site.kafka_proxy, chance)


@fault("network")
def kafka_silent(site: Site, chance: random.Random) -> None:
    """Connections to Kafka are half open: nothing arrives, and then all at once or never."""
    _silence(site.kafka_proxy, chance)


@fault("network")
def redis_connections_reset(site: Site, chance: random.Random) -> None:
    """Connections of a worker or the API to Redis are reset, several times."""
    proxy = chance.choice(site.redis_proxies)
    for _ in range(chance.randrange(1, 8)):
        proxy.reset()
        pause(chance, 0, 0.3)


@fault("network")
def redis_delayed(site: Site, chance: random.Random) -> None:
    """Everything to and from Redis arrives late, for a worker or the API."""
    _delay(chance.choice(site.redis_proxies), chance)


@fault("network")
def redis_silent(site: Site, chance: random.Random) -> None:
    """A connection to Redis is half open: a step that was given up may still arrive later."""
    _silence(chance.choice(site.redis_proxies), chance)


def _delay(proxy: TcpProxy, chance: random.Random) -> None:
    proxy.delay(chance.uniform(0.02, 0.4))
    pause(chance, 1, 4)
    proxy.delay(0)


def _silence(proxy: TcpProxy, chance: random.Random) -> None:
    proxy.silence()
    pause(chance, 0.5, 8)
    if chance.random() < 0.5:
        proxy.reset()
    proxy.resume()
