"""Time from the acceptance of an event over HTTP to its effect in `/recommend`.

    python -m benchmarks.freshness [--kafka embedded|apache] [--rate 100] [--seconds 20] [--runs 5]
        [--warm-up 40]

Events are sent at the rate; after each fifth, `/recommend?after=` is requested at once, and the
time from the answer of POST /events to the answer with the effect is measured. Now and then, two
users visit an item and then one each that is new: `others` is the time until /similar of the first
item, whose list was asked for before, shows what the second user went on to. Events of the warm-up,
in which a Java broker compiles itself, are not counted.
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

PROBE_OTHERS_EVERY = 25

ASK_EVERY_S = 0.002
"""Pause between two looks at what another user's event has changed."""

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


async def similar(client: aiohttp.ClientSession, url: str, item: str, after: str = "") -> set[str]:
    """Items similar to one; with `after`, once that is in effect."""
    params = {"after": after} if after else {}
    async with client.get(f"{url}/similar/{item}", params=params) as answer:
        return {one["itemId"] for one in (await answer.json())["items"]}


async def other_user(client: aiohttp.ClientSession, url: str, run: str) -> float:
    """Milliseconds until an item's neighbours show an event of another user."""
    seen, first, second = (f"{name}-{run}" for name in ("seen", "first", "second"))
    await send(client, url, f"one-{run}", seen)
    after = await send(client, url, f"one-{run}", first)
    if first not in await similar(client, url, seen, after):
        raise RuntimeError("an event did not take effect in time")
    await send(client, url, f"other-{run}", seen)
    await send(client, url, f"other-{run}", second)
    accepted = time.perf_counter()
    while second not in await similar(client, url, seen):
        if time.perf_counter() - accepted > ANSWER_S:
            raise RuntimeError("another user's event did not show in time")
        await asyncio.sleep(ASK_EVERY_S)
    return (time.perf_counter() - accepted) * 1000


async def measure(url: str, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of each probe: of users' own events, and of others'."""
    chance = random.Random(7)
    waits: list[float] = []
    others: list[float] = []
    run = f"{time.time():.3f}"

    async def click(number: int) -> None:
        user, item = f"u{number % 500}", f"i{int(chance.paretovariate(0.8)) % 2000}"
        after = await send(client, url, user, item)
        accepted = time.perf_counter()
        if number % PROBE_OTHERS_EVERY == 1:
            others.append(await other_user(client, url, f"{run}-{number}"))
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
    return waits, others


def run(settings: Settings, rate: float, seconds: float) -> tuple[list[float], list[float]]:
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
    quantiles, of_others = (
        [[sorted(waits)[int(q * (len(waits) - 1))] for q in (0.5, 0.95, 0.99)] for waits in kind]
        for kind in zip(*runs, strict=True)
    )
    p50, p95, p99 = (median(values) for values in zip(*quantiles, strict=True))
    others = [median(values) for values in zip(*of_others, strict=True)]
    report(
        "freshness",
        {
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            **dict(zip(("others_p50_ms", "others_p95_ms", "others_p99_ms"), others, strict=True)),
            "runs": [[round(q, 1) for q in r] for r in quantiles],
        },
        kafka=options.kafka,
        rate_per_s=options.rate,
        seconds=options.seconds,
        warm_up_s=options.warm_up,
    )


if __name__ == "__main__":
    main()
