"""CPU of one live event in each process of `recommender up`, over the idle level.

    python -m benchmarks.live_event FILE [--rate 100] [--seconds 12] [--rounds 3] [--beside DIR ...]

Single `POST /events` of recorded clicks are due at fixed moments, over one connection. Each round
measures every process while nothing comes, and then while events come. `--beside` names further
checkouts, each with its `.venv`: their stacks run at the same time and are measured by turns, so
that other work on the machine changes all of them alike; compare their figures with each other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil

from benchmarks.broker_growth import cpu_s
from benchmarks.conditions import ROOT, end_in_order, process, report, until
from benchmarks.serving import answers
from models.events import PutEvents
from ops.ports import free_port
from streams.recordings.recorded_events import read_events

START_S = 300.0
"""Longest start of a checkout that compiles its inner loops first."""

WARM_UP_S = 6.0

QUIET_S = 6.0
"""How long the idle level of each round is measured."""

SETTLE_S = 1.0
"""How long what the last events still cause is waited for."""


class Stack(NamedTuple):
    """A running `recommender up`: where it answers, and its processes by name."""

    url: str
    processes: dict[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU that each process has used."""
        return {name: cpu_s(one) for name, one in self.processes.items()}


@contextlib.contextmanager
def up(checkout: Path) -> Iterator[Stack]:
    """The embedded stack of a checkout, with empty state."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "RECOMMENDER_DATA_DIR": folder,
            "RECOMMENDER_HOST": "127.0.0.1",
        }
        argv = [str(checkout / ".venv/bin/recommender"), "up", "--port", str(port)]
        with process(argv, environment, stdout=subprocess.DEVNULL, cwd=checkout):
            until(lambda: answers(f"{url}/readyz"), within_s=START_S)
            listed = json.loads((Path(folder) / "processes.json").read_text())
            yield Stack(url, {one["name"]: psutil.Process(one["pid"]) for one in listed})


def clicks(file: Path) -> Iterator[dict[str, object]]:
    """The recorded events as bodies of `POST /events`, of a known user's, as if they came now."""
    for _, row in read_events(file, now_s=time.time(), as_="sessions"):
        if isinstance(row, PutEvents):
            user, now_s = row.session_id, time.time()
            events = [
                {"eventType": one.event_type, "itemId": one.item_id, "sentAt": now_s}
                for one in row.event_list
            ]
            yield {"sessionId": user, "userId": user, "eventList": events}


async def send(url: str, bodies: Iterator[dict[str, object]], rate: float, n: int) -> list[float]:
    """Send events, each at its moment; returns the milliseconds until they were accepted."""
    waits: list[float] = []

    async def post(body: object) -> None:
        begun = time.perf_counter()
        async with client.post(f"{url}/events", json=body) as answer:
            answer.raise_for_status()
            await answer.read()
        waits.append((time.perf_counter() - begun) * 1000)

    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
        start = time.perf_counter()
        for number, body in enumerate(itertools.islice(bodies, n)):
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            group.create_task(post(body))
    return waits


def measure(
    stack: Stack, bodies: Iterator[dict[str, object]], rate: float, seconds: float
) -> tuple[dict[str, float], float, list[float]]:
    """Milliseconds of CPU an event of each process, the idle share of a core, and waits."""
    time.sleep(SETTLE_S)
    before = stack.cpu_s()
    time.sleep(QUIET_S)
    between = stack.cpu_s()
    begun = time.perf_counter()
    n = int(rate * seconds)
    waits = asyncio.run(send(stack.url, bodies, rate, n))
    lasted_s, after = time.perf_counter() - begun, stack.cpu_s()
    idle = {name: (between[name] - before[name]) / QUIET_S for name in before}
    event_ms = {
        name: 1000 * (after[name] - between[name] - idle[name] * lasted_s) / n for name in before
    }
    return event_ms, sum(idle.values()), waits


def summary(rounds: Sequence[tuple[dict[str, float], float, list[float]]]) -> dict[str, object]:
    """Medians over the rounds."""
    sums = [sum(one[0].values()) for one in rounds]
    waits = sorted(itertools.chain.from_iterable(one[2] for one in rounds))
    return {
        "event_cpu_ms": {
            name: round(statistics.median(one[0][name] for one in rounds), 3)
            for name in rounds[0][0]
        },
        "sum_ms": round(statistics.median(sums), 3),
        "sums_ms": [round(one, 2) for one in sums],
        "idle_share_of_a_core": round(statistics.median(one[1] for one in rounds), 4),
        "post_p50_ms": round(waits[len(waits) // 2], 2),
        "post_p99_ms": round(waits[int(0.99 * (len(waits) - 1))], 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    end_in_order()
    checkouts = [ROOT, *(one.resolve() for one in options.beside)]
    figures: list[list[tuple[dict[str, float], float, list[float]]]] = [[] for _ in checkouts]
    with contextlib.ExitStack() as running:
        stacks = [running.enter_context(up(checkout)) for checkout in checkouts]
        bodies = [clicks(options.file) for _ in checkouts]
        for stack, some in zip(stacks, bodies, strict=True):
            asyncio.run(send(stack.url, some, options.rate, int(options.rate * WARM_UP_S)))
        for number in range(options.rounds):
            order = range(len(checkouts))
            for at in order if number % 2 == 0 else reversed(order):
                found = measure(stacks[at], bodies[at], options.rate, options.seconds)
                figures[at].append(found)
    report(
        "live_event",
        {
            checkout.name: summary(rounds)
            for checkout, rounds in zip(checkouts, figures, strict=True)
        },
        rate_per_s=options.rate,
        seconds=options.seconds,
        rounds=options.rounds,
    )


if __name__ == "__main__":
    main()
