"""The pages in Chromium: first contentful paint, and memory while events come.

    python -m benchmarks.pages [--rate 200] [--seconds 300] [--loads 7] [--pages outcomes]

On embedded servers. Each page is loaded some times with an empty cache, on loopback. Then the shop
and the console's tabs Overview, Events and Outcomes are open, one by one, while events are sent at
the rate, ten a message, for the given seconds each: the heap is measured after a garbage collection
every five seconds, and its growth is the slope of a line through the second half of them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from selenium.webdriver import Chrome

from benchmarks.conditions import command, median, report, servers
from benchmarks.freshness import ready
from ops.ports import free_port
from streams.kafka.topics import ensure_topics
from tests.e2e.conftest import started_browser

PAGES = {
    "shop": "",
    "console": "console#overview",
    "tail": "console#events",
    "outcomes": "console#outcomes",
}
PER_MESSAGE = 10
MEASURE_EVERY_S = 5.0


def first_paints(browser: Chrome, url: str, loads: int) -> dict[str, float]:
    """Median milliseconds to the first contentful paint of each page, with an empty cache."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    found = {}
    for name, path in PAGES.items():
        times = []
        for _ in range(loads):
            browser.get("about:blank")
            browser.get(f"{url}/{path}")
            times.append(_paint(browser))
        found[name] = median(times)
    return found


def _paint(browser: Chrome) -> float:
    script = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (at := browser.execute_script(script)) is not None:
            return float(at)
        time.sleep(0.05)
    raise TimeoutError("nothing is painted")


def heap_mb(browser: Chrome) -> float:
    """Heap of the page after a garbage collection."""
    browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    told = browser.execute_cdp_cmd("Runtime.getHeapUsage", {})
    return float(told["usedSize"]) / 2**20


def growth(browser: Chrome, url: str, path: str, seconds: float) -> dict[str, Any]:
    """Heap of a page that is open for some seconds, and its growth in the second half."""
    browser.get("about:blank")
    browser.get(f"{url}/{path}")
    started, times, sizes = time.monotonic(), list[float](), list[float]()
    while (elapsed_s := time.monotonic() - started) < seconds:
        times.append(elapsed_s)
        sizes.append(heap_mb(browser))
        time.sleep(MEASURE_EVERY_S)
    half = len(times) // 2
    slope = float(np.polyfit(times[half:], sizes[half:], 1)[0]) * 60
    return {
        "first_mb": round(sizes[0], 2),
        "half_mb": round(sizes[half], 2),
        "last_mb": round(sizes[-1], 2),
        "mb_per_minute": round(slope, 3),
    }


async def send_events(url: str, rate: float, stop: threading.Event) -> int:
    """Send clicks of random users until told to stop; the number of them."""
    chance, sent = random.Random(7), 0
    async with aiohttp.ClientSession() as client:
        started = time.monotonic()
        while not stop.is_set():
            session = f"s{chance.randrange(2000)}"
            events = [
                {
                    "eventType": "click",
                    "itemId": f"i{int(chance.paretovariate(0.8)) % 500}",
                    "sentAt": time.time(),
                }
                for _ in range(PER_MESSAGE)
            ]
            body = {"sessionId": session, "userId": f"u{session}", "eventList": events}
            async with client.post(f"{url}/events", json=body) as answer:
                sent += PER_MESSAGE if answer.status == 202 else 0
            await asyncio.sleep(max(0.0, started + sent / rate - time.monotonic()))
    return sent


async def await_ready(url: str) -> None:
    """Wait until an event takes effect."""
    async with aiohttp.ClientSession() as client:
        await ready(client, url)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--loads", type=int, default=7)
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=list(PAGES))
    options = parser.parse_args()
    stop, sent = threading.Event(), list[int]()
    with servers("embedded") as found, tempfile.TemporaryDirectory() as folder:
        settings = found.model_copy(update={"port": free_port()})
        url = f"http://{settings.host}:{settings.port}"
        ensure_topics(settings)
        with (
            command("worker", settings),
            command("api", settings),
            started_browser(Path(folder)) as browser,
        ):
            sender = threading.Thread(
                target=lambda: sent.append(asyncio.run(send_events(url, options.rate, stop)))
            )
            asyncio.run(await_ready(url))
            started = time.monotonic()
            sender.start()
            try:
                paints = first_paints(browser, url, options.loads)
                heaps = {
                    name: growth(browser, url, PAGES[name], options.seconds)
                    for name in options.pages
                }
            finally:
                stop.set()
                sender.join()
            rate = sum(sent) / (time.monotonic() - started)
    report(
        "pages",
        {
            "first_contentful_paint_ms": paints,
            "heap": heaps,
            "events_per_s": round(rate, 1),
        },
    )


if __name__ == "__main__":
    main()
