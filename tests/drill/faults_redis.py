"""Faults of Redis: away, full, read-only, and above all: back with less than it had."""

from __future__ import annotations

import contextlib
import random
import re
import signal
from pathlib import Path
from typing import Any

import redis

from tests.drill.faults import fault
from tests.drill.site import AOF, Site, frozen, pause

STEP = re.compile(
    rb"\*1\r\n\$5\r\nMULTI\r\n(?:(?!\*1\r\n\$4\r\nEXEC\r\n).)*?:watermarks\r\n"
    rb"(?:(?!\*1\r\n\$4\r\nEXEC\r\n).)*",
    re.DOTALL,
)
"""The commands of a step in the append-only file, up to the last."""


@fault("redis")
def redis_killed(site: Site, chance: random.Random) -> None:
    """Redis is killed -9 and started again: unwritten data is lost."""
    site.redis.kill()
    pause(chance, 0, 2)
    site.redis.start()


@fault("redis")
def redis_restarted(site: Site, chance: random.Random) -> None:
    """Redis is stopped and started again."""
    site.redis.stop()
    pause(chance, 0, 1)
    site.redis.start()


@fault("redis")
def redis_halted(site: Site, chance: random.Random) -> None:
    """Redis is paused, also for longer than its clients' timeout."""
    with frozen(site.redis):
        pause(chance, 0.5, 7)


@fault("redis")
def redis_older(site: Site, chance: random.Random) -> None:
    """Redis restarts with an older state of its data."""
    if site.snapshots:
        site.restore(chance.choice(site.snapshots))


@fault("redis")
def redis_older_twice(site: Site, chance: random.Random) -> None:
    """Redis restarts with older data, and again during the re-read."""
    if site.snapshots:
        site.restore(site.snapshots[-1])
        pause(chance, 0, 2.5)
        site.restore(chance.choice(site.snapshots[:-1] or site.snapshots))
        pause(chance, 0, 2.5)


@fault("redis", "worker")
def redis_older_while_balancing(site: Site, chance: random.Random) -> None:
    """Redis restarts with older data while partitions of a killed worker are reassigned."""
    worker = chance.choice(site.workers)
    worker.down(signal.SIGKILL)
    if site.snapshots:
        site.restore(chance.choice(site.snapshots))
    worker.up()


@fault("redis")
def redis_torn(site: Site, chance: random.Random) -> None:
    """The end of the append-only file is torn off at any byte; then Redis restarts once more."""
    _tear(site, chance, within_step=False)


@fault("redis")
def redis_torn_within_step(site: Site, chance: random.Random) -> None:
    """The append-only file ends within the commands of one step; then Redis restarts once more."""
    _tear(site, chance, within_step=True)


def _tear(site: Site, chance: random.Random, *, within_step: bool) -> None:
    site.redis.kill()
    path = _newest_file(site.redis.directory / AOF)
    written = path.read_bytes()
    steps = list(STEP.finditer(written))
    if within_step and steps:
        keep = chance.randrange(*chance.choice(steps[-3:]).span())
    else:
        keep = max(0, len(written) - chance.randrange(1, 3000))
    with path.open("r+b") as file:
        file.truncate(keep)
    site.redis.start()
    pause(chance, 0.2, 3)
    if chance.random() < 0.5:
        site.redis.kill()
    else:
        site.redis.stop()
    site.redis.start()


def _newest_file(folder: Path) -> Path:
    """The append-only file that is being written."""
    return max(folder.glob("*.incr.aof"), key=lambda path: int(re.findall(r"\d+", path.name)[-1]))


@fault("redis")
def redis_full(site: Site, chance: random.Random) -> None:
    """Redis has no memory left for a while and refuses to write."""
    before: Any = site.client.config_get("maxmemory")["maxmemory"]
    site.client.config_set("maxmemory", "1mb")
    pause(chance, 0.5, 4)
    site.client.config_set("maxmemory", before)


@fault("redis")
def redis_read_only(site: Site, chance: random.Random) -> None:
    """Redis is made a replica of a primary that is away, and then the primary again."""
    site.client.replicaof("127.0.0.1", "1")
    pause(chance, 0.5, 4)
    site.client.replicaof("NO", "ONE")


@fault("redis")
def redis_clients_killed(site: Site, chance: random.Random) -> None:
    """An operator breaks off every connection to Redis, several times."""
    for _ in range(chance.randrange(1, 6)):
        site.client.client_kill_filter(_type="normal", skipme=True)
        pause(chance, 0, 0.3)


@fault("redis")
def redis_scripts_flushed(site: Site, chance: random.Random) -> None:
    """Redis forgets its scripts, several times."""
    for _ in range(chance.randrange(1, 6)):
        site.client.script_flush()
        pause(chance, 0, 0.2)


@fault("redis")
def redis_paused(site: Site, chance: random.Random) -> None:
    """An operator lets all clients wait, as before a failover; some give up meanwhile."""
    site.client.client_pause(chance.randrange(500, 7000))
    pause(chance, 0.5, 7)


@fault("redis")
def redis_rewritten(site: Site, chance: random.Random) -> None:
    """Redis rewrites its append-only file, and is killed meanwhile or shortly after."""
    with contextlib.suppress(redis.ResponseError):  # one is under way
        site.client.bgrewriteaof()
    pause(chance, 0, 0.5)
    site.redis.kill()
    site.redis.start()


@fault("redis", is_slow=True)
def redis_emptied(site: Site, chance: random.Random) -> None:
    """Redis loses everything that it had."""
    site.client.flushall()
    for tail in site.tails:
        tail.in_effect = -1
    pause(chance, 0, 1)
