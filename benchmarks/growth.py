"""Answers, memory and the atomic step from few items and users to many: what grows with them.

    python -m benchmarks.growth [--sizes 10000,100000] [--events-per-user 5] [--probes 500]

Each size has as many items as users, in a group of its own on one Redis, written through the
atomic step. Measured are the CPU of one step of a single event in Redis and of one `/recommend` in
the API's process and in Redis, the wall time of answers one at a time, and the bytes that the group
added. Flat is 1.3 times the first size. `--sizes 1000000 --events-per-user 100` is 100 million
events: at some 12,000 a second of the step, more than two hours.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Any

import psutil
import redis

from benchmarks.conditions import command, report, servers, until
from benchmarks.peers.http_answers import Asking, answers
from benchmarks.peers.peer import get
from benchmarks.state import START_S, STEP, fill
from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from ops.ports import free_port

FLAT = 1.3
STEP_PROBES = 2_000


def cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def redis_cpu_s(client: redis.Redis) -> float:
    """Seconds of CPU that the Redis server's main thread has used, to the microsecond."""
    found = client.info("cpu")
    return float(found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"])


async def filled(settings: Settings, size: int, events_per_user: int) -> dict[str, float]:
    """Fill a group; its bytes, and microseconds of Redis' CPU for a step of one event."""
    server = redis.Redis.from_url(settings.redis)
    store = Store(connect(settings.redis), settings)
    before = int((await store.redis.info("memory"))["used_memory"])
    begun_s = time.perf_counter()
    await fill(settings, users=size, items=size, events_per_user=events_per_user)
    n_events = size * events_per_user
    took_s = time.perf_counter() - begun_s
    used = int((await store.redis.info("memory"))["used_memory"]) - before
    chance, offset = random.Random(11), n_events + STEP
    begun_cpu_s = redis_cpu_s(server)
    for number in range(STEP_PROBES):
        user = chance.randrange(size)
        event = StoredEvent(
            f"item-{chance.randrange(size)}", START_S + n_events + number, "click", 0.0, False,
            chance.getrandbits(32),
        )  # fmt: skip
        session = f"s{user:07d}"
        message = StoredMessage(offset, f"u{user}", session, shard_of(session), START_S, [event])
        await store.apply([Part("fill/0", offset - 1, [message])], now_s=START_S)
        offset += 1
    step_us = 1e6 * (redis_cpu_s(server) - begun_cpu_s) / STEP_PROBES
    stored_items = await store.item_count()
    await store.redis.aclose()
    return {
        "items": stored_items,
        "events": n_events,
        "fill_events_per_s": round(n_events / took_s),
        "redis_mb": round(used / 1e6, 1),
        "redis_bytes_per_event": round(used / n_events),
        "step_redis_cpu_us": round(step_us),
    }


def served(settings: Settings, size: int, probes: int) -> dict[str, float]:
    """Answers of an API process, one at a time, for users drawn at random."""
    server = redis.Redis.from_url(settings.redis)
    port = free_port()
    with command(
        "api", settings.model_copy(update={"port": port}), RECOMMENDER_GROUP=settings.group
    ) as api:
        until(lambda: answers(port, "/healthz"), within_s=300)
        process, chance, asking, waits = psutil.Process(api.pid), random.Random(5), Asking(port), []
        begun: tuple[float, float] = (0.0, 0.0)
        try:
            for number in range(2 * probes):
                if number == probes:  # the first half warms caches
                    begun = (cpu_s(process), redis_cpu_s(server))
                begun_s = time.perf_counter()
                asked = get(f"/recommend?user_id=u{chance.randrange(size)}")
                status, _ = asking.fetched(asked)
                if status != 200:
                    raise RuntimeError(f"an answer has status {status}")
                waits.append(time.perf_counter() - begun_s)
        finally:
            asking.close()
        api_us = 1e6 * (cpu_s(process) - begun[0]) / probes
        redis_us = 1e6 * (redis_cpu_s(server) - begun[1]) / probes
        pss = sum(
            one.memory_full_info().pss for one in [process, *process.children(recursive=True)]
        )
    ordered = sorted(waits[probes:])
    return {
        "answer_api_cpu_us": round(api_us),
        "answer_redis_cpu_us": round(redis_us),
        "answer_p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "answer_p99_ms": round(1000 * ordered[round(0.99 * (len(ordered) - 1))], 2),
        "api_pss_mib": round(pss / 2**20, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--events-per-user", type=int, default=5)
    parser.add_argument("--probes", type=int, default=500)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with servers() as settings:
        for size in sorted(int(size) for size in options.sizes.split(",")):
            group = settings.model_copy(update={"group": f"size{size}"})
            figures = asyncio.run(filled(group, size, options.events_per_user))
            found.append(
                {"items_and_users": size, **figures, **served(group, size, options.probes)}
            )
    grown = {
        name: round(found[-1][name] / found[0][name], 2)
        for name in (
            "step_redis_cpu_us",
            "answer_api_cpu_us",
            "answer_redis_cpu_us",
            "api_pss_mib",
            "redis_bytes_per_event",
        )
        if found[0][name]
    }
    report(
        "growth",
        {
            "sizes": found,
            "grown": grown,
            "not_flat": [name for name in grown if grown[name] > FLAT],
        },
        events_per_user=options.events_per_user,
        probes=options.probes,
    )


if __name__ == "__main__":
    main()
