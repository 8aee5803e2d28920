"""The questions that every peer is asked: quality, freshness, latency at rates, memory."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psutil
import uvloop

from benchmarks.peers.http_answers import Asking
from benchmarks.peers.load import Stream, as_fast_as_answered, at_rate
from benchmarks.peers.peer import Click, K, Running

FRESH_S = 10.0
"""Longest wait for an event to change another's answer."""

POLL_S = 0.002


class Rates(NamedTuple):
    """Answers a second, and single events a second beside them."""

    answers: int
    events: int


class Ranked:
    """HR@20 and MRR@20 of next items: all, those new to the session, and those it had before."""

    def __init__(self) -> None:
        self._ranks: list[tuple[bool, int]] = []

    def add(self, context: Sequence[str], target: str, items: Sequence[str]) -> None:
        """One answer, and the item that came."""
        best = list(items[:K])
        rank = 1 + best.index(target) if target in best else 0
        self._ranks.append((target in context, rank))

    def measured(self) -> dict[str, Any]:
        """The figures of each kind of target."""
        kinds: dict[str, Callable[[bool], bool]] = {
            "all": lambda _: True,
            "new": lambda is_repeated: not is_repeated,
            "repeated": lambda is_repeated: is_repeated,
        }
        return {
            name: _figures([rank for is_repeated, rank in self._ranks if wanted(is_repeated)])
            for name, wanted in kinds.items()
        }


def _figures(ranks: list[int]) -> dict[str, float]:
    hits = [rank for rank in ranks if rank]
    n_queries = max(1, len(ranks))
    return {
        "queries": len(ranks),
        f"hr_{K}": round(len(hits) / n_queries, 4),
        f"mrr_{K}": round(sum(1 / rank for rank in hits) / n_queries, 4),
    }


def quality(peer: Running, test: Sequence[Click], limit: int) -> dict[str, Any]:
    """Each click of the test sessions in order of time is told; the next of its session is asked.

    Targets equal to the click before are not asked for: no peer may show that item.
    """
    following: dict[int, str] = {}
    latest: dict[str, int] = {}
    for number, click in enumerate(test):
        if click.session in latest:
            following[latest[click.session]] = click.item
        latest[click.session] = number
    ranked, contexts = Ranked(), dict[str, list[str]]()
    asking = Asking(peer.port)
    try:
        for number, click in enumerate(test[:limit]):
            context = contexts.setdefault(click.session, [])
            context.append(click.item)
            if peer.tell is not None:
                _, body = asking.fetched(peer.tell(click))
                if peer.settled is not None:
                    peer.settled(body)
            target = following.get(number)
            # Serenade hears of a click by being asked, also where the answer is not needed.
            if (target is not None and target != click.item) or peer.tell is None:
                status, body = asking.fetched(peer.ask(click.session, click.item))
                if target is not None and target != click.item:
                    items = peer.items(body) if status == 200 else []
                    ranked.add(context, target, [one for one in items if one != click.item])
    finally:
        asking.close()
    return ranked.measured()


def own_freshness_ms(peer: Running, items: Sequence[str], probes: int) -> dict[str, float] | None:
    """Milliseconds from sending a new session's click to an answer that takes it into account.

    Where a question tells the click, this is the time of its answer.
    """
    asking, waits = Asking(peer.port), []
    try:
        for number, item in enumerate(itertools.islice(itertools.cycle(items), probes)):
            session, begun_s = f"probe-{time.time_ns()}-{number}", time.perf_counter()
            if peer.tell is not None:
                _, body = asking.fetched(peer.tell(Click(session, item, time.time())))
                if peer.settled is not None:
                    peer.settled(body)
            status, _ = asking.fetched(peer.ask(session, item))
            if status == 200:
                waits.append(1000 * (time.perf_counter() - begun_s))
    finally:
        asking.close()
    return _waits(waits, probes)


def others_freshness_ms(peer: Running, probes: int) -> dict[str, float] | None:
    """Milliseconds from a session's second click to its item in the first one's neighbours.

    Both items are new, so nothing but this session can have put them together.
    """
    if peer.similar is None or peer.tell is None:
        return None
    asking, waits = Asking(peer.port), []
    try:
        for number in range(probes):
            stamp = f"{time.time_ns()}-{number}"
            first, second = f"first-{stamp}", f"second-{stamp}"
            now_s = time.time()
            _, body = asking.fetched(peer.tell(Click(stamp, first, now_s - 1)))
            if peer.settled is not None:
                peer.settled(body)
            asked = peer.similar(first)
            asking.fetched(asked)
            begun_s = time.perf_counter()
            asking.fetched(peer.tell(Click(stamp, second, now_s)))
            while time.perf_counter() - begun_s < FRESH_S:
                status, body = asking.fetched(asked)
                if status == 200 and second in peer.items(body):
                    waits.append(1000 * (time.perf_counter() - begun_s))
                    break
                time.sleep(POLL_S)
    finally:
        asking.close()
    return _waits(waits, probes)


def _waits(waits: list[float], probes: int) -> dict[str, float] | None:
    if not waits:
        return None
    ordered = sorted(waits)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p99": round(ordered[round(0.99 * (len(ordered) - 1))], 1),
        "missed": probes - len(waits),
    }


def under_load(
    peer: Running, clicks: Sequence[Click], rates: Rates, seconds: float
) -> dict[str, Any]:
    """Latencies of answers at a rate, with single events at theirs beside them.

    Where a question is how a peer hears of a click, events are questions.
    """
    asked = [peer.ask(click.session, click.item) for click in clicks]
    told = asked if peer.tell is None else [peer.tell(click) for click in clicks]

    async def measured() -> tuple[Stream, Stream | None]:
        answers = at_rate(
            peer.port,
            lambda number: asked[number % len(asked)],
            rate=rates.answers,
            seconds=seconds,
        )
        if not rates.events:
            return await answers, None
        events = at_rate(
            peer.port,
            lambda number: told[(7 * number) % len(told)],
            rate=rates.events,
            seconds=seconds,
        )
        both = await asyncio.gather(answers, events)
        return both[0], both[1]

    answers, events = uvloop.run(measured())
    figures: dict[str, Any] = {**rates._asdict(), **answers.quantiles()}
    if events is not None:
        figures["event"] = events.quantiles()
    return figures


def answers_per_s(peer: Running, clicks: Sequence[Click], seconds: float) -> float:
    """Most answers a second over 16 connections, with nothing beside them."""
    asked = [peer.ask(click.session, click.item) for click in clicks]
    answers = as_fast_as_answered(
        peer.port, lambda number: asked[number % len(asked)], seconds=seconds, connections=16
    )
    return uvloop.run(answers)


def memory_mib(peer: Running) -> float:
    """Proportional share of memory of a peer's processes and their children, without this one's."""
    me, processes = psutil.Process(), {}
    for pid in peer.pids:
        root = psutil.Process(pid)
        for one in [root, *root.children(recursive=True)]:
            processes[one.pid] = one
    processes.pop(me.pid, None)
    return round(sum(one.memory_full_info().pss for one in processes.values()) / 2**20, 1)
