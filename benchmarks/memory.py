"""Redis bytes per 1,000 users with 20 events each, and per 1,000 items with full lists.

What a group takes however many users and items it has, which is its table of recent events, is
counted apart.

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


async def items_bytes(settings: Settings) -> tuple[float, float, float]:
    """Bytes per 1,000 items, those of the group itself, and how full lists are on average."""
    group = settings.model_copy(update={"group": "items"})
    empty = await used(Store(connect(group.redis), group))
    store = await fill(group, users=1, items=1, events_per_user=1)
    await store.redis.delete(store.key("watermarks"))
    before, chance = await used(store), random.Random(7)
    for step in range(400):
        messages = []
        for n in range(STEP):
            session = f"s{n % 20}"
            item = f"item-{chance.randrange(ITEMS):06d}"
            event = StoredEvent(item, START_S + step, "click", 0.0, False, chance.getrandbits(32))
            offset = step * STEP + n
            messages.append(StoredMessage(offset, "", session, shard_of(session), START_S, [event]))
        await store.apply([Part("fill/0", step * STEP - 1, messages)], now_s=START_S)
    per_1000 = (await used(store) - before) / (ITEMS / 1000)
    sizes = [len(await store.redis.get(store.key(f"pairs:{n}")) or b"") for n in range(1, 101)]
    pairs_bytes = sum(sizes) / len(sizes) - layout.PAIR_HEAD.size
    return per_1000, before - empty, pairs_bytes / layout.PAIR.itemsize


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
