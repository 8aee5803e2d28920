"""Values of items' properties that answers show, count and compare, at most `cache_s` old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from models.metadata_records import Properties, categories_of, named_values
from models.ranking.selection import CapGroup
from models.serving.answers import Answer
from models.serving.cached.derived_values import DerivedValues
from models.serving.recommender import Recommender

T = TypeVar("T")


async def cached_properties(
    recommender: Recommender, items: Sequence[str], now_s: float
) -> list[Properties | None]:
    """Properties of items, at most `cache_s` old; None without a record."""
    cache = recommender.cache
    indexes = await cache.item_indexes(items)
    known = await cache.properties([n for n in indexes if n], now_s)
    if len(known) == len(indexes):
        return known
    by_index = dict(zip((n for n in indexes if n), known, strict=True))
    return [by_index.get(index) for index in indexes]


async def _derived(
    recommender: Recommender,
    kept: DerivedValues[T],
    derivation: tuple[str, ...],
    items: Sequence[str],
    now_s: float,
    derive: Callable[[Properties | None], T],
) -> Mapping[str, T]:
    """Values derived from the record of each item, found once for all requests."""
    found = kept.of(derivation, await recommender.cache.properties_version(now_s))
    new = [item for item in items if item not in found]
    if new:
        known = await cached_properties(recommender, new, now_s)
        found.update((item, derive(one)) for item, one in zip(new, known, strict=True))
    return found


async def value_groups(
    recommender: Recommender, items: Sequence[str], names: Sequence[str], *, now_s: float
) -> Mapping[str, Sequence[CapGroup]]:
    """Name and value of each value that items have of these properties, at most `cache_s` old.

    A text `a|b` has two values; texts count in any case. Names are understood as in `named_values`.
    Those of other items may be there too.
    """
    return await _derived(
        recommender,
        recommender.cache.value_groups,
        tuple(names),
        items,
        now_s,
        lambda properties: _value_groups(properties, names),
    )


def _value_groups(properties: Properties | None, names: Sequence[str]) -> tuple[CapGroup, ...]:
    return tuple(
        (name, part.strip().casefold())
        for name, value in named_values(properties, names).items()
        for part in (value.split("|") if isinstance(value, str) else [str(value)])
        if value is not None and part.strip()
    )


async def categories(
    recommender: Recommender, items: Sequence[str], *, now_s: float
) -> list[Sequence[str]]:
    """Categories of each item, see `categories_of`, at most `cache_s` old."""
    found = await _derived(
        recommender,
        recommender.cache.categories,
        (),
        items,
        now_s,
        lambda properties: categories_of(properties or {}),
    )
    return [found[item] for item in items]


async def with_properties(
    recommender: Recommender, answer: Answer, names: Sequence[str], *, now_s: float
) -> Answer:
    """The answer with these properties of its items, at most `cache_s` old.

    A name is understood in any case and with or without underscores; a property that an item lacks
    is left out.
    """
    if not names:
        return answer
    known = await cached_properties(recommender, [item.item_id for item in answer.items], now_s)
    items = [
        msgspec.structs.replace(item, properties=named_values(properties, names))
        for item, properties in zip(answer.items, known, strict=True)
    ]
    return msgspec.structs.replace(answer, items=items)
