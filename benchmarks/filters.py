"""Microseconds of CPU to decide which of 300 candidates a filter lets through, and to parse it.

python -m benchmarks.filters
"""

from __future__ import annotations

import random
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.conditions import median, report
from models.filters.filter import parse_filter_expression

CANDIDATES, HISTORY, ROUNDS, CALLS = 300, 80, 9, 100

FILTERS = {
    "one condition": "INCLUDE ItemID WHERE Items.GENRES IN ($GENRES)",
    "two conditions": "INCLUDE ItemID WHERE Items.GENRES IN ($GENRES) AND Items.PRICE <= $PRICE",
    "not bought yet": 'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("purchase")',
    "genre, not bought yet": "INCLUDE ItemID WHERE Items.GENRES IN ($GENRES) | "
    'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("purchase")',
    "cheaper of the same kind": "INCLUDE ItemID WHERE Items.PRICE < CurrentItem.PRICE "
    "AND Items.GENRES IN CurrentItem.GENRES",
    "five fields": "INCLUDE ItemID WHERE Items.GENRES IN ($GENRES) AND Items.PRICE <= $PRICE "
    'OR Items.BRAND IN ("b1", "b2") AND Items.YEAR > 1990 IF CurrentUser.AGE > 17',
}


def scene(chance: random.Random) -> dict[str, Any]:
    """Input of such a filter: items of eight properties, a user, and values of a request."""
    genres = [f"g{n}" for n in range(12)]
    items = [
        {
            "GENRES": "|".join(chance.sample(genres, 3)),
            "PRICE": round(100 * chance.random(), 2),
            "BRAND": f"b{chance.randrange(40)}",
            "YEAR": chance.randrange(1950, 2027),
            "NAME": f"item {n}",
            "CREATION_TIMESTAMP": 1_700_000_000 + n,
            "CATEGORY_L1": f"c{chance.randrange(5)}",
            "CATEGORY_L2": f"d{chance.randrange(50)}",
        }
        for n in range(CANDIDATES)
    ]
    seen = {f"i{chance.randrange(2 * CANDIDATES)}": {"click", "purchase"} for _ in range(HISTORY)}
    return {
        "properties": items,
        "interactions": seen,
        "user": {"AGE": 30, "PLAN": "gold"},
        "current_item": items[0],
        "values": {"GENRES": '"g1","g2"', "PRICE": "50"},
    }


def microseconds(call: Callable[[], object], calls: int) -> float:
    """Of CPU, for one call: the median of some rounds, each the mean of many calls."""
    timer = timeit.Timer(call, timer=time.process_time)
    return median([1e6 * timer.timeit(calls) / calls for _ in range(ROUNDS)])


def main() -> None:
    """Measure and print."""
    ids = [f"i{n}" for n in range(CANDIDATES)]
    column_options = scene(random.Random(7))
    evaluating, parsing = {}, {}
    for name, text in FILTERS.items():
        one = parse_filter_expression(text)
        evaluating[name] = microseconds(partial(one.allowed, ids, **column_options), CALLS)
        parsing[name] = microseconds(partial(parse_filter_expression.__wrapped__, text), 10)
    report("filters", {"evaluate_us": evaluating, "parse_us": parsing}, candidates=CANDIDATES)


if __name__ == "__main__":
    main()
