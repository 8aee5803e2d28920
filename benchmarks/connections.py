"""Microseconds of the client's CPU for a batched read over each kind of connection to Redis.

python -m benchmarks.connections
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.conditions import end_in_order, median, report
from models.settings import Settings
from models.state.clients.client import client_of
from ops.embedded_servers import start_redis
from tests.redis_servers import redis_cluster, secured_redis

ROUNDS, READS, TOGETHER = 7, 1280, 32
KEY, VALUE, KEYS = "{shop}:value", b"x" * 600, 5


async def measure(settings: Settings) -> dict[str, float]:
    """CPU of a read of `KEYS` values: alone, of `TOGETHER` at once, and by redis-py alone."""
    client = client_of(settings, reads_replica=True)
    await client.set(KEY, VALUE)
    keys = [KEY] * KEYS

    async def spent_us(read: Callable[[], Awaitable[object]], at_once: int) -> float:
        async def several() -> None:
            for _ in range(READS // at_once):
                await read()

        started_s = time.process_time()
        await asyncio.gather(*(several() for _ in range(at_once)))
        return 1e6 * (time.process_time() - started_s) / READS

    async def batched() -> None:
        await client.shared_reads.get(keys)

    async def of_redis_py() -> None:
        await client.mget(keys)

    await spent_us(batched, 1)
    await spent_us(of_redis_py, TOGETHER)
    found = {
        "alone": await spent_us(batched, 1),
        "at_once": await spent_us(batched, TOGETHER),
        "redis_py_at_once": await spent_us(of_redis_py, TOGETHER),
    }
    await client.aclose()
    return found


def main() -> None:
    """Measure the kinds in turn, and print."""
    end_in_order()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder, "plain"))
        try:
            with (
                secured_redis(Path(folder, "tls"), "~* &* +@all") as tls,
                redis_cluster(Path(folder, "cluster")) as cluster,
            ):
                files = {
                    "redis_ca_file": tls.ca_file,
                    "redis_certificate_file": tls.certificate_file,
                    "redis_key_file": tls.key_file,
                }
                kinds: dict[str, dict[str, Any]] = {
                    "plain": {"redis": server.url},
                    "tls": {"redis": tls.url, **files},
                    "cluster": {"redis": cluster.url, "redis_cluster": True},
                    "replica": {"redis": server.url, "redis_replica": server.url},
                }
                for _ in range(ROUNDS):
                    for kind, chosen in kinds.items():
                        for name, spent in asyncio.run(measure(Settings(**chosen))).items():
                            found[kind][name].append(spent)
        finally:
            server.stop()
    medians = {
        kind: {name: median(values) for name, values in one.items()} for kind, one in found.items()
    }
    report("connections", {"cpu_us": medians}, at_once=TOGETHER, values=KEYS, rounds=ROUNDS)


if __name__ == "__main__":
    main()
