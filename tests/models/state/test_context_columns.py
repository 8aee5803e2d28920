"""Context of events: its extraction, its counts, and their bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from models.ranking.context_lift import DecayedCounts, unpack_counts
from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.context_columns import MAX_VALUE_CHARACTERS, MAX_WORDS, context_values
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from models.state.tenants import Tenants
from tests.models.state.reference import NOW, contents

Event = tuple[str, int, Mapping[str, list[str]]]


async def apply(store: Store, *events: Event, batch: int = 500) -> None:
    """Apply events, each in a message of its own, of few users."""
    messages = [
        StoredMessage(
            n, f"u{n % 9}", f"u{n % 9}", shard_of(f"u{n % 9}"), 1.0,
            [StoredEvent(item, time, "click", 0.0, False, n + 1, said)],
        )
        for n, (item, time, said) in enumerate(events)
    ]  # fmt: skip
    for at in range(0, len(messages), batch):
        await store.apply([Part("p/0", at - 1, messages[at : at + batch])], now_s=NOW)


async def counts(store: Store, name: str) -> DecayedCounts:
    """Counts under a column or value."""
    return unpack_counts(await store.redis.get(store.key(f"circumstance:{name}")), NOW)


@pytest.fixture
async def contextual(store: Store) -> Store:
    """A store of a group with the contextual column `device`."""
    await Tenants(store.redis, store.settings).name_columns(store.settings.group, ["DEVICE"])
    return store


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (None, {}),
        ({}, {}),
        ("{}", {}),
        ('{"DEVICE": "phone"}', {"device": ["phone"]}),
        ({"device": " Phone "}, {"device": ["phone"]}),
        ({"DEVICE_TYPE": "TV|tv|radio||"}, {"devicetype": ["tv", "radio"]}),
        ({"HOUR": 5, "isMember": True}, {"hour": ["5"], "ismember": ["true"]}),
        ({"hour": 5.0, "price": 5.5}, {"hour": ["5"]}),
        ({"a": None, "b": ["x"], "c": {"d": "e"}, "f": ""}, {}),
        ({"long": "x" * (MAX_VALUE_CHARACTERS + 1)}, {}),
        ({"many": "|".join("abcdefgh")}, {"many": list("abcdefgh")[:MAX_WORDS]}),
        ({"wide": 1e300, "endless": float("inf")}, {}),
    ],
)
def test_context_values_of_properties(properties: Any, said: dict[str, list[str]]) -> None:
    """Short texts and whole numbers by column, the same in any spelling; nothing else."""
    assert context_values(properties) == said


async def test_only_contextual_columns_are_counted(store: Store) -> None:
    """Properties that the group's schema does not name leave nothing behind."""
    await apply(store, ("a", NOW, {"device": ["phone"]}))
    assert not [key for key in await contents(store) if "device" in key]

    await Tenants(store.redis, store.settings).name_columns(store.settings.group, ["DEVICE"])
    said = {"device": ["phone"], "city": ["ulm"]}
    events = [
        StoredEvent("b", NOW, "click", 0.0, False, 10, said),
        StoredEvent("", NOW, "view", 0.0, False, 11, said),
    ]
    message = StoredMessage(1, "u", "u", shard_of("u"), 1.0, events)
    await store.apply([Part("p/0", 0, [message])], now_s=NOW)

    keys = {key for key in await contents(store) if "device" in key or "city" in key}
    assert keys == {"circumstance:device", "circumstance:device=phone", "values:device"}
    assert (await counts(store, "device=phone")).items.tolist() == [2]


