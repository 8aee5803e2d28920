"""A shop in Redis, made up or of recorded events, written through the atomic step."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

from models.events import PutEvents
from models.settings import Settings
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of, stored_events
from models.state.store import Store
from streams.recordings.recorded_events import read_events

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
            f"item-{item}", START_S + number, "click", 0.0, False, chance.getrandbits(32)
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


async def fill_recorded(settings: Settings, file: Path) -> list[str]:
    """The events of a file, each user's as those of a user and a session; gives the users."""
    store, now_s = Store(connect(settings.redis), settings), time.time()
    users: dict[str, None] = {}
    offset, types = 0, EventTypes.of(settings)
    rows = (row for _, row in read_events(file, now_s=now_s, as_="sessions"))
    while some := list(itertools.islice(rows, STEP)):
        messages: list[StoredMessage] = []
        for row in some:
            if isinstance(row, PutEvents):
                users[row.session_id] = None
                events = stored_events(row.event_list, types)
                shard = shard_of(row.session_id)
                number = offset + len(messages)
                messages.append(StoredMessage(number, "", row.session_id, shard, now_s, events))
        await store.apply([Part("fill/0", offset - 1, messages)], now_s=now_s)
        offset += len(messages)
    await store.close()
    return list(users)
