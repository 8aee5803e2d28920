"""Answers and single events at once, at fixed rates: how long both take, and what is too much.

    python -m benchmarks.mixed_load FILE [--loads 500+500,1000+100,1000+500] [--seconds 20]
        [--times 3] [--beside DIR ...]

Each load is answers a second and events a second to one `recommender up` with recorded clicks, all
on this machine, sender included. Requests are due at fixed moments, and latency counts from those
(`benchmarks.peers.load`). Beside them probes send a click and at once ask for an answer that has
it: `in_effect` is from the click's acknowledgement to that answer. `cpu` has shares of a core.

Then `over` is `--times` the first load: what is admitted, from when it was sent, beside the same of
the first load, and whether refusals say when to try again.

`--beside` names further checkouts, each with its `.venv`, measured by turns on stacks of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import uvloop

from benchmarks.conditions import ROOT, end_in_order, report
from benchmarks.live_event import Stack, clicks, up
from benchmarks.overload import compared, pressed, quantile
from benchmarks.peers.load import Stream, at_rate
from benchmarks.peers.peer import Sent, get, post

KNOWN_CLICKS, KNOWN_PER_S = 15_000, 500.0
"""Clicks that a stack has seen before it is measured, and how fast they are sent."""

PROBES_PER_S = 10.0

SETTLE_S = 3.0
"""Pause after a load, in which what it left is worked off."""

OVER_CONNECTIONS = 1000
"""Connections under too much load: fewer would hold requests back at the sender."""


class Load(NamedTuple):
    """Answers and events a second."""

    answers: float
    events: float

    @classmethod
    def of(cls, text: str) -> Load:
        """The load that a text names.

        >>> Load.of("500+100")
        Load(answers=500.0, events=100.0)
        """
        answers, events = text.split("+")
        return cls(float(answers), float(events))


class Visitors:
    """Requests of recorded visitors to one stack: their clicks, and questions for those known."""

    def __init__(self, file: Path) -> None:
        self._bodies: Iterator[dict[str, Any]] = clicks(file)
        self._known: list[str] = []

    def click(self, _: int) -> Sent:
        """The next click."""
        body = next(self._bodies)
        self._known.append(str(body["userId"]))
        return post("/events", body)

    def question(self, number: int) -> Sent:
        """A question of one of the visitors that are known, newer ones as often as older ones."""
        return get(f"/recommend?user_id={self._known[number * 7919 % len(self._known)]}")


class Measured(NamedTuple):
    """What came of one load."""

    answers: Stream
    events: Stream
    in_effect_ms: list[float]
    cpu: dict[str, float]


async def probes(url: str, seconds: float, run: str) -> list[float]:
    """Milliseconds from the acknowledgement of a click to an answer that has it."""
    waits: list[float] = []

    async def probe(number: int) -> None:
        user = f"probe-{run}-{number}"
        event = {"eventType": "click", "itemId": f"probe-{number % 50}", "sentAt": time.time()}
        body = {"sessionId": user, "userId": user, "eventList": [event]}
        async with client.post(f"{url}/events", json=body) as accepted:
            if accepted.status >= 400:
                return  # refused under too much load
            after = str((await accepted.json())["after"])
        begun = time.perf_counter()
        params = {"user_id": user, "after": after, "num_results": "5"}
        async with client.get(f"{url}/recommend", params=params) as answer:
            if answer.status < 400 and (await answer.json())["freshness"]["afterReached"]:
                waits.append((time.perf_counter() - begun) * 1000)

    start = time.perf_counter()
    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
        for number in range(int(seconds * PROBES_PER_S)):
            due_s = start + number / PROBES_PER_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            group.create_task(probe(number))
    return waits


def measure(stack: Stack, visitors: Visitors, load: Load, seconds: float) -> Measured:
    """One load on one stack."""
    port = urlsplit(stack.url).port or 0
    before, begun = {**stack.cpu_s(), "sender": time.process_time()}, time.perf_counter()

    async def all_at_once() -> tuple[Stream, Stream, list[float]]:
        return await asyncio.gather(
            at_rate(port, visitors.question, rate=load.answers, seconds=seconds),
            at_rate(port, visitors.click, rate=load.events, seconds=seconds),
            probes(stack.url, seconds, f"{begun:.3f}"),
        )

    answers, events, waits = uvloop.run(all_at_once())
    lasted_s = time.perf_counter() - begun
    after = {**stack.cpu_s(), "sender": time.process_time()}
    time.sleep(SETTLE_S)
    cpu = {name: (after[name] - before[name]) / lasted_s for name in before}
    return Measured(answers, events, waits, cpu)


def press(stack: Stack, visitors: Visitors, load: Load, seconds: float) -> tuple[Stream, int, int]:
    """More than it can carry, both kinds in one stream; refusals, and those without Retry-After."""
    port = urlsplit(stack.url).port or 0
    share = load.events / (load.answers + load.events)

    def request(number: int) -> Sent:
        is_click = int((number + 1) * share) > int(number * share)
        return visitors.click(number) if is_click else visitors.question(number)

    pressing = pressed(port, request, sum(load), seconds, OVER_CONNECTIONS)
    stream, (n_refused, n_silent) = uvloop.run(pressing)
    time.sleep(SETTLE_S)
    return stream, n_refused, n_silent


def quantiles(waits: Sequence[float]) -> dict[str, float]:
    """Milliseconds of p50 and p99, and how many there are."""
    ordered = sorted(waits)
    return {"p50_ms": quantile(ordered, 0.5), "p99_ms": quantile(ordered, 0.99), "n": len(ordered)}


def figures(one: Measured) -> dict[str, Any]:
    """Figures of a load."""
    return {
        "answers": {**one.answers.quantiles(), "statuses": dict(one.answers.statuses)},
        "events": {**one.events.quantiles(), "statuses": dict(one.events.statuses)},
        "in_effect": quantiles(one.in_effect_ms) if one.in_effect_ms else {"n": 0},
        "cpu": {name: round(share, 3) for name, share in one.cpu.items()},
    }


def both_kinds(one: Measured) -> Stream:
    """Answers and events of a load as one stream."""
    joined = Stream(seconds=one.answers.seconds)
    for stream in (one.answers, one.events):
        for method, waits in stream.service_ms.items():
            joined.service_ms[method] += waits
    return joined


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--loads", default="500+500,1000+100,1000+500")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--times", type=float, default=3)
    parser.add_argument("--beside", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    end_in_order()
    checkouts = [ROOT, *(one.resolve() for one in options.beside)]
    loads = [Load.of(one) for one in options.loads.split(",")]
    found: dict[str, dict[str, Any]] = {one.name: {} for one in checkouts}
    with contextlib.ExitStack() as running:
        stacks = [(one.name, running.enter_context(up(one))) for one in checkouts]
        visitors = {name: Visitors(options.file) for name, _ in stacks}
        for name, stack in stacks:
            uvloop.run(
                at_rate(
                    urlsplit(stack.url).port or 0, visitors[name].click,
                    rate=KNOWN_PER_S, seconds=KNOWN_CLICKS / KNOWN_PER_S,
                )
            )  # fmt: skip
        normal: dict[str, Stream] = {}
        for load, (name, stack) in itertools.product(loads, stacks):
            one = measure(stack, visitors[name], load, options.seconds)
            normal.setdefault(name, both_kinds(one))
            found[name][f"{load.answers:g}+{load.events:g}"] = figures(one)
        over = Load(*(options.times * rate for rate in loads[0]))
        for name, stack in stacks:
            stream, n_refused, n_silent = press(stack, visitors[name], over, options.seconds)
            found[name]["over"] = {
                "sent_per_s": sum(over),
                **compared(normal[name], stream),
                "statuses": dict(stream.statuses),
                "looked_at": n_refused,
                "without_retry_after": n_silent,
            }
    report("mixed_load", found, seconds=options.seconds, times=options.times)


if __name__ == "__main__":
    main()
