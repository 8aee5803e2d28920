"""A synthetic shop in Redis, written through the atomic step: for serving and memory."""

from __future__ import annotations

import random

from models.settings import Settings
from models.state.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store

STEP = 200
START_S = 1_790_000_000


async def fill(
    settings: Settings, *, users: int, items: int, events_per_user: int, seed: int = 7
) -> Store:
    """Users with sessions over items of Zipf-like popularity in loose groups; gives the store."""
    store = Store(connect(settings.redis), settings)
    chance = random.Random(seed)
    messages: list[StoredMessage] = []
    offset = 0
    for number in range(users * events_per_user):
        user = number % users
        centre = (user * 7919) % items
        near = (centre + int(chance.gauss(0, 40))) % items
        item = near if chance.random() < 0.7 else int(chance.paretovariate(0.6)) % items
        event = StoredEvent(
            f"item-{item}", START_S + number, "click", 0.0, False, chance.getrandbits(48)
        )
        session = f"s{user:07d}"
        messages.append(
            StoredMessage(offset, f"u{user}", session, shard_of(session), START_S, [event])
        )
        offset += 1
        if len(messages) == STEP:
            await store.apply([Part("fill/0", offset - STEP - 1, messages)], now_s=START_S)
            messages = []
    if messages:
        before = offset - len(messages) - 1
        await store.apply([Part("fill/0", before, messages)], now_s=START_S)
    return store
