"""Metadata in Redis: repeated and disordered records, and reads."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InvalidRecord, LimitExceeded
from models.metadata_records import MetadataRecord, categories_of
from models.serving.cached.cache import StateCache
from models.settings import Settings
from models.state import layout
from models.state.catalogue import metadata, properties_cache
from models.state.catalogue.metadata import (
    RecordEntry,
    RecordPart,
    apply_records,
    item,
    item_properties,
    put_items,
    put_users,
    record_entry,
    same_category,
    user_properties,
)
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.store import Store
from tests.models.state.reference import NOW, click, contents, message

RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["items", "users"]),
        st.sampled_from(["a", "b"]),
        st.fixed_dictionaries(
            {},
            optional={
                "GENRE": st.sampled_from(["x", "y", "x|y"]),
                "CREATION_TIMESTAMP": st.sampled_from([NOW - 7, NOW - 9]),
                "HIDDEN": st.booleans(),
                "EXPIRES_AT": st.sampled_from([5, NOW, NOW + 1000]),
                "ITEM_GROUP_ID": st.sampled_from(["p", "q", ""]),
            },
        ),
    ),
    min_size=1,
    max_size=12,
)


def uncounted(stored: dict[str, Any]) -> dict[str, Any]:
    """Everything but counts of records, which items changed at which count, and zeros."""
    counts = {
        name: value
        for name, value in stored["counts"].items()
        if not name.endswith(b"_updates") and value != b"0"
    }
    found = {name: value for name, value in stored.items() if name != "updated"}
    for name in ("hidden", "expires", "variants"):
        # What was said of an item once and is no more leaves zeros.
        if not found.get(name, b"").strip(b"\0"):
            found.pop(name, None)
        else:
            found[name] = found[name].rstrip(b"\0")
    return found | {"counts": counts}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDS, st.randoms(use_true_random=False))
def test_any_order_and_repetition_ends_in_the_newest(
    redis_url: str, drawn: list[tuple[Any, str, dict[str, Any]]], chance: Any
) -> None:
    """Records in any order, some repeated, lead to the state of their order in time."""
    entries = [
        record_entry(0, kind, MetadataRecord("h", name, properties, NOW - 100 + at), own_group="h")
        for at, (kind, name, properties) in enumerate(drawn)
    ]
    shuffled = entries + chance.choices(entries, k=5)
    chance.shuffle(shuffled)

    async def lead_to(store: Store, some: list[RecordEntry]) -> dict[str, Any]:
        # Items come in one order, for that is the order of their indexes.
        await put_items(store, [("a", {}), ("b", {})], 1.0)
        parts = [RecordPart("", -1, [entry]) for entry in some]
        assert {result.status for result in await apply_records(store, parts)} == {"applied"}
        return uncounted(await contents(store))

    async def check() -> None:
        async with connect(redis_url) as client:
            store = Store(client, Settings(group="h", cache_s=0))
            try:
                expected = await lead_to(store, entries)
                newest = {(kind, name): properties for kind, name, properties in drawn}
                assert await item_properties(store, ["a", "b"]) == [
                    newest.get(("items", name), {}) for name in "ab"
                ]
                for name in "ab":
                    assert await user_properties(store, name) == newest.get(("users", name))
                await client.flushdb()
                assert await lead_to(store, shuffled) == expected
            finally:
                await client.flushdb()

    asyncio.run(check())


async def test_records_are_read_as_they_were_sent(store: Store) -> None:
    """Properties are read as sent; an unknown item or user has none."""
    properties = {"GENRE": "a|b", "PRICE": 1.5, "N": 3, "OK": True, "NONE": None, "é": "ü"}
    await put_items(store, [("i", properties)], NOW)
    await put_users(store, [("ada", {"AGE": 36})], NOW)

    assert await item_properties(store, ["x", "i"]) == [None, properties]
    assert await item_properties(store, []) == []
    assert await user_properties(store, "ada") == {"AGE": 36}
    assert await user_properties(store, "bob") is None
    await put_items(store, [("i", {"N": 4})], NOW + 1)
    assert await item_properties(store, ["i"]) == [{"N": 4}]


async def test_bad_records_change_nothing(store: Store) -> None:
    """With one invalid record, no record of the call is in effect."""
    with pytest.raises(InvalidRecord):
        await put_items(store, [("i", {}), ("j", {"A": []})], NOW)

    assert await contents(store) == {}


async def test_items_and_users_are_bounded(make_store: Callable[..., Store]) -> None:
    """Beyond the limit a new one is refused, with its offset; known ones can be changed."""
    store = make_store(max_items=2, max_users=1)
    with pytest.raises(LimitExceeded):
        await put_items(store, [(name, {}) for name in "abc"], NOW)
    with pytest.raises(LimitExceeded):
        await put_users(store, [(name, {}) for name in "ab"], NOW)
    await put_items(store, [("b", {"N": 1})], NOW + 1)

    assert await item_properties(store, ["a", "b", "c"]) == [{}, {"N": 1}, None]
    assert await user_properties(store, "b") is None
    entries = [RecordEntry(n, "", "items", name, NOW, 0.0, "{}") for n, name in enumerate("bcd")]
    assert await apply_records(store, [RecordPart("m/0", -1, entries)]) == [("full", 0, 1, [])]
    assert await store.watermarks(["m/0"]) == [0]


async def test_watermarks_move_with_the_effects(store: Store) -> None:
    """A repeated record is skipped, one of no kind moves the watermark, a loss is reported."""
    group = store.settings.group
    entries = [
        record_entry(0, "items", MetadataRecord(group, "a", {"N": 1}, NOW), own_group=group),
        record_entry(1, "items", MetadataRecord(group, "a", None, NOW), own_group=group),
        RecordEntry(2),
    ]
    for status in ("applied", "lost"):
        results = await apply_records(store, [RecordPart("m/0", -1, entries)])
        assert results == [(status, 2, -1, [])]
    assert await item_properties(store, ["a"]) == [None]
    assert (await store.counts())["item_updates"] == 2

    assert await apply_records(store, [RecordPart("m/0", 7, [RecordEntry(8)])]) == [
        ("lost", 2, -1, [])
    ]
    assert await apply_records(store, [RecordPart("m/0", 2, [], 9)]) == [("lost", 2, -1, [])]
    assert await apply_records(store, [RecordPart("m/0", 2, [], 0)]) == [("applied", 2, -1, [])]


async def test_a_group_that_does_not_exist_gets_nothing(store: Store) -> None:
    """A record of an unknown group stops its part; a removal does not."""
    removal = RecordEntry(0, "nowhere", "users", "ada", NOW)
    entries = [removal, RecordEntry(1, "nowhere", "items", "a", NOW, 0.0, "{}")]

    assert await apply_records(store, [RecordPart("m/0", -1, entries)]) == [("gone", 0, 1, [])]
    assert await store.redis.keys("{nowhere}:*") == []


async def test_removal_leaves_no_trace_but_the_index(store: Store) -> None:
    """A removed record is in no list; removing an absent one changes nothing."""
    group = store.settings.group
    await put_items(store, [("i", {"GENRE": "x"})], NOW)
    await put_users(store, [("ada", {"AGE": 36})], NOW)
    for _ in range(2):
        for kind in ("items", "users"):
            for name in ("i", "ada"):
                gone = record_entry(
                    0, kind, MetadataRecord(group, name, None, NOW), own_group=group
                )
                await apply_records(store, [RecordPart("", -1, [gone])])

    stored = await contents(store)
    # It says which record is to be read again: the item's, and there is none.
    assert stored.pop("updated") == [(b"1", 2.0)]
    assert stored.keys() == {"counts", "ids", "items"}
    assert {name: int(count) for name, count in stored["counts"].items()} == {
        b"item_index": 1, b"items": 1, b"item_updates": 2, b"term_updates": 2,
        b"user_updates": 2,
    }  # fmt: skip


async def test_fresh_items_are_listed_by_creation(store: Store) -> None:
    """By the property, else by the first record; no item is from the future."""
    await put_items(store, [("told", {"CREATION_TIMESTAMP": NOW - 50})], NOW)
    await put_items(store, [("first", {}), ("future", {"CREATION_TIMESTAMP": NOW * 2})], NOW - 9)
    await put_items(store, [("first", {"N": 1})], NOW + 9)

    assert await listed(store, "top:fresh") == {
        "told": NOW - 50, "first": NOW - 9, "future": NOW - 9
    }  # fmt: skip


async def test_lists_are_bounded(store: Store) -> None:
    """Only the newest items stay in a list."""
    many = [(f"i{n}", {"GENRE": "x", "CREATION_TIMESTAMP": NOW - n}) for n in range(400)]
    for at in range(0, 400, 100):
        await put_items(store, many[at : at + 100], NOW)

    for name in ("top:fresh", "category:GENRE=x"):
        assert await listed(store, name) == {f"i{n}": NOW - n for n in range(layout.TOPS)}


async def test_items_are_listed_under_their_categories(store: Store) -> None:
    """A changed record leaves old categories, and the last event moves an item to the front."""
    part = Part("p/0", -1, [message(0, click("touched", 0, NOW + 100))])
    await store.apply([part], now_s=NOW)
    await put_items(store, [("touched", {"GENRE": "x"}), ("new", {"GENRE": "x|y"})], NOW)
    await put_items(store, [("new", {"GENRE": "y|z"})], NOW + 1)

    minute = (NOW + 100) // 60 * 60
    assert await listed(store, "category:GENRE=x") == {"touched": minute}
    assert await listed(store, "category:GENRE=y") == {"new": NOW}
    assert await listed(store, "category:GENRE=z") == {"new": NOW}


async def test_events_move_items_up_in_their_categories(
    make_store: Callable[..., Store],
) -> None:
    """However batches are cut, the order is by the last minute, and only rises."""
    chance = random.Random(3)
    names = [f"i{n}" for n in range(40)]
    events = [click(chance.choice(names), n, NOW + chance.randrange(600)) for n in range(400)]
    lists = []
    for size in (1, 7, 400):
        store = make_store()
        await put_items(store, [(name, {"GENRE": "x"}) for name in names], NOW - 9)
        for at in range(0, 400, size):
            part = Part("p/0", at - size if at else -1, [message(at, *events[at : at + size])])
            assert (await store.apply([part], now_s=NOW))[1]["events"]
        lists.append(await listed(store, "category:GENRE=x"))

    last = {name: max(event.time for event in events if event.item_id == name) for name in names}
    assert lists == [{name: at // 60 * 60 for name, at in last.items()}] * 3


async def test_active_items_return_to_a_full_list(store: Store) -> None:
    """An evicted item is listed again with its next event, and the list stays bounded."""
    many = [(f"i{n}", {"GENRE": "x"}) for n in range(layout.TOPS + 5)]
    for n, record in enumerate(many):
        await put_items(store, [record], NOW - 1000 + n)
    assert "i0" not in await listed(store, "category:GENRE=x")

    part = Part("p/0", -1, [message(0, click("i0", 0), click("unlisted", 1))])
    await store.apply([part], now_s=NOW)

    found = await listed(store, "category:GENRE=x")
    assert found["i0"] == NOW // 60 * 60
    assert len(found) == layout.TOPS


async def listed(store: Store, name: str) -> dict[str, float]:
    """Item ids and scores of a list."""
    found = await store.redis.zrange(store.key(name), 0, -1, withscores=True)
    names = await store.item_ids([int(index) for index, _ in found])
    return {str(name): score for name, (_, score) in zip(names, found, strict=True)}


async def test_items_of_the_same_category(store: Store) -> None:
    """Most recently active first, without the given items."""
    records = {"a": "x", "b": "x|y", "c": "y", "d": "z", "e": ""}
    for n, (name, genre) in enumerate(records.items()):
        await put_items(store, [(name, {"GENRE": genre})], NOW + n)
    a, b, c, _, e = await store.item_indexes(list("abcde"))

    assert await same_category(store, [a]) == [b]
    assert await same_category(store, [b]) == [c, a]
    assert await same_category(store, [a, b]) == [c]
    assert await same_category(store, [e]) == await same_category(store, []) == []


async def test_one_item_has_properties_and_counts(store: Store) -> None:
    """Properties and counts, either of them alone, or nothing."""
    part = Part("p/0", -1, [message(0, click("seen", 0)), message(1, click("both", 1))])
    await store.apply([part], now_s=NOW)
    await put_items(store, [("both", {"N": 1}), ("told", {"CREATION_TIMESTAMP": 5})], NOW + 9)

    at = {"now_s": NOW + 3600.0}
    # One event in an hour; the means of the longer half-lives are of that hour as well.
    expected = {"hour": 0.69, "day": 0.99, "week": 1.0, "month": 1.0}
    rates: dict[str, Any] = {name: pytest.approx(rate, abs=0.02) for name, rate in expected.items()}
    assert await item(store, "nothing", **at) is None
    seen = metadata.StoredItem("seen", None, 0, 0, 1, 0, NOW, NOW, rates)
    assert await item(store, "seen", **at) == seen
    both = metadata.StoredItem("both", {"N": 1}, NOW + 9, NOW + 9, 1, 0, NOW, NOW, rates)
    assert await item(store, "both", **at) == both
    told = metadata.StoredItem("told", {"CREATION_TIMESTAMP": 5}, NOW + 9, 5, 0, 0, 0, 0, {})
    assert await item(store, "told", **at) == told


async def test_cached_properties_are_read_again_when_they_change(
    make_store: Callable[..., Store],
) -> None:
    """For `cache_s` the cache is used; then changes show, also of absent records."""
    store = make_store(cache_s=1)
    part = Part("p/0", -1, [message(0, click("a", 0), click("b", 1))])
    await store.apply([part], now_s=NOW)
    catalogue = StateCache(store)
    await put_items(store, [("a", {"N": 1})], NOW)
    assert await catalogue.properties([2, 1, 2], NOW) == [None, {"N": 1}, None]

    await put_items(store, [("a", {"N": 2}), ("b", {"N": 3})], NOW)

    assert await catalogue.properties([1, 2], NOW + 0.5) == [{"N": 1}, None]
    assert await catalogue.properties([1, 2, 3], NOW + 2) == [{"N": 2}, {"N": 3}, None]
    assert await catalogue.properties([1, 2], NOW - 9) == [{"N": 2}, {"N": 3}]
    assert await catalogue.properties([], NOW + 4) == []


async def test_cache_of_properties_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number and by size."""
    monkeypatch.setattr(properties_cache, "MAX_CACHED", 5)
    monkeypatch.setattr(properties_cache, "MAX_CACHED_BYTES", 2000)
    sizes = itertools.cycle([10, 700])
    await put_items(store, [(f"i{n}", {"A": "x" * next(sizes)}) for n in range(20)], NOW)
    catalogue = StateCache(store)
    for at in range(1, 21, 4):
        found = await catalogue.properties(list(range(at, at + 4)), NOW)
        assert None not in found
        held = catalogue._properties._held
        assert len(held) <= 5
        assert sum(size for size, _ in held.values()) == held._size <= 2000


def test_long_names_are_no_categories() -> None:
    """A column with a very long name creates no key."""
    assert categories_of({"x" * 65: "a", "y" * 64: "b"}) == ["y" * 64 + "=b"]
