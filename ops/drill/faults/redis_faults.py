"""Faults of Redis: away, full, read-only, and above all: back with less than it had."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

from models.state.clients.redis_errors import NotNow
from ops.drill.faults.fault_registry import fault
from ops.drill.site import AOF, NotSeen, Site

STEP = re.compile(
    rb"\*1\r\n\$5\r\nMULTI\r\n(?:(?!\*1\r\n\$4\r\nEXEC\r\n).)*?:watermarks\r\n"
    rb"(?:(?!\*1\r\n\$4\r\nEXEC\r\n).)*",
    re.DOTALL,
)
"""The commands of a step in the append-only file, up to the last."""

OWN = ("redis",)


@fault("redis", needs=OWN)
def redis_killed(site: Site, chance: random.Random) -> str:
    """Redis is killed -9 and started again: unwritten data is lost."""
    before = site.redis.pid
    site.redis.kill()
    site.pause(chance, 0, 2)
    site.redis.start()
    return f"process {before} was killed, {site.redis.pid} answers"


@fault("redis", needs=OWN)
def redis_restarted(site: Site, chance: random.Random) -> str:
    """Redis is stopped and started again."""
    before = site.redis.pid
    site.redis.stop()
    site.pause(chance, 0, 1)
    site.redis.start()
    return f"process {before} was stopped, {site.redis.pid} answers"


@fault("redis", needs=OWN)
def redis_paused(site: Site, chance: random.Random) -> str:
    """Redis is not scheduled, also for longer than its clients' timeout."""
    with site.redis.paused():
        site.pause(chance, 0.5, 7)
    return f"process {site.redis.pid} stood still"


@fault("redis", needs=OWN)
def redis_older(site: Site, chance: random.Random) -> str:
    """Redis restarts with an older state of its data."""
    return _restored(site, chance.choice(_snapshots(site, chance)))


@fault("redis", needs=OWN)
def redis_older_twice(site: Site, chance: random.Random) -> str:
    """Redis restarts with older data, and again during the re-read."""
    snapshots = _snapshots(site, chance)
    first = _restored(site, snapshots[-1])
    site.pause(chance, 0, 2.5)
    second = _restored(site, chance.choice(snapshots[:-1] or snapshots))
    site.pause(chance, 0, 2.5)
    return f"{first}, {second}"


@fault("redis", "worker", needs=OWN)
def redis_older_while_balancing(site: Site, chance: random.Random) -> str:
    """Redis restarts with older data while partitions of a killed worker are reassigned."""
    worker = chance.choice(site.workers)
    how = worker.down(signal.SIGKILL)
    older = _restored(site, chance.choice(_snapshots(site, chance)))
    worker.up()
    return f"{how}, {older}"


@fault("redis", needs=OWN)
def redis_torn(site: Site, chance: random.Random) -> str:
    """The end of the append-only file is torn off at any byte; then Redis restarts once more."""
    return _tear(site, chance, within_step=False)


@fault("redis", needs=OWN)
def redis_torn_within_step(site: Site, chance: random.Random) -> str:
    """The append-only file ends within the commands of one step; then Redis restarts once more."""
    return _tear(site, chance, within_step=True)


def _snapshots(site: Site, chance: random.Random) -> list[Path]:
    """Older states; one is taken where there is none, and some time passes."""
    if not site.snapshots:
        site.take_snapshot()
        site.pause(chance, 1, 2)
    return list(site.snapshots)


def _restored(site: Site, snapshot: Path) -> str:
    age_s = time.monotonic() - int(snapshot.name) / 1e9
    site.restore(snapshot)
    return f"Redis has its data of {age_s:.1f} s before"


def _tear(site: Site, chance: random.Random, *, within_step: bool) -> str:
    site.redis.kill()
    path = _newest_file(site.redis.data / AOF)
    written = path.read_bytes()
    steps = list(STEP.finditer(written))
    if within_step and steps:
        keep = chance.randrange(*chance.choice(steps[-3:]).span())
    else:
        keep = max(0, len(written) - chance.randrange(1, 3000))
    with path.open("r+b") as file:
        file.truncate(keep)
    site.redis.start()
    site.pause(chance, 0.2, 3)
    if chance.random() < 0.5:
        site.redis.kill()
    else:
        site.redis.stop()
    site.redis.start()
    if keep == len(written):
        raise NotSeen("Redis' file was empty")
    return f"{len(written) - keep} bytes of Redis' file are gone"


