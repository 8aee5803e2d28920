"""Workers that are running, and the partitions that each of them has.

    {group}:workers             hash    <host>/<process id> -> a `RunningWorker` as JSON

A worker repeats its report every few seconds: one that was not repeated for `FRESH_S` has ended.
"""

from __future__ import annotations

import msgspec

from models.kafka_operations import RunningWorker
from models.state.clients.client import RedisClient

FRESH_S = 20.0
"""Age of a report from which on its worker counts as ended."""


async def report_worker(client: RedisClient, group: str, worker: RunningWorker) -> None:
    """Store a report, and remove those of workers that have ended; raises redis-py's errors."""
    key = _key(group)
    pipe = client.pipeline(transaction=False)
    pipe.hset(key, worker.name, msgspec.json.encode(worker))
    pipe.expire(key, 3600)
    pipe.hgetall(key)
    *_, stored = await pipe.execute()
    ended = [name for name, text in stored.items() if not _is_fresh(_decoded(text), worker.at)]
    if ended:
        await client.hdel(key, *ended)


async def running_workers(client: RedisClient, group: str, *, now_s: float) -> list[RunningWorker]:
    """Workers that are running, by name; raises redis-py's errors."""
    found = [_decoded(text) for text in (await client.hgetall(_key(group))).values()]
    return sorted((one for one in found if _is_fresh(one, now_s)), key=lambda one: one.name)


def _is_fresh(worker: RunningWorker, now_s: float) -> bool:
    return worker.at > now_s - FRESH_S


def _decoded(text: bytes) -> RunningWorker:
    return msgspec.json.decode(text, type=RunningWorker)


def _key(group: str) -> str:
    return f"{{{group}}}:workers"