async def test_items_are_bounded(contextual: Store) -> None:
    """Frequent items stay in a full list, and the total counts all."""
    n_items = layout.CONTEXT_ITEMS + 300
    often = [(f"often{n % 20}", NOW, {"device": ["phone"]}) for n in range(200)]
    once = [(f"once{n}", NOW, {"device": ["phone"]}) for n in range(n_items)]

    await apply(contextual, *often, *once)

    for name in ("device", "device=phone"):
        found = await counts(contextual, name)
        assert len(found.items) == layout.CONTEXT_ITEMS == len(set(found.items.tolist()))
        assert found.total == pytest.approx(200 + n_items)
        assert sorted(found.events.tolist())[-20:] == pytest.approx([10.0] * 20)
        assert found.max_missing == pytest.approx(1.0)
        size = layout.CONTEXT_TOTAL.itemsize + layout.CONTEXT_ITEMS * layout.CONTEXT_COUNT.itemsize
        assert len(await contextual.redis.get(contextual.key(f"circumstance:{name}"))) == size


@pytest.mark.parametrize("batch", [1, 7, 500])
async def test_values_are_bounded(contextual: Store, batch: int) -> None:
    """A value beyond the limit gets counts once another is unseen for a half-life."""
    values = [f"v{n:03}" for n in range(layout.CONTEXT_VALUES + 5)]
    later = NOW - 3600 + int(layout.CONTEXT_HALF_LIFE_S)
    first = [("a", NOW - 3600 + n, {"device": [value]}) for n, value in enumerate(values)]
    again = [("a", NOW, {"device": [value]}) for value in values if value not in {"v001", "v002"}]
    await apply(contextual, *first, *again, ("b", later + 5, {"device": ["new"]}), batch=batch)

    stored = await contents(contextual)
    known = {value.decode() for value in stored["values:device"]}
    assert known == {*values[: layout.CONTEXT_VALUES], "new"} - {"v001"}
    assert {key for key in stored if "=" in key} == {f"circumstance:device={v}" for v in known}
    assert (await counts(contextual, "device=new")).items.tolist() == [2]
    assert sum((await counts(contextual, "device")).events) == pytest.approx(
        (await counts(contextual, "device")).total
    )


async def test_a_value_that_comes_back_starts_anew(make_store: Callable[..., Store]) -> None:
    """Counts of a dropped value are gone, even within the step that dropped it."""
    found = []
    half_life_s = int(layout.CONTEXT_HALF_LIFE_S)
    values = [f"v{n:03}" for n in range(layout.CONTEXT_VALUES)]
    events: list[Event] = [(f"i{n}", NOW, {"device": [v]}) for n, v in enumerate(values)]
    events += [
        ("j", NOW + half_life_s + 5, {"device": ["new"]}),  # v000 goes
        ("k", NOW + 2 * half_life_s + 20, {"device": ["v000"]}),  # v001 goes
        ("k", NOW + 2 * half_life_s + 20, {"device": ["v001", "v002"]}),  # v002 and v003 go
    ]
    for batch in (1, 2, 500):
        one = make_store()
        await Tenants(one.redis, one.settings).name_columns(one.settings.group, ["device"])
        await apply(one, *events, batch=batch)
        stored = await contents(one)
        found.append({key: stored[key] for key in stored if "device" in key})
        assert len((await counts(one, "device=v000")).items) == 1
        assert b"v003" not in stored["values:device"]

    assert found[0] == found[1] == found[2]


async def test_erasing_a_group_removes_its_context(redis_url: str) -> None:
    """Context counts of an erased group are gone, and its columns are not stored again."""
    tenants = Tenants(connect(redis_url), Settings(group="own", cache_s=0))
    await tenants.register("t-books", "books")
    await tenants.name_columns("books", ["DEVICE", "HOUR_OF_DAY"])
    assert await tenants.redis.smembers("{books}:columns") == {b"device", b"hourofday"}
    event = StoredEvent("a", NOW, "click", 0.0, False, 1, {"device": ["phone"]})
    message = StoredMessage(0, "u", "u", shard_of("u"), 1.0, [event], "books")
    await tenants.store("own").apply([Part("p/0", -1, [message])], now_s=NOW)
    assert await tenants.redis.exists("{books}:circumstance:device=phone")
    assert not await tenants.redis.exists("{own}:circumstance:device=phone")

    await tenants.erase("books")
    await tenants.name_columns("books", ["DEVICE"])

    assert not await tenants.redis.keys("{books}:*")
    await tenants.redis.flushdb()
    await tenants.redis.aclose()
