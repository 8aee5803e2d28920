"""Renewal of a group's item factors out of the histories in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from models.arrays import NO_ITEMS, Indexes
from models.retrieval.factor_learning import learned_factors
from models.state import layout
from models.state.shards.shard_names import FIRST_SESSION
from models.state.store import Store
from models.state.stored_factors import FactorsHead, pack_factors, save_factors

MIN_EVENTS = 1000
"""Events of a group from which on factors are learned."""

GROWTH, DAILY_GROWTH = 1.1, 1.01
"""Factors are due again once the group has so many times the events, the latter after a day."""

Pause = Callable[[], Awaitable[None]]


def is_due(n_events: int, last: FactorsHead, *, now_s: float) -> bool:
    """True if a group with so many events needs factors, or new ones.

    >>> last = FactorsHead(0.0, 5000, 300)
    >>> is_due(5100, last, now_s=3600.0), is_due(5100, last, now_s=layout.DAY_S)
    (False, True)
    """
    is_old = now_s - last.learned_at_s >= layout.DAY_S
    return n_events >= max(MIN_EVENTS, last.n_events * (DAILY_GROWTH if is_old else GROWTH))


async def no_pause() -> None:
    """Nothing, for who has nothing else to do meanwhile."""


async def renew_factors(
    store: Store,
    n_events: int,
    *,
    most_events: int,
    now_s: float,
    pause: Pause = no_pause,
    in_thread: bool = False,
) -> FactorsHead:
    """Learn factors from the group's histories, and store them; returns their head.

    Two round trips for 128 histories, and a second or two of computing for a million events.

    Parameters
    ----------
    n_events
        Events of the group.
    most_events
        Events to learn from, at most, of histories drawn at random where there are more.
    pause
        Awaited after every 128 histories.
    in_thread
        Compute in a thread beside the event loop.
    """
    taken = await _read_taken(store, most_events, pause)
    found = (
        await asyncio.to_thread(learned_factors, *taken) if in_thread else learned_factors(*taken)
    )
    head = FactorsHead(now_s, n_events, len(found))
    await save_factors(store, pack_factors(head, found))
    return head


async def _read_taken(store: Store, most_events: int, pause: Pause) -> tuple[Indexes, Indexes]:
    """Number of the history and index of the item, of each event that is not negative."""
    counts = await store.counts()
    pages = [
        first // layout.OWNERS_PER_PAGE + page
        for first, name in ((0, "owner_index"), (FIRST_SESSION, "session_index"))
        for page in range(int(counts.get(name, 0)) // layout.OWNERS_PER_PAGE + 1)
    ]
    numbers, items, n = [NO_ITEMS], [NO_ITEMS], 0
    # Pages, not keys: Redis knows no order of keys, and has those of other groups among them.
    for number, page in enumerate(np.random.default_rng(1).permutation(pages).tolist()):
        found = [one.items for one in await store.histories(await store.owners_of_page(page))]
        own = np.concatenate([NO_ITEMS, *found])
        lengths = np.array([len(one) for one in found], np.int64)
        of = np.repeat(number * layout.OWNERS_PER_PAGE + np.arange(len(found)), lengths)
        numbers.append(of[own > 0])
        items.append(own[own > 0])
        n += len(items[-1])
        if n >= most_events:
            break
        await pause()
    return np.concatenate(numbers), np.concatenate(items)
