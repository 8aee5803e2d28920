"""State that all requests of a group share, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.store import Store

TOP_LISTS = ("all", "recent", *layout.POPULARITY_HALF_LIVES_S, "new", "fresh")


class GroupState(NamedTuple):
    """Top lists, clock, event types and ranker of a group.

    Attributes
    ----------
    clock_s, accepted_at
        Time of the newest event, and when the newest message was accepted, Unix seconds; 0 without.
    tops
        Item indexes of each of `TOP_LISTS`, best first, at most `layout.TOPS`.
    greatest
        The first item's score in each list; 0 for an empty one.
    types
        Event type of each code.
    ranker
        Values of the ranker's fields that were asked for; None where one is not stored.
    tried
        How often each item was shown for exploration.
    """

    clock_s: float
    accepted_at: float
    tops: dict[str, NDArray[np.int64]]
    greatest: dict[str, float]
    types: dict[int, str]
    ranker: list[bytes | None]
    tried: dict[int, int]


async def read_group_state(store: Store, ranker_fields: Sequence[str]) -> GroupState:
    """The group's shared state; one round trip."""
    pipe = store.redis.pipeline(transaction=False)
    for name in TOP_LISTS:
        pipe.zrange(store.key(f"top:{name}"), 0, layout.TOPS - 1, desc=True)
        # Scores of all would take the client longer than everything else here.
        pipe.zrange(store.key(f"top:{name}"), 0, 0, desc=True, withscores=True)
    pipe.hmget(store.key("counts"), ["clock", "accepted_at"])
    pipe.hgetall(store.key("types"))
    pipe.hmget(store.key("ranker"), list(ranker_fields))
    pipe.hgetall(store.key("tried"))
    *ranked, (clock, accepted_at), types, ranker, tried = await pipe.execute()
    return GroupState(
        float(clock or 0),
        float(accepted_at or 0),
        {
            name: np.array(items, "S").astype(np.int64) if items else np.empty(0, np.int64)
            for name, items in zip(TOP_LISTS, ranked[::2], strict=True)
        },
        {
            name: scored[0][1] if scored else 0.0
            for name, scored in zip(TOP_LISTS, ranked[1::2], strict=True)
        },
        {int(code): name.decode() for name, code in types.items()},
        ranker,
        {int(item): int(count) for item, count in tried.items()},
    )
