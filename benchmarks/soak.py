"""Half of the sustainable rate for half an hour: what grows.

    python -m benchmarks.soak [--minutes 30] [--rate 0] [--items 2000] [--users 5000]

Events and questions of `benchmarks.overload` at a steady rate; without `--rate` at half of what the
API answers from 16 connections. `sizes` has the slope of each process and of Redis' data, an hour,
over the second half of the run: what they hold of users, items and served lists is bounded by
`USERS`, `ITEMS` and `FOLLOWED_LISTS`, so all are flat once it has been filled. What rates of some
100 a second fill in half an hour are `--items 200 --users 300`.
"""

from __future__ import annotations

import argparse
import asyncio
from functools import partial

from benchmarks.conditions import report, until
from benchmarks.overload import ITEMS, USERS, is_in_effect, mixed, n_events, running
from benchmarks.peers.load import as_fast_as_answered, at_rate
from benchmarks.samples import sampled


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--users", type=int, default=USERS)
    asked = parser.parse_args()
    request = partial(mixed, items=asked.items, users=asked.users)
    seconds = 60 * asked.minutes
    with running() as (settings, pids):
        rate = asked.rate
        if not rate:
            most = as_fast_as_answered(settings.port, request, seconds=10, connections=16)
            rate = asyncio.run(most) / 2
        until(is_in_effect(settings), within_s=600)
        before = asyncio.run(n_events(settings))
        with sampled(pids, settings, every_s=min(10.0, seconds / 20)) as samples:
            stream = asyncio.run(at_rate(settings.port, request, rate=rate, seconds=seconds))
        until(is_in_effect(settings), within_s=600)
        figures = {
            "rate_per_s": round(rate),
            **stream.quantiles(),
            "answers": dict(sorted(stream.statuses.items())),
            "accepted": stream.statuses["POST 202"],
            "in_effect": asyncio.run(n_events(settings)) - before,
            "sizes": samples.figures(settled_s=seconds / 2),
        }
        report("soak", figures, minutes=asked.minutes, items=asked.items, users=asked.users)


if __name__ == "__main__":
    main()
