"""State that all requests of a group share, in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.shards.shard_names import own_places
from models.state.store import Store

T = TypeVar("T", bound=np.generic)

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
    hidden_version
        Grows whenever other items are hidden than before; 0 while none ever was.
    expiry_version
        The same of moments from which items are hidden.
    n_variants, variants_version
        Items that are variants of a product; grows whenever others are.
    terms_version
        The same as `hidden_version`, of the terms of items' texts.
    factors_version
        The same of the items' factors.
    """

    clock_s: float
    accepted_at: float
    tops: dict[str, NDArray[np.int64]]
    greatest: dict[str, float]
    types: dict[int, str]
    ranker: list[bytes | None]
    tried: dict[int, int]
    hidden_version: int
    expiry_version: int
    n_variants: int
    variants_version: int
    terms_version: int
    factors_version: int


GREATEST = ("all", *layout.POPULARITY_HALF_LIVES_S)
"""Top lists whose greatest score is read."""


COUNTS = (
    "clock", "accepted_at",
    "hidden_updates", "expiry_updates", "variants", "variant_updates", "term_updates",
    "factor_updates",
)  # fmt: skip
"""Fields of `counts` that are read: the last ones in the order of `GroupState`."""


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
    answers = await store.shared_answers(
        *(("ZRANGE", store.key(f"top:{name}"), 0, n - 1, "REV") for name, n in sizes.items()),
        # Scores of all would take the client longer than everything else here.
        *(("ZRANGE", store.key(f"top:{name}"), 0, 0, "REV", "WITHSCORES") for name in GREATEST),
        ("HMGET", store.key("counts"), *COUNTS),
        ("HGETALL", store.key("types")),
        ("HMGET", store.key("ranker"), *ranker_fields),
        ("HGETALL", store.key("tried")),
    )
    *ranked, (clock, accepted_at, *updates), types, ranker, tried = answers
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
        layout.type_names(dict(_pairs(types))),
        ranker,
        {int(item): int(count) for item, count in _pairs(tried)},
        *(int(update or 0) for update in updates),
    )


async def read_hidden(store: Store) -> NDArray[np.bool_]:
    """True at the index of each item that no answer may hold; shorter than there are items.

    One round trip, of a bit for each item up to the last that ever was hidden.
    """
    raws = await _of_item_stores(store, "hidden")
    return by_index([np.unpackbits(np.frombuffer(raw, np.uint8)).astype(np.bool_) for raw in raws])


async def read_expiries(store: Store) -> NDArray[np.uint32]:
    """Second from which no answer may hold each item, by its index; 0 for never.

    One round trip, of four bytes for each item up to the last that ever had one.
    """
    raws = await _of_item_stores(store, "expires")
    return by_index([np.frombuffer(raw, layout.EXPIRY) for raw in raws])


async def read_products(store: Store) -> NDArray[np.float64]:
    """Number of the product that each item is a variant of, by its index; 0 for none.

    One round trip, of eight bytes for each item up to the last that ever was a variant.
    """
    raws = await _of_item_stores(store, "variants")
    return by_index([np.frombuffer(raw, layout.PRODUCT) for raw in raws])


async def _of_item_stores(store: Store, name: str) -> list[bytes]:
    """A string with a place for each item, of each of the item shards or the one store."""
    keys = [one.key(name) for one in store.item_stores]
    return [raw or b"" for raw in await store.shared_answers(*(("GET", key) for key in keys))]


def by_index(of_shards: Sequence[NDArray[T]]) -> NDArray[T]:
    """Values of items at their places in each item shard, by index; zero where there is none.

    >>> by_index([np.array([0, 7]), np.array([0, 9])])[[1, 65]]
    array([7, 9])
    """
    if len(of_shards) == 1:
        return of_shards[0]
    places = [own_places(len(of_shards), shard, len(own)) for shard, own in enumerate(of_shards)]
    n = max((int(own[-1]) + 1 for own in places if len(own)), default=0)
    found = np.zeros(n, of_shards[0].dtype)
    for own, values in zip(places, of_shards, strict=True):
        found[own] = values
    return found


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
