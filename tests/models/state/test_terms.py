"""Lists of the items that have a term: exact in any order of records and events, and bounded."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.item_terms import terms_of
from models.metadata_records import MetadataRecord
from models.state import layout
from models.state.catalogue.metadata import RecordPart, apply_records, put_items, record_entry
from models.state.catalogue.term_lists import term_lists
from models.state.messages import Part
from models.state.store import Store
from tests.models.state.reference import NOW, click, message

WORDS = ("tent", "stove", "lamp", "mat")


async def stored(store: Store) -> dict[str, tuple[int, dict[int, tuple[int, bool]]]]:
    """By term, the number of its items, and of each listed one its number of terms and warmth."""
    found = {}
    for key in await store.redis.keys(store.key("term:*")):
        raw = await store.redis.get(key)
        n, *entries = struct.unpack(f"<{len(raw) // 4}I", raw)
        found[key.decode().rpartition(":")[2]] = (
            n,
            {
                entry % layout.TERM_COUNT_UNIT: (
                    entry % layout.TERM_WARM // layout.TERM_COUNT_UNIT,
                    entry >= layout.TERM_WARM,
                )
                for entry in entries
            },
        )
    return found


def expected(
    titles: Sequence[str], n_events: Sequence[int]
) -> dict[str, tuple[int, dict[int, tuple[int, bool]]]]:
    """What `stored` should be, of items numbered from 1."""
    lists: dict[str, dict[int, tuple[int, bool]]] = defaultdict(dict)
    for item, title in enumerate(titles, 1):
        terms = terms_of({"TITLE": title})
        for term in terms:
            lists[str(term)][item] = (len(terms), n_events[item - 1] >= layout.COLD_EVENTS)
    return {term: (len(items), items) for term, items in lists.items()}


async def touch(store: Store, item: str, times: int) -> None:
    """Events on an item, by a user each."""
    messages = [
        message(n, click(item, n, NOW + n), user=f"{item}{n}", session=f"{item}{n}")
        for n in range(times)
    ]
    await store.apply([Part(f"p/{item}", -1, messages)], now_s=NOW)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.lists(st.sampled_from(WORDS), max_size=3), st.integers(15, 25)),
        ),
        max_size=10,
    )
)
async def test_lists_follow_from_records_and_events_in_any_order(
    make_store: Callable[..., Store], drawn: list[tuple[int, Any]]
) -> None:
    """Whichever comes first: texts, other texts, none, or as many events as end the coldness."""
    store = make_store()
    await put_items(store, [(f"i{n}", {}) for n in range(4)], 1.0)
    titles, n_events = [""] * 4, [0] * 4
    for at, (item, what) in enumerate(drawn):
        if isinstance(what, int):
            if not n_events[item]:
                await touch(store, f"i{item}", what)
                n_events[item] = what
            continue
        titles[item] = " ".join(what)
        records = [(f"i{item}", {"TITLE": titles[item]})]
        await put_items(store, records, 2.0 + at)
        await put_items(store, records, 2.0 + at)
    assert await stored(store) == expected(titles, n_events)
    terms = await term_lists(store, [1, 2, 3, 4])
    assert [len(lists) for lists in terms] == [len(terms_of({"TITLE": one})) for one in titles]


@pytest.mark.parametrize("batch", [1, 64, 400])
async def test_a_common_word_lists_its_newest_items(
    make_store: Callable[..., Store], batch: int
) -> None:
    """However the items came; all count."""
    store = make_store()
    n = layout.TERM_COLD_ITEMS + 60
    for start in range(0, n, batch):
        items = [(f"i{at}", {"TITLE": "lamp"}) for at in range(start, min(start + batch, n))]
        await put_items(store, items, NOW)
    (found,) = (await stored(store)).values()
    assert found[0] == n
    assert sorted(found[1]) == list(range(61, n + 1))


async def test_erasing_records_empties_the_lists(make_store: Callable[..., Store]) -> None:
    """An item whose record is removed has no terms."""
    store = make_store()
    await put_items(store, [("a", {"TITLE": "lamp"}), ("b", {"TITLE": "lamp tent"})], NOW)
    group = store.settings.group
    entries = [
        record_entry(n, "items", MetadataRecord(group, name, None, NOW + 1), own_group=group)
        for n, name in enumerate("ab")
    ]
    await apply_records(store, [RecordPart("", -1, entries)])
    assert await stored(store) == {}
    assert not await store.redis.exists(store.key("terms"))
