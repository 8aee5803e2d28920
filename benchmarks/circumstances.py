"""Hits gained by the `context` of requests, and the cost of contextual columns of events.

    python -m benchmarks.circumstances [--events 20000]

A simulated shop: each user has a taste, and devices correlate with the items taken. Every tenth
event is predicted, with and without its device, before it takes effect: for its user, and for an
anonymous visitor. Then the same with devices that correlate with nothing, where the context should
cost no hits. Last, the atomic step is timed on events without properties, with contextual ones, and
with properties of no schema; `--events 0` does only that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.conditions import median, report
from models.events import Event
from models.serving.answers import Answer
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of, stored_events
from models.state.store import Store
from models.state.tenants import Tenants
from ops.embedded_servers import start_redis

USERS, ITEMS, TASTES = 1500, 1000, 20
DEVICES = ("phone", "desktop", "tablet")
START_S = 1_790_000_000
WARM_UP = 0.25
EVERY = 10
TOP = 20
STEP = 200
STEPS = 150


class Taken(NamedTuple):
    """One event of the shop."""

    user: str
    item: str
    device: str


def shop(n: int, favour: float, seed: int = 7) -> Iterator[Taken]:
    """Events of users who stay with their taste for the most, on devices that they change at times.

    Every item belongs to a device, where it is `favour` times as likely as elsewhere.
    """
    chance = random.Random(seed)
    home = [chance.randrange(len(DEVICES)) for _ in range(ITEMS)]
    weights = {
        (taste, device): [
            (1 + item // TASTES) ** -0.8 * (favour if home[item] == device else 1.0)
            for item in range(taste, ITEMS, TASTES)
        ]
        for taste in range(TASTES)
        for device in range(len(DEVICES))
    }
    for _ in range(n):
        user = chance.randrange(USERS)
        taste = user % TASTES if chance.random() < 0.7 else chance.randrange(TASTES)
        device = user % len(DEVICES) if chance.random() < 0.5 else chance.randrange(len(DEVICES))
        (item,) = chance.choices(range(taste, ITEMS, TASTES), weights[taste, device])
        yield Taken(f"u{user}", f"i{item}", DEVICES[device])


class Hits:
    """HR@20 and MRR@20 of one way to answer."""

    def __init__(self) -> None:
        self.n, self.hits, self.reciprocal = 0, 0, 0.0

    def add(self, items: list[str], target: str) -> None:
        """One answer, and the item that was taken."""
        self.n += 1
        if target in items[:TOP]:
            self.hits += 1
            self.reciprocal += 1 / (1 + items.index(target))

    def measured(self) -> dict[str, float]:
        """The figures."""
        return {
            f"hr_{TOP}": round(self.hits / self.n, 4),
            f"mrr_{TOP}": round(self.reciprocal / self.n, 4),
            "queries": self.n,
        }


async def to_a_stranger(
    recommender: Recommender, now_s: float, *, context: dict[str, str] | None
) -> Answer:
    """The answer for a user without history."""
    return await recommender.recommend(k=TOP, now_s=now_s, context=context)


async def popular(recommender: Recommender, now_s: float) -> Answer:
    """The most popular items: a better baseline than trending ones if nothing trends."""
    return await recommender.popular(k=TOP, now_s=now_s)


def quality(settings: Settings, n: int, favour: float) -> dict[str, object]:
    """Prequential hits with and without context, of known users and of strangers."""
    hits: dict[str, Hits] = defaultdict(Hits)
    with LocalRecommender(settings) as shopkeeper:
        tenants = Tenants(connect(settings.redis), settings)
        shopkeeper.run(lambda *_: tenants.name_columns(settings.group, ["DEVICE"]))
        for number, (user, item, device) in enumerate(shop(n, favour)):
            said = {"DEVICE": device}
            if number > WARM_UP * n and number % EVERY == 0:
                for name, given in (("with", said), ("without", None)):
                    best = shopkeeper.recommend(user, k=TOP, barred=[], context=given)
                    hits[f"{name} context"].add([one for one, _ in best], item)
                    answer = shopkeeper.run(partial(to_a_stranger, context=given))
                    names = [one.item_id for one in answer.items]
                    hits[f"{name} context, strangers"].add(names, item)
                answer = shopkeeper.run(popular)
                hits["popular items, strangers"].add([one.item_id for one in answer.items], item)
            shopkeeper.learn(user, item, at_s=START_S + 60 * number, context=said)
        served = shopkeeper.learners["interactions"].champion
        shopkeeper.run(lambda *_: tenants.redis.aclose())
    return {"served": served, **{name: one.measured() for name, one in sorted(hits.items())}}


async def cost(redis: str) -> dict[str, object]:
    """Microseconds an event in the atomic step; the kinds in turn, so that all meet the same."""
    said: dict[str, dict[str, str] | None] = {
        "without properties": None,
        "one contextual column": {"DEVICE": "phone"},
        "three contextual columns": {"DEVICE": "phone", "CITY": "Ulm", "HOUR": "5"},
        "three properties of no schema": {"A": "phone", "B": "Ulm", "C": "5"},
    }
    stores = []
    for number in range(len(said)):
        settings = Settings(redis=redis, group=f"cost{number}")
        store = Store(connect(redis), settings)
        if number < len(said) - 1:
            await Tenants(store.redis, settings).name_columns(
                settings.group, ["DEVICE", "CITY", "HOUR"]
            )
        stores.append(store)
    took: dict[str, list[float]] = defaultdict(list)
    chance = random.Random(7)
    for step in range(STEPS):
        drawn = list(shop(STEP, 3.0, seed=step))
        values = [
            {"DEVICE": one.device, "CITY": f"c{chance.randrange(80)}", "HOUR": str(step % 24)}
            for one in drawn
        ]
        kinds = list(zip(stores, said.items(), strict=True))
        at = step % len(kinds)
        for store, (name, properties) in kinds[at:] + kinds[:at]:
            messages = [
                StoredMessage(
                    step * STEP + n, one.user, one.user, shard_of(one.user), START_S * 1.0,
                    _events(one, step * STEP + n, _varied(properties, values[n])),
                )
                for n, one in enumerate(drawn)
            ]  # fmt: skip
            parts = [Part("cost/0", step * STEP - 1, messages)]
            started = time.perf_counter()
            await store.apply(parts, now_s=START_S)
            took[name].append((time.perf_counter() - started) / STEP * 1e6)
    for store in stores:
        await store.redis.aclose()
    # The first steps meet lists that are short.
    late = {name: each[STEPS // 3 :] for name, each in took.items()}
    base = late["without properties"]
    return {
        "us_per_event": {name: median(each) for name, each in late.items()},
        "ratio": {
            name: median([one / other for one, other in zip(each, base, strict=True)])
            for name, each in late.items()
        },
    }


def _varied(properties: dict[str, str] | None, values: dict[str, str]) -> dict[str, str] | None:
    """Properties with drawn values; those of no schema unchanged."""
    return properties and {name: values.get(name, value) for name, value in properties.items()}


def _events(one: Taken, number: int, properties: dict[str, str] | None) -> list[StoredEvent]:
    event = Event(
        "click", START_S + number, event_id=str(number), item_id=one.item, properties=properties
    )
    return stored_events([event], EventTypes({}, frozenset(), {}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=20_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            figures = {
                f"devices that matter {favour:g} times": quality(
                    Settings(redis=server.url, group=f"shop{number}"), events, favour
                )
                for number, favour in enumerate((5.0, 2.0, 1.0) if events else ())
            }
            figures["cost"] = asyncio.run(cost(server.url))
        finally:
            server.stop()
    report("circumstances", figures, events=events)


if __name__ == "__main__":
    main()
