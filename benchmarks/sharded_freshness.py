"""Freshness on several shards next to one, by turns: python -m benchmarks.sharded_freshness.

    python -m benchmarks.sharded_freshness [--shards 4] [--rate 50] [--seconds 15] [--runs 4]
        [--kafka embedded|apache]

Two services on the same servers, each with a worker and an API, of which one has its events at a
time. `own` is the time from the acceptance of a user's event until an answer for that user has it
in the user's history, without waiting for it; `after` until an answer that waits for it, which is
behind both hops; `others` until the list of an item shows another user's event. Its items are new
each time, which takes one hop more on several shards, for their indexes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import aiohttp

from benchmarks.conditions import command, median, report, servers
from benchmarks.freshness import ANSWER_S, ASK_EVERY_S, other_user, ready, send
from models.settings import Settings
from ops.ports import free_port
from streams.kafka.topics import ensure_topics

ITEMS = 40
"""Few, so that all are known after the first run: a new one needs a hop for its index."""

Waits = dict[str, list[float]]
"""Milliseconds of each probe, by kind."""


async def own_user(client: aiohttp.ClientSession, url: str, user: str, item: str) -> float:
    """Milliseconds until an answer for a new user has the user's event."""
    await send(client, url, user, item)
    accepted = time.perf_counter()
    while time.perf_counter() < accepted + ANSWER_S:
        async with client.get(f"{url}/recommend", params={"user_id": user}) as answer:
            if (await answer.json())["freshness"]["userEventAt"] is not None:
                return (time.perf_counter() - accepted) * 1000
        await asyncio.sleep(ASK_EVERY_S)
    raise RuntimeError("a user's own event did not show in time")


async def after_both(client: aiohttp.ClientSession, url: str, user: str, item: str) -> float:
    """Milliseconds until an answer that waits for an event."""
    after = await send(client, url, user, item)
    accepted = time.perf_counter()
    async with client.get(f"{url}/recommend", params={"user_id": user, "after": after}) as answer:
        if not (await answer.json())["freshness"]["afterReached"]:
            raise RuntimeError("an event did not take effect in time")
    return (time.perf_counter() - accepted) * 1000


async def measure(url: str, rate: float, seconds: float, seed: int) -> Waits:
    """One run on a running service: one event of five is a probe."""
    chance, found, run = (
        random.Random(seed),
        defaultdict[str, list[float]](list),
        f"{time.time():.3f}",
    )

    async def event(number: int) -> None:
        item = f"i{chance.randrange(ITEMS)}"
        match number % 15:
            case 0:
                found["own"].append(await own_user(client, url, f"own-{run}-{number}", item))
            case 5:
                found["after"].append(await after_both(client, url, f"u{number % 500}", item))
            case 10:
                found["others"].append(await other_user(client, url, f"{run}-{number}"))
            case _:
                await send(client, url, f"u{number % 500}", item)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as client:
        await ready(client, url)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                group.create_task(event(number))
    return found


@contextlib.contextmanager
def service(found: Settings, shards: int) -> Iterator[str]:
    """A worker and an API of a group of so many shards; gives the API's address."""
    name = f"of{shards}"
    settings = found.model_copy(
        update={
            "port": free_port(), "group": name, "topic_prefix": f"{name}.", "shards": shards,
            "partitions": 4, "outcomes": False,
        }
    )  # fmt: skip
    ensure_topics(settings)
    extra = {
        "RECOMMENDER_GROUP": name,
        "RECOMMENDER_TOPIC_PREFIX": f"{name}.",
        "RECOMMENDER_SHARDS": str(shards),
        "RECOMMENDER_PARTITIONS": "4",
        "RECOMMENDER_OUTCOMES": "false",
        "RECOMMENDER_AFTER_TIMEOUT_S": "20",
    }
    with (
        command("worker", settings, **extra, RECOMMENDER_METRICS_PORT=str(free_port())),
        command("api", settings, **extra),
    ):
        yield f"http://{settings.host}:{settings.port}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kafka", choices=["embedded", "apache"], default="embedded")
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--runs", type=int, default=4)
    options = parser.parse_args()
    all_waits: dict[str, Waits] = {}
    with (
        servers(options.kafka) as found,
        service(found, 1) as one,
        service(found, options.shards) as many,
    ):
        urls = {"one": one, "many": many}
        for number in range(options.runs + 1):
            for name, url in urls.items():
                waits = asyncio.run(measure(url, options.rate, options.seconds, number))
                if number:  # the first warms up
                    own = all_waits.setdefault(name, defaultdict(list))
                    for kind, some in waits.items():
                        own[kind] += some
    figures = {
        f"{kind}_{name}_ms": {
            f"p{q}": median([sorted(some)[int(q / 100 * (len(some) - 1))]]) for q in (50, 95, 99)
        }
        for name, waits in all_waits.items()
        for kind, some in waits.items()
    }
    report("sharded_freshness", figures, **vars(options))


if __name__ == "__main__":
    main()
