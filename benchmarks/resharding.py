"""Cost of a move to other shards: CPU and time of the copy, for which events wait.

python -m benchmarks.resharding --users 100000 --items 50000 --shards 4
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient, client_of
from models.state.resharding.shard_copy import ShardCopy
from models.state.shards.stored_layout import ShardLayout
from ops.embedded_servers import start_redis

EVENTS_PER_USER = 20
"""Events in a history: of a shop's users that have any, most have fewer."""

AT_ONCE = 1_000


async def fill(client: RedisClient, n_users: int, n_items: int) -> None:
    """The state of a group of one shard, with histories and lists of usual sizes."""
    items = np.arange(1, EVENTS_PER_USER + 1, dtype="<u2").tobytes()
    columns = (
        bytes(EVENTS_PER_USER * layout.EVENT_HASH.itemsize) + items + bytes(EVENTS_PER_USER - 1)
    )
    for first in range(1, n_users + 1, AT_ONCE):
        commands: list[tuple[str | bytes | int, ...]] = []
        for number in range(first, min(first + AT_ONCE, n_users + 1)):
            owner, page = f"u:user-{number}", number // layout.OWNERS_PER_PAGE
            head = layout.HISTORY_HEAD.pack(
                EVENTS_PER_USER, number, 0.0, 1_790_000_000, EVENTS_PER_USER, 0, 1
            )
            commands += [
                ("SET", f"{{shop}}:history:{owner}", head + columns, "EX", 86_400),
                ("HSET", f"{{shop}}:owners:{page}", number % layout.OWNERS_PER_PAGE, owner),
            ]
        await client.reads.run(*commands)
    pairs = bytes(layout.PAIR_HEAD.size) + bytes(100 * layout.PAIR.itemsize)
    takers = np.arange(1, layout.RECENT_OWNERS + 1, dtype="<u4").tobytes()
    for first in range(1, n_items + 1, AT_ONCE):
        commands = []
        for index in range(first, min(first + AT_ONCE, n_items + 1)):
            commands += [
                ("HSET", "{shop}:items", f"item-{index}", index),
                ("HSET", "{shop}:ids", index, f"item-{index}"),
                ("SET", f"{{shop}}:pairs:{index}", pairs),
                ("SET", f"{{shop}}:takers:{index}", takers),
            ]
        await client.reads.run(*commands)
    stats = bytes(layout.STATS_PER_PAGE * layout.STAT.itemsize)
    for number in range(n_items // layout.STATS_PER_PAGE + 1):
        await client.set(f"{{shop}}:stats:{number}", stats)
    await client.hset(
        "{shop}:counts", mapping={"owner_index": n_users, "item_index": n_items, "events": 1}
    )


async def measure(n_users: int, n_items: int, shards: int) -> dict[str, float]:
    """Seconds, and CPU seconds of the command and of Redis, of a copy from one shard to others."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        settings = Settings(redis=server.url, group="shop", outcomes=False)
        client = client_of(settings)
        try:
            await fill(client, n_users, n_items)
            copy = ShardCopy(
                client,
                settings,
                ShardLayout(1),
                ShardLayout(shards, 1),
                fields=["p/0"],
                check=lambda: None,
                progress=lambda _: None,
            )
            before, began_s = await _cpu_s(client), time.monotonic()
            await copy.run(now_s=time.time())
            took_s, after = time.monotonic() - began_s, await _cpu_s(client)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            return {
                "seconds": took_s,
                "CPU s of the command": after[0] - before[0],
                "CPU s of Redis": after[1] - before[1],
                "MB at most": peak,
            }
        finally:
            await client.aclose()
            server.stop()


async def _cpu_s(client: RedisClient) -> tuple[float, float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    of_server = await client.info("cpu")
    return (
        own.ru_utime + own.ru_stime,
        of_server["used_cpu_user"] + of_server["used_cpu_sys"],
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--shards", type=int, default=4)
    asked = parser.parse_args()
    for n_users, n_items in ((asked.users, 1), (1, asked.items)):
        found = asyncio.run(measure(n_users, n_items, asked.shards))
        text = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        print(f"{n_users:,} histories, {n_items:,} items: {text}")


if __name__ == "__main__":
    main()
