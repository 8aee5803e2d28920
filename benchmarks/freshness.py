"""Time from the acceptance of an event over HTTP to its effect in `/recommend`.

    python -m benchmarks.freshness [--kafka embedded|apache] [--rate 100] [--seconds 20] [--runs 5]
        [--warm-up 40]

Events are sent at the rate; after each fifth, `/recommend?after=` is requested at once, and the
time from the answer of POST /events to the answer with the effect is measured. Events of the
warm-up, in which a Java broker compiles itself, are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Any

import aiohttp

from benchmarks.conditions import command, median, report, servers
from models.settings import Settings
from ops.ports import free_port
from streams.kafka.topics import ensure_topics

PROBE_EVERY = 5

ANSWER_S = 30.0
"""Longest wait for an answer, far beyond any that occurs while the servers run."""


async def ready(client: aiohttp.ClientSession, url: str) -> None:
    """Wait until an event sent to the API takes effect."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            after = await send(client, url, "warm", "i0")
            async with client.get(f"{url}/recommend", params={"after": after}) as answer:
                if (await answer.json())["freshness"]["afterReached"]:
                    return
        except (aiohttp.ClientError, KeyError):
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError("the stack does not get ready")


async def send(client: aiohttp.ClientSession, url: str, user: str, item: str) -> str:
    """The token of one accepted click."""
    body: dict[str, Any] = {
        "sessionId": user,
        "userId": user,
        "eventList": [{"eventType": "click", "itemId": item, "sentAt": time.time()}],
    }
    async with client.post(f"{url}/events", json=body) as answer:
        return str((await answer.json())["after"])


async def measure(url: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds of each probe."""
    chance = random.Random(7)
    waits: list[float] = []

    async def click(number: int) -> None:
        user, item = f"u{number % 500}", f"i{int(chance.paretovariate(0.8)) % 2000}"
        after = await send(client, url, user, item)
        accepted = time.perf_counter()
        if number % PROBE_EVERY:
            return
        params = {"user_id": user, "after": after, "num_results": "5"}
        async with client.get(f"{url}/recommend", params=params) as answer:
            if not (await answer.json())["freshness"]["afterReached"]:
                raise RuntimeError("an event did not take effect in time")
        waits.append((time.perf_counter() - accepted) * 1000)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as client:
        await ready(client, url)
        start = time.perf_counter()
        # The first failure ends the run: later requests would only wait, too.
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                group.create_task(click(number))
    return waits


def run(settings: Settings, rate: float, seconds: float) -> list[float]:
    """One run on a running stack."""
    url = f"http://{settings.host}:{settings.port}"
    return asyncio.run(measure(url, rate, seconds))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", choices=["embedded", "apache"], default="embedded")
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm-up", type=float, default=40)
    options = parser.parse_args()
    with servers(options.kafka) as found:
        settings = found.model_copy(update={"port": free_port()})
        ensure_topics(settings)
        with command("worker", settings), command("api", settings):
            run(settings, options.rate, options.warm_up)
            runs = [run(settings, options.rate, options.seconds) for _ in range(options.runs)]
    quantiles = [
        [sorted(waits)[int(q * (len(waits) - 1))] for q in (0.5, 0.95, 0.99)] for waits in runs
    ]
    p50, p95, p99 = (median(values) for values in zip(*quantiles, strict=True))
    report(
        "freshness",
        {
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "runs": [[round(q, 1) for q in r] for r in quantiles],
        },
        kafka=options.kafka,
        rate_per_s=options.rate,
        seconds=options.seconds,
        warm_up_s=options.warm_up,
    )


if __name__ == "__main__":
    main()
