"""The bound on requests that wait for a server falls while a queue stands, and for nothing else."""

from __future__ import annotations

import heapq

import pytest

from api.server.admission import FEW, PATIENCE, Gate
from models.errors import Overloaded

pytestmark = pytest.mark.unit

MOST = 256

COUNTED_S = 5.0
"""Time from which on stays and refusals count."""


def served(
    offered_per_s: float,
    *,
    rate_per_s: float,
    delay_s: float,
    seconds: float = 16.0,
    is_busy: bool = False,
) -> tuple[list[float], int]:
    """Stays of the requests that were let in, in the order of their ends, and refusals.

    The server answers after `delay_s`, however many ask, and no more than `rate_per_s`. For four
    seconds a tenth of it is offered first; one more second is not counted. A busy process always
    has work to do.
    """
    now_s = 0.0
    gate = Gate(MOST, "events", "Kafka", clock=lambda: now_s, cpu=lambda: now_s if is_busy else 0.0)
    stays: list[float] = []
    under_way: list[tuple[float, float]] = []
    free_s, refused, next_s = 0.0, 0, 0.0
    while next_s < seconds:
        if under_way and under_way[0][0] <= next_s:
            now_s, began_s = heapq.heappop(under_way)
            gate.__exit__()
            if now_s > COUNTED_S:
                stays.append(now_s - began_s)
            continue
        now_s = next_s
        next_s += 1 / (offered_per_s if now_s > 4.0 else min(offered_per_s, rate_per_s) / 10)
        try:
            gate.__enter__()
        except Overloaded:
            refused += now_s > COUNTED_S
        else:
            free_s = max(free_s, now_s) + 1 / rate_per_s
            heapq.heappush(under_way, (free_s + delay_s, now_s))
    return stays, refused


@pytest.mark.parametrize(("rate_per_s", "delay_s"), [(500.0, 0.003), (300.0, 0.02)])
def test_a_standing_queue_is_refused(rate_per_s: float, delay_s: float) -> None:
    """At three times the rate, what is let in takes a few times as long as usual."""
    stays, refused = served(3 * rate_per_s, rate_per_s=rate_per_s, delay_s=delay_s)
    usual_s = delay_s + 1 / rate_per_s
    assert max(stays) < max((PATIENCE + 2) * usual_s, 2 * FEW / rate_per_s + delay_s)
    assert len(stays) > 0.9 * 11 * rate_per_s, "the server is busy all the time"
    assert refused > 1.5 * 11 * rate_per_s


def test_a_busy_process_is_not_taken_for_a_slow_server() -> None:
    """However long an overload lasts, stays in it do not become the usual ones."""
    late = slice(-1000, None)
    busy, idle = (
        served(1500.0, rate_per_s=500.0, delay_s=0.001, seconds=60.0, is_busy=is_busy)[0]
        for is_busy in (True, False)
    )
    longest_s = (FEW + 1) / 500
    assert max(busy[late]) < longest_s
    assert max(idle[late]) > longest_s, "it may be as slow by itself"


@pytest.mark.parametrize("delay_s", [0.05, 0.2])
def test_a_server_that_is_far_away_is_no_queue(delay_s: float) -> None:
    """Its answers take long, however few ask: all are let in."""
    stays, refused = served(0.4 * MOST / delay_s, rate_per_s=1e6, delay_s=delay_s)
    assert refused == 0
    assert stays


def test_the_bound_rises_again() -> None:
    """After a time of long stays as many are let in as before."""
    now_s = 0.0
    gate = Gate(64, "events", "Kafka", clock=lambda: now_s)

    def turn(n: int, stay_s: float) -> int:
        nonlocal now_s
        let_in = 0
        for _ in range(n):
            try:
                gate.__enter__()
            except Overloaded:
                break
            let_in += 1
        now_s += stay_s
        for _ in range(let_in):
            gate.__exit__()
        return let_in

    assert turn(64, 0.01) == 64
    assert turn(100, 0.01) == 64
    for _ in range(4):
        turn(64, 1.0)
    assert turn(64, 0.01) == FEW
    for _ in range(400):
        turn(64, 0.01)
    assert turn(100, 0.01) == 64
