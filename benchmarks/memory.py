"""Redis bytes per 1,000 users with 20 events each, and per 1,000 items with full lists.

What a group takes however many users and items it has (its table of recent events, top lists) is
counted apart, with what 300 items take beside their lists.

python -m benchmarks.memory [--redis-server PATH]
"""

from __future__ import annotations

import asyncio
import random

from benchmarks.conditions import report, servers
from benchmarks.state import START_S, STEP, fill
from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store

USERS, EVENTS, ITEMS = 20_000, 20, 1000


async def used(store: Store) -> int:
    """Used memory of the server in bytes."""
    info = await store.redis.info("memory")
    return int(info["used_memory"])


async def users_bytes(settings: Settings) -> float:
    """Bytes per 1,000 users: histories and session links, beside the items they share."""
    group = settings.model_copy(update={"group": "users"})
    store = await fill(group, users=100, items=200, events_per_user=400)
    before = await used(store)
    await store.redis.delete(store.key("watermarks"))
    await fill(group, users=USERS, items=200, events_per_user=EVENTS, seed=8)
    return (await used(store) - before) / (USERS / 1000)


async def visit(store: Store, *, first: int, items: int, steps: int, from_offset: int) -> int:
    """Twenty sessions take items at random, from a number on; gives the next offset."""
    chance = random.Random(first)
    for step in range(steps):
        messages = []
        for offset in range(from_offset + step * STEP, from_offset + (step + 1) * STEP):
            session, number = f"s{offset % 20}", first + chance.randrange(items)
            item, hashed = f"item-{number:06d}", chance.getrandbits(32)
            event = StoredEvent(item, START_S + offset // STEP, "click", 0.0, False, hashed)
            messages.append(StoredMessage(offset, "", session, shard_of(session), START_S, [event]))
        part = Part("fill/0", messages[0].offset - 1, messages)
        await store.apply([part], now_s=START_S)
    return from_offset + steps * STEP


async def items_bytes(settings: Settings) -> tuple[float, float, float]:
    """Bytes per 1,000 items, those of the group itself, and how full lists are on average."""
    store = Store(connect(settings.redis), settings.model_copy(update={"group": "items"}))
    empty = await used(store)
    # Histories and top lists are full before what is measured: they belong to no item.
    offset = await visit(store, first=0, items=layout.TOPS, steps=25, from_offset=0)
    lists = [f"{family}:{n}" for n in range(1, layout.TOPS + 1) for family in ("pairs", "takers")]
    of_lists = [await store.redis.memory_usage(store.key(name)) or 0 for name in lists]
    before = await used(store)
    await visit(store, first=layout.TOPS, items=ITEMS, steps=400, from_offset=offset)
    of_old = [await store.redis.memory_usage(store.key(name)) or 0 for name in lists]
    grown = await used(store) - before - (sum(of_old) - sum(of_lists))
    new = range(layout.TOPS + 1, layout.TOPS + 101)
    sizes = [len(await store.redis.get(store.key(f"pairs:{n}")) or b"") for n in new]
    pairs_bytes = sum(sizes) / len(sizes) - layout.PAIR_HEAD.size
    of_group = before - empty - sum(of_lists)
    return grown / (ITEMS / 1000), of_group, pairs_bytes / layout.PAIR.itemsize


async def measure(settings: Settings) -> dict[str, float]:
    """Both figures, in megabytes."""
    users = await users_bytes(settings)
    items, of_group, neighbours = await items_bytes(settings)
    return {
        "users_mb_per_1000": round(users / 1e6, 3),
        "items_mb_per_1000": round(items / 1e6, 3),
        "group_mb": round(of_group / 1e6, 3),
        "neighbours_per_item": round(neighbours, 1),
    }


def main() -> None:
    """Measure and print."""
    with servers() as settings:
        report("memory", asyncio.run(measure(settings)), users=USERS, events_each=EVENTS)


if __name__ == "__main__":
    main()
