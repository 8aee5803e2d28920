"""More than a process can take is refused; what it accepts takes effect."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from tests.stack import Stack

N_AT_ONCE = 60


async def press(url: str, n_rounds: int) -> tuple[Counter[int], list[str | None]]:
    """Statuses of many events and questions at once, and what refusals say about another try."""
    statuses: Counter[int] = Counter()
    hints: list[str | None] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def event(number: int) -> None:
            body = {
                "sessionId": f"s{number}",
                "eventList": [{"eventType": "click", "itemId": "i1", "sentAt": time.time()}],
            }
            answer = await client.post("/events", json=body)
            statuses[answer.status_code] += 1
            if answer.status_code != 202:
                hints.append(answer.headers.get("retry-after"))

        async def question(number: int) -> None:
            answer = await client.get(f"/recommend?session_id=s{number}")
            if answer.status_code != 200:
                assert answer.status_code in {429, 503}
                hints.append(answer.headers.get("retry-after"))

        for first in range(0, n_rounds * N_AT_ONCE, N_AT_ONCE):
            numbers = range(first, first + N_AT_ONCE)
            await asyncio.gather(*map(event, numbers), *map(question, numbers))
    return statuses, hints


@pytest.mark.slow
def test_what_is_too_much_is_refused(embedded_stack: Callable[..., Stack]) -> None:
    """Every refusal is a 429 or 503 with Retry-After; exactly what was accepted is in effect."""
    one = embedded_stack(max_publishing=3, max_answering=3, max_connections=500)
    one.start("worker")
    one.start("api")
    one.wait_ready()
    before = one.counts()["events"]

    statuses, hints = asyncio.run(press(one.url, n_rounds=4))

    assert set(statuses) <= {202, 429, 503}
    assert statuses[202] > 0
    assert statuses[429] + statuses[503] > 0
    assert all(hint is not None and int(hint) > 0 for hint in hints)
    one.wait(lambda: one.status().lag == 0, "all that was accepted is in effect")
    one.wait(lambda: one.counts()["events"] - before == statuses[202], "each took effect once")
