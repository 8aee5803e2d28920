"""Needs of a group, and how evenly its shards are loaded: python -m benchmarks.scaling.

Arithmetic on measured figures (docs/benchmarks.md, `python -m benchmarks.shards`), and a simulation
of items by Zipf's law over shards by hash. It measures nothing, and takes seconds on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any, NamedTuple

import numpy as np

from models.state import layout
from models.state.shards.shard_names import MAX_SHARDS, owner_shard

SCRIPT_US = 75.0
"""CPU of one shard's step for an event."""

SHARDED = 1.11
"""Times that, both steps together, at most (`python -m benchmarks.shards`)."""

DELTA_BYTES = 260
"""Deltas of an event over 16 shards and more."""

EVENT_BYTES = 200
WORKER_US = 80.0
"""CPU of a worker for an event, of one event a message."""

ANSWERS_PER_CORE = 5_000
ANSWER_REDIS_US = 20.0
"""CPU of Redis for an answer: assumed, two reads with most lists in the API's cache."""

BUSY = 0.6
"""Share of a core that is planned for."""

MEMORY_USED = 0.6
"""Share of a machine's memory that is planned for: a save of the state needs the remainder."""

CORES, MEMORY_GIB, PRICE_PER_HOUR = 2, 8, 0.0816
"""A machine: m7g.large on demand, us-east-1, June 2026."""

HOURS = 730.0

PERSONALIZE_PER_1000 = ((72e6, 0.0556), (648e6, 0.0278), (math.inf, 0.0139))
PERSONALIZE_PER_GB = 0.05
"""Requests a month and price of 1,000, tier by tier; of data. Without training. As remembered from
the price list of custom recipes: to be looked up before anybody decides by it."""


class Demand(NamedTuple):
    """Load of a group; `neighbours` is the mean length of a list."""

    events: float
    answers: float
    items: float
    users: float
    neighbours: float
    events_per_user: float = 50


DEMANDS = {
    "a shop": Demand(1_000, 200, 1e5, 1e6, 100),
    "a large shop": Demand(7_000, 2_000, 1e6, 2e6, 60),
    "many shops": Demand(100_000, 10_000, 1.5e7, 1e8, 40),
    "the largest": Demand(1_000_000, 100_000, 1e9, 1e9, 20),
}


def item_bytes(demand: Demand) -> float:
    """Memory of an item: names and indexes, counts, neighbours, newest owners, top lists."""
    is_wide = demand.items > layout.MAX_ITEM_INDEX
    pair = layout.PAIR.itemsize + (4 if is_wide else 0)
    owners = 4 * min(layout.RECENT_OWNERS, demand.users * demand.events_per_user / demand.items)
    return 250 + layout.STAT.itemsize + pair * demand.neighbours + owners


def user_bytes(demand: Demand) -> float:
    """Memory of a user: history, and a name by its number."""
    # Of an event: its hash, an item in 3 bytes, a type, and some 1.2 bytes of time in real data.
    event = layout.EVENT_HASH.itemsize + 3 + 1 + 1.2
    return 150 + event * demand.events_per_user


def needs(demand: Demand) -> dict[str, Any]:
    """Primaries, machines, network and price of a demand."""
    is_sharded = demand.events * SCRIPT_US / 1e6 > BUSY
    redis_cores = (
        demand.events * SCRIPT_US * (SHARDED if is_sharded else 1)
        + demand.answers * ANSWER_REDIS_US
    ) / 1e6
    gib = (demand.items * item_bytes(demand) + demand.users * user_bytes(demand)) / 2**30
    by_cpu = math.ceil(redis_cores / BUSY)
    by_memory = math.ceil(gib / (MEMORY_GIB * MEMORY_USED))
    primaries = max(by_cpu, by_memory)
    is_sharded = primaries > 1
    workers = math.ceil(demand.events * WORKER_US / 1e6 / BUSY)
    apis = math.ceil(demand.answers / ANSWERS_PER_CORE / BUSY)
    kafka_bytes = demand.events * (EVENT_BYTES + (DELTA_BYTES if is_sharded else 0))
    brokers = max(3, math.ceil(3 * kafka_bytes / 50e6))
    machines = 2 * primaries + math.ceil((workers + apis) / CORES) + brokers
    return {
        "primaries": primaries,
        "decided_by": "memory" if by_memory > by_cpu else "CPU",
        "shards": min(2 ** math.ceil(math.log2(4 * primaries)), MAX_SHARDS) if is_sharded else 1,
        "memory_gib": round(gib, 1),
        "worker_cores": workers,
        "api_cores": apis,
        "kafka_mb_per_s": round(kafka_bytes / 1e6, 1),
        "machines": machines,
        "dollars_a_month": round(machines * PRICE_PER_HOUR * HOURS),
        "personalize_dollars_a_month": round(personalize(demand)),
    }


def personalize(demand: Demand) -> float:
    """Price of a month's requests and data at Amazon Personalize, without training."""
    requests, price = demand.answers * HOURS * 3600, 0.0
    for size, per_1000 in PERSONALIZE_PER_1000:
        own = min(requests, size)
        price += own / 1000 * per_1000
        requests -= own
    return price + demand.events * HOURS * 3600 * EVENT_BYTES / 1e9 * PERSONALIZE_PER_GB


def balance(shards: int, *, items: int, zipf: float, step: int) -> dict[str, float]:
    """Load of the busiest item shard, as a multiple of the mean.

    `events`: by events on its items. `lists`: by distinct items in steps of `step` events of each
    shard, where what a step does for one item is done once; the truth is between the two.
    """
    of_item = np.arange(1, items + 1, dtype=float) ** -zipf
    of_item /= of_item.sum()
    where = np.array([owner_shard(f"item-{n}", shards) for n in range(items)])
    events = np.bincount(where, of_item, minlength=shards)
    touched = -np.expm1(step * shards * np.log1p(-of_item))
    lists = np.bincount(where, touched, minlength=shards)
    return {
        "events": round(float(events.max() / events.mean()), 2),
        "lists": round(float(lists.max() / lists.mean()), 2),
        "hottest_item": round(float(of_item[0]), 3),
    }


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--zipf", type=float, default=1.1)
    parser.add_argument("--step", type=int, default=200)
    args = parser.parse_args()
    figures = {
        "needs": {name: needs(demand) for name, demand in DEMANDS.items()},
        "busiest_item_shard": {
            str(n): balance(n, items=args.items, zipf=args.zipf, step=args.step)
            for n in (2, 4, 8, 16, 64, 256)
        },
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
