"""Three times the sustainable rate of events and questions: who is refused, and what grows.

    python -m benchmarks.overload [--seconds 300] [--times 3] [--connections 1000]

The API has the first core of this machine for itself, everything else the others: the sender too,
which would otherwise take from the API what it measures. It takes `cpu["sender"]` of a core: Python
on uvloop, 30 us a request, where vegeta takes 42; wrk takes 4, but tells no latency by status.

The sustainable rate is what the API answers from 16 connections that each wait for their answer,
half of them events and half questions. Then half of that rate, for the latency of normal times;
then `--times` of it at fixed moments, whoever is late (`benchmarks.peers.load`). `admitted` is of
requests that were not refused, from when they were sent: a sender without a free connection waits
for itself. `answers` counts by method and status; `without_retry_after` are refusals that do not
say when to try again, of a few that are asked for beside the load. At the end everything that was
accepted must be in effect: `accepted` of the events, `in_effect` by the store's counter, which has
events without an answer as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import psutil
import uvloop

from benchmarks.conditions import command, report, servers, until
from benchmarks.peers.http_answers import answers
from benchmarks.peers.load import Stream, as_fast_as_answered, at_rate
from benchmarks.peers.peer import Sent, get, post
from benchmarks.samples import sampled
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.ports import free_port
from streams.kafka.topics import ensure_topics
from streams.operations.status import read_status

SETTLED_S = 5.0
ITEMS, USERS = 2000, 5000
FOLLOWED_LISTS = 20_000
"""The bound on lists whose outcomes are counted: low, so that a short run reaches it too."""


def mixed(number: int, items: int = ITEMS, users: int = USERS) -> Sent:
    """An event, and then a question, of the same user."""
    turn = number // 2
    user = turn * 7919 % users
    if number % 2:
        return get(f"/recommend?user_id=u{user}")
    item = turn * turn * 31 % items
    event = {"eventType": "click", "itemId": f"i{item}", "sentAt": time.time()}
    return post("/events", {"sessionId": f"s{user}", "userId": f"u{user}", "eventList": [event]})


async def refusals_without_retry_after(port: int, seconds: float) -> tuple[int, int]:
    """Refusals among a few questions beside the load, and those without Retry-After."""
    n_refused = n_silent = 0
    until_s = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        while time.monotonic() < until_s:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get("/recommend?user_id=u1")
                n_refused += answer.status_code in {429, 503}
                n_silent += answer.status_code in {429, 503} and "retry-after" not in answer.headers
            await asyncio.sleep(0.1)
    return n_refused, n_silent


async def n_events(settings: Settings) -> int:
    """Events in effect."""
    store = Store(connect(settings.redis), settings)
    try:
        return int((await store.counts()).get("events", 0))
    finally:
        await store.redis.aclose()


async def pressed(
    port: int, request: Callable[[int], Sent], rate: float, seconds: float, connections: int
) -> tuple[Stream, tuple[int, int]]:
    """Results of a rate, and refusals of a few questions beside it."""
    return await asyncio.gather(
        at_rate(port, request, rate=rate, seconds=seconds, connections=connections),
        refusals_without_retry_after(port, seconds),
    )


def is_in_effect(settings: Settings) -> Callable[[], bool]:
    """True once nothing waits in Kafka."""
    return lambda: asyncio.run(read_status(settings, now_s=time.time())).lag == 0


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Cores of this process within the block, and of what it starts there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def running() -> Iterator[tuple[Settings, dict[str, int]]]:
    """The service, ready: its settings, and the pids of its processes and servers.

    The API has a core for itself, if there is more than one.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        stack.enter_context(on_cores(set(others) or {first}))
        found = stack.enter_context(servers())
        settings = found.model_copy(update={"port": free_port(), "outcome_lists": FOLLOWED_LISTS})
        of_servers = [one for one in psutil.Process().children() if one.name() != "sh"]
        pids = {_kind(one): one.pid for one in of_servers}
        ensure_topics(settings)
        for name in ("worker", "jobs"):
            pids[name] = stack.enter_context(command(name, settings)).pid
        with on_cores({first}):
            pids["api"] = stack.enter_context(command("api", settings)).pid
        until(lambda: answers(settings.port, "/healthz"), within_s=300)
        until(is_in_effect(settings), within_s=120)
        yield settings, pids


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far of processes with their children, and of this one, the sender."""
    spent = {}
    for name, pid in pids.items():
        one = psutil.Process(pid)
        every = [one, *one.children(recursive=True)]
        spent[name] = sum(sum(each.cpu_times()[:2]) for each in every)
    return {**spent, "sender": time.process_time()}


def compared(normal: Stream, over: Stream) -> dict[str, dict[str, float]]:
    """Milliseconds of normal times and of the admitted, and what is admitted, by method."""
    found = {}
    for method in ("GET", "POST"):
        usual, admitted = sorted(normal.service_ms[method]), sorted(over.service_ms[method])
        found[method] = {
            "normal_p50_ms": quantile(usual, 0.5),
            "normal_p99_ms": quantile(usual, 0.99),
            "admitted_p50_ms": quantile(admitted, 0.5),
            "admitted_p99_ms": quantile(admitted, 0.99),
            "p99_to_normal": round(quantile(admitted, 0.99) / quantile(usual, 0.99), 2),
            "admitted_per_s": round(len(admitted) / over.seconds),
        }
    return found


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted milliseconds."""
    return round(ordered[round(share * (len(ordered) - 1))], 2)


def _kind(server: psutil.Process) -> str:
    return "redis" if "valkey" in server.name() else "broker"


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--times", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=1000)
    asked = parser.parse_args()
    with running() as (settings, pids):
        uvloop.run(at_rate(settings.port, mixed, rate=50, seconds=5))
        most = as_fast_as_answered(settings.port, mixed, seconds=10, connections=16)
        sustainable = uvloop.run(most)
        until(is_in_effect(settings), within_s=600)
        normal = uvloop.run(at_rate(settings.port, mixed, rate=sustainable / 2, seconds=15))
        until(is_in_effect(settings), within_s=600)
        before = asyncio.run(n_events(settings))
        spent = cpu_s(pids)
        with sampled(pids, settings, every_s=1.0) as samples:
            over, (n_refused, n_silent) = uvloop.run(
                pressed(
                    settings.port,
                    mixed,
                    asked.times * sustainable,
                    asked.seconds,
                    asked.connections,
                )
            )
            ended_s = time.monotonic()
            shares = {
                name: round((now_s - spent[name]) / over.seconds, 2)
                for name, now_s in cpu_s(pids).items()
            }
            until(is_in_effect(settings), within_s=1800)
        in_effect = asyncio.run(n_events(settings)) - before
        figures: dict[str, Any] = {
            "sustainable_per_s": round(sustainable),
            "normal": normal.quantiles(),
            "overloaded": over.quantiles(),
            "admitted": compared(normal, over),
            "cpu": shares,
            "answers": dict(sorted(over.statuses.items())),
            "refused_beside": n_refused,
            "without_retry_after": n_silent,
            "accepted": over.statuses["POST 202"],
            "in_effect": in_effect,
            "caught_up_s": round(time.monotonic() - ended_s, 1),
            "sizes": samples.figures(settled_s=SETTLED_S),
        }
        report("overload", figures, seconds=asked.seconds, times=asked.times)


if __name__ == "__main__":
    main()