def _newest_file(folder: Path) -> Path:
    """The append-only file that is being written."""
    return max(folder.glob("*.incr.aof"), key=lambda path: int(re.findall(r"\d+", path.name)[-1]))


@fault("redis", needs=OWN)
def redis_full(site: Site, chance: random.Random) -> str:
    """Redis has no memory left for a while and refuses to write."""
    before = _maxmemory(site)
    site.ask_redis("CONFIG", "SET", "maxmemory", "1mb")
    try:
        said = _refusal(site)
        site.pause(chance, 0.5, 4)
    finally:
        site.ask_redis("CONFIG", "SET", "maxmemory", before)
    return said


def _maxmemory(site: Site) -> str:
    found: dict[bytes, bytes] = site.ask_redis("CONFIG", "GET", "maxmemory")
    return found[b"maxmemory"].decode()


@fault("redis", needs=OWN)
def redis_read_only(site: Site, chance: random.Random) -> str:
    """Redis is made a replica of a primary that is away, and then the primary again."""
    site.ask_redis("REPLICAOF", "127.0.0.1", "1")
    try:
        said = _refusal(site)
        site.pause(chance, 0.5, 4)
    finally:
        site.ask_redis("REPLICAOF", "NO", "ONE")
    return said


def _refusal(site: Site) -> str:
    """Answer of Redis to a write that it refuses."""
    try:
        site.ask_redis("SET", f"{{{site.settings.group}-probe}}:probe", "1", "EX", "1")
    except NotNow as error:
        return f"Redis said: {error}"
    raise NotSeen("Redis accepted a write")


@fault("redis", needs=OWN)
def redis_clients_killed(site: Site, chance: random.Random) -> str:
    """An operator breaks off every connection to Redis, several times."""

    def kill() -> int:
        return int(site.ask_redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))

    n = site.seen(kill, "a client is killed")
    for _ in range(chance.randrange(6)):
        site.pause(chance, 0, 0.3)
        n += kill()
    return f"{n} connections were broken off"


@fault("redis", needs=OWN)
def redis_scripts_flushed(site: Site, chance: random.Random) -> str:
    """Redis forgets its scripts, several times."""
    n = 0
    for _ in range(chance.randrange(1, 6)):
        n += bool(site.ask_redis("SCRIPT", "FLUSH"))
        site.pause(chance, 0, 0.2)
    return f"scripts were forgotten {n} times"


@fault("redis", needs=OWN)
def redis_clients_wait(site: Site, chance: random.Random) -> str:
    """An operator lets all clients wait, as before a failover; some give up meanwhile."""
    began_s = time.monotonic()
    site.ask_redis("CLIENT", "PAUSE", chance.randrange(500, 4500), "ALL")
    site.ask_redis("ECHO", "a command that waits")
    waited_s = time.monotonic() - began_s
    if waited_s < 0.4:
        raise NotSeen("no client had to wait")
    return f"a command waited {waited_s:.1f} s"


@fault("redis", needs=OWN)
def redis_rewritten(site: Site, chance: random.Random) -> str:
    """Redis rewrites its append-only file, and is killed meanwhile or shortly after."""
    names = {path.name for path in (site.redis.data / AOF).iterdir()}
    site.ask_redis("BGREWRITEAOF")
    folder = site.redis.data / AOF

    def n_new() -> int:
        return len({path.name for path in folder.iterdir()} - names)

    n = site.seen(n_new, "a new append-only file")
    site.pause(chance, 0, 0.5)
    site.redis.kill()
    site.redis.start()
    return f"{n} new files when it was killed"


@fault("redis", needs=OWN, is_slow=True)
def redis_emptied(site: Site, chance: random.Random) -> str:
    """Redis loses everything that it had."""
    n = site.seen(lambda: int(site.ask_redis("DBSIZE")), "Redis has keys")
    site.ask_redis("FLUSHALL")
    for tail in site.tails:
        tail.in_effect = -1
    site.pause(chance, 0, 1)
    return f"{n} keys are gone"
