"""Enough items for an answer of which some are taken out: longer answers, then other items.

What one search has found out for everybody is kept until an item or a record changes: that a short
answer has too few items, and how many items there are at all. So a filter or a cap that can never
fill a list is not searched for again by every question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import NO_ITEMS, Indexes
from models.filters.grammar import IDENTITIES
from models.metadata_records import normalized
from models.serving.answers import Answer
from models.serving.cached.property_index import IndexedFilter
from models.serving.item_filters import ItemFilter
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import of_categories
from models.state.histories import History, item_indexes, last_item

MAX_OTHERS = 4000
"""Items that are looked at for a filter that leaves too few of an answer, at most."""

AT_ONCE = 1000
"""Of these, items that are tried at once."""

FIRST_CANDIDATES = 1.5
"""Candidates for each item wanted that a filter is tried on first; and ten more for short lists."""

Keep = Callable[[list[str]], Awaitable[Sequence[str]]]
"""Chooses among item ids, in their order."""


class ItemSearch(NamedTuple):
    """A search for k items that filters and bounds allow, as several requests make it.

    Attributes
    ----------
    k
        Items wanted.
    filters
        All must allow an item.
    bounds
        Texts of rules that leave out items because of others, such as caps.
    is_known
        True if `k` is no more than there are, as an earlier search found.
    """

    k: int
    filters: Sequence[ItemFilter]
    bounds: tuple[str, ...] = ()
    is_known: bool = False

    @property
    def key(self) -> str:
        """The same for requests that seek by the same: a digest, for filters may be long."""
        parts = [part for one in self.filters for part in one.key] + [*self.bounds]
        text = "\0".join(parts).encode(errors="surrogatepass")
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    @property
    def is_shared(self) -> bool:
        """True if there are filters, and they allow the same items whoever asks."""
        return bool(self.filters) and all(one.is_shared for one in self.filters)


def first_length(k: int) -> int:
    """Candidates to ask for first where some are taken out: a few more than the k wanted.

    Most filters leave enough of them, and a longer list begins with the same items.

    >>> first_length(25)
    47
    """
    return 10 + int(FIRST_CANDIDATES * k)


async def until_enough(
    recommender: Recommender,
    search: ItemSearch,
    lengths: Sequence[int],
    ask: Callable[[int], Awaitable[Answer]],
    keep: Keep,
    *,
    now_s: float,
) -> tuple[Answer, list[str]]:
    """The first of ever longer answers of which enough items are kept, and those; or the last.

    A length that was too short for an earlier request is left out.

    Parameters
    ----------
    lengths
        At least one; a longer answer begins with the same items.
    ask, keep
        Make the answer with so many items, and choose among its item ids, in their order.
    """
    k, cache = search.k, recommender.cache
    too_short, key = dict[str, int](), ""
    if len(lengths) > 1 and (search.filters or search.bounds):
        key = f"{search.k} {search.key}"
        too_short = cache.too_short.of((), await cache.properties_version(now_s))
    longer = [length for length in lengths if length > too_short.get(key, 0)]
    for length in longer or lengths[-1:]:
        answer = await ask(length)
        kept = await keep([item.item_id for item in answer.items])
        if len(kept) >= k or len(answer.items) < length:
            break
        too_short[key] = length
    return answer, list(kept)


async def within_known(recommender: Recommender, search: ItemSearch, now_s: float) -> ItemSearch:
    """The same, of no more items than there are, as far as that is known."""
    cache = recommender.cache
    version = cache.property_index.made_version
    if not search.is_shared or version is None:
        return search
    key = search.key
    if key not in cache.most_items.of((), version):
        return search
    version = await cache.property_index.version(now_s)
    known = None if version is None else cache.most_items.of((), version).get(key)
    return search if known is None else search._replace(k=min(search.k, known), is_known=True)


async def note_most(
    recommender: Recommender, search: ItemSearch, now_s: float, keep: Keep | None = None
) -> None:
    """Keep how many items there are, of all that the filters allow, if it is not known yet.

    With bounds up to `MAX_OTHERS` are looked at. Nothing is kept where it depends on who asks, or
    without an index.

    Parameters
    ----------
    keep
        Chooses among items that the filters allow, as the bounds do; None without any.
    """
    cache = recommender.cache
    if search.is_known or not search.is_shared:
        return
    version = await cache.property_index.version(now_s)
    allowed = await _indexed(recommender, search.filters, now_s)
    if allowed is None or version is None:
        return
    n = len((await cache.refresh(now_s)).shown(allowed))
    if keep is not None:
        items = await _that_may_match(recommender, search.filters, None, now_s)
        names = await _allowed_of(recommender, search.filters, items, MAX_OTHERS, now_s)
        n = len(await keep(names))
    if cache.property_index.made_version == version:
        cache.most_items.of((), version)[search.key] = n


async def others_allowed(
    recommender: Recommender,
    filters: Sequence[ItemFilter],
    shown: Answer,
    *,
    most: int,
    now_s: float,
    history: History,
    taken_out: Collection[str] = (),
) -> list[str]:
    """Items that all filters of a request allow, beside those of an answer with too few of them.

    The first `most`, and some more, of all there are, as `PropertyIndex` has them, or else of the
    last changed items of each category that the filters' INCLUDEs name, then the top lists: of some
    thousands in all; without the item being looked at or, without one, the user's last, unless an
    INCLUDE asks for what the user has met. Some round trips.
    """
    left_out = {*(item.item_id for item in shown.items), *shown.disliked, *taken_out}
    item_id = filters[0].item_id
    if item_id is not None:
        left_out.add(item_id)
    elif not any(one.filter.includes_interactions for one in filters):
        last = await recommender.cache.item_ids.of(last_item(history).tolist())
        left_out.update(name for name in last if name is not None)
    named = await _that_may_match(recommender, filters, history, now_s)
    return await _allowed_of(
        recommender, filters, named, most, now_s, history=history, left_out=left_out
    )


async def _allowed_of(
    recommender: Recommender,
    filters: Sequence[ItemFilter],
    items: Indexes,
    most: int,
    now_s: float,
    *,
    history: History | None = None,
    left_out: Collection[str] = (),
) -> list[str]:
    """The items that all filters allow, in their order; the first `most` and some more."""
    found: list[str] = []
    for at in range(0, len(items), AT_ONCE):
        names = await recommender.cache.item_ids.of(items[at : at + AT_ONCE].tolist())
        left = [name for name in names if name is not None and name not in left_out]
        for one in filters:
            left = await one.allowed(recommender, left, now_s=now_s, history=history)
        found += left
        if len(found) >= most:
            break
    return found


async def _that_may_match(
    recommender: Recommender, filters: Sequence[ItemFilter], history: History | None, now_s: float
) -> Indexes:
    """Distinct items that the filters may allow, the user's own and those of top lists first.

    All that their conditions on properties allow, up to `MAX_OTHERS`; where there is no index, of
    the categories that they ask for and of the top lists.
    """
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    top_items = np.array(
        list(dict.fromkeys(np.concatenate([NO_ITEMS, *shared.top_lists.values()]).tolist())),
        np.int64,
    )
    wanted = {pair for one in filters for pair in one.filter.categories(one.values)}
    own_ids = [text for name, text in wanted if name == IDENTITIES["Items"]]
    own = np.array(await cache.item_indexes(own_ids), np.int64)
    if history is not None:
        # A condition on interactions looks at these, and the index knows nothing of it.
        own = np.concatenate([own, item_indexes(history)[::-1]])
    allowed = await _indexed(recommender, filters, now_s)
    if allowed is None:
        listed = await _of_wanted_categories(recommender, wanted, top_items.tolist(), now_s)
        order = [own[own > 0], np.array(listed, np.int64), top_items]
    else:
        first = np.concatenate([own[own > 0], top_items])
        places = np.minimum(np.searchsorted(allowed, first), max(len(allowed) - 1, 0))
        first = first[allowed[places] == first] if len(allowed) else NO_ITEMS
        order = [first, shared.shown(allowed)[::-1][: MAX_OTHERS + len(first)]]
    items = shared.shown(np.array(list(dict.fromkeys(np.concatenate(order).tolist())), np.int64))
    return items[:MAX_OTHERS]


async def _indexed(
    recommender: Recommender, filters: Sequence[ItemFilter], now_s: float
) -> Indexes | None:
    """Indexes of the items that all filters may allow; None without an index."""
    asked = [
        IndexedFilter(one.filter, one.values, **await one.of_request(recommender, now_s))
        for one in filters
    ]
    return await recommender.cache.property_index.may_allow(asked, now_s)


async def _of_wanted_categories(
    recommender: Recommender,
    wanted: Collection[tuple[str, str]],
    top_items: Sequence[int],
    now_s: float,
) -> list[int]:
    """Items of categories by folded property and value, as the top items spell the properties."""
    rows = await recommender.cache.properties(top_items, now_s)
    spelled = {(normalized(column), column) for row in rows if row for column in row}
    categories = {
        f"{column}={text}" for name, text in wanted for folded, column in spelled if folded == name
    }
    return await of_categories(recommender.store, categories)
