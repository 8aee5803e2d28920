"""State that all requests of a group share, in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
        Item indexes of each top list that was asked for, best first.
    greatest
        The first item's score in each list of `GREATEST`; 0 for an empty one.
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


GREATEST = ("all", *layout.POPULARITY_HALF_LIVES_S)
"""Top lists whose greatest score is read."""


async def read_group_state(
    store: Store, ranker_fields: Sequence[str], sizes: Mapping[str, int] | None = None
) -> GroupState:
    """The group's shared state; one round trip.

    Parameters
    ----------
    sizes
        Items to read of each top list, 1 or more; lists that are not in it are not read. None for
        all, `layout.TOPS` of each.
    """
    if sizes is None:
        sizes = dict.fromkeys(TOP_LISTS, layout.TOPS)
    answers = await store.redis.shared_reads.run(
        *(("ZRANGE", store.key(f"top:{name}"), 0, n - 1, "REV") for name, n in sizes.items()),
        # Scores of all would take the client longer than everything else here.
        *(("ZRANGE", store.key(f"top:{name}"), 0, 0, "REV", "WITHSCORES") for name in GREATEST),
        ("HMGET", store.key("counts"), "clock", "accepted_at"),
        ("HGETALL", store.key("types")),
        ("HMGET", store.key("ranker"), *ranker_fields),
        ("HGETALL", store.key("tried")),
    )
    *ranked, (clock, accepted_at), types, ranker, tried = answers
    return GroupState(
        float(clock or 0),
        float(accepted_at or 0),
        {
            name: np.array([*map(int, items)], np.int64)
            for name, items in zip(sizes, ranked, strict=False)
        },
        {
            name: _first_score(scored)
            for name, scored in zip(GREATEST, ranked[len(sizes) :], strict=True)
        },
        {int(code): name.decode() for name, code in _pairs(types)},
        ranker,
        {int(item): int(count) for item, count in _pairs(tried)},
    )


def _first_score(scored: list[Any]) -> float:
    """Score of the first member, as either version of the protocol gives it; 0 without one."""
    if not scored:
        return 0.0
    return float(scored[0][1] if isinstance(scored[0], list) else scored[1])


def _pairs(answer: dict[bytes, bytes] | list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Fields and values of a hash, as either version of the protocol gives them."""
    if isinstance(answer, dict):
        return answer.items()
    return zip(answer[::2], answer[1::2], strict=True)
