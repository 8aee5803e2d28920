"""The atomic step against its naive meaning, and the store's other guarantees."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import Unavailable
from models.events import Event, event_hash
from models.settings import Settings
from models.state import layout
from models.state.catalogue.metadata import put_users
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.messages import (
    Part,
    StoredEvent,
    stored_events,
)
from models.state.store import Store
from models.state.stored_ranker import load_ranker, save_ranker
from models.state.users.user_data import user_data_counts
from tests.models.state.message_fixtures import MESSAGES, send
from tests.models.state.reference import (
    NOW,
    click,
    contents,
    erasure,
    message,
    replay,
)
from tests.servers import own_port

CUTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), min_size=1, max_size=10)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES, CUTS, st.sampled_from([10, 100]))
def test_the_step_equals_the_reference(
    redis_url: str,
    drawn: list[tuple[str, str, list[StoredEvent] | float]],
    cuts: list[tuple[int, int]],
    limit: int,
) -> None:
    """Any stream on two partitions, cut anywhere, with repeated parts."""

    async def check() -> None:
        async with connect(redis_url) as client:
            store = Store(client, Settings(group="h", cache_s=0, history_events=limit))
            try:
                await replay(store, drawn, cuts, ["device", "hour"])
            finally:
                await client.flushdb()

    asyncio.run(check())


async def test_long_histories_equal_the_reference(make_store: Callable[..., Store]) -> None:
    """A stream that fills histories many times over, with repeats and late events."""
    chance = random.Random(5)
    drawn: list[tuple[str, str, list[StoredEvent] | float]] = []
    for n in range(300):
        if n % 60 == 50:
            drawn.append((f"u{n % 2 + 1}", "s1", NOW - 300.0 + n))
        user, session = chance.choice([("", "s1"), ("", "s4"), ("u1", "s5"), ("u2", "s1")])
        time = NOW - 300 + n - chance.choice([0, 0, 40])
        items = chance.choices(["", *"abcdefghijklmnopq"], k=chance.randint(1, 3))
        events = [click(item, 3 * n + place, time) for place, item in enumerate(items)]
        drawn.append((user if n % 7 == 0 else "", session, events))

    await replay(make_store(history_events=40), drawn, [(9, 2), (1, 0), (30, 5)])


async def test_lost_effects_are_noticed(store: Store) -> None:
    """A partition behind the worker's watermark applies nothing; another one goes on."""
    await send(store, message(0, click("a", 0)))

    results, counts = await store.apply(
        [
            Part("p/0", 7, [message(8, click("b", 8))]),
            Part("q/0", -1, [message(0, click("c", 9))]),
        ],
        now_s=NOW,
    )

    assert (results[0].status, results[0].watermark) == ("lost", 0)
    assert (results[1].status, results[1].watermark) == ("applied", 0)
    assert counts["events"] == 1
    assert await store.item_indexes(["a", "b", "c"]) == [1, 0, 2]


async def test_a_step_follows_the_message_that_it_names(store: Store) -> None:
    """At any other watermark nothing changes; offsets may be of any size."""
    last = 2**53 - 1
    first = message(5, click("a", 0))._replace(checksum=7)
    await store.apply([Part("p/0", -1, [first])], now_s=NOW)
    new = [message(last, click("c", 2))]
    for part in (Part("p/0", 2, new), Part("p/0", 6, new), Part("p/0", 5, new, 8)):
        results, counts = await store.apply([part], now_s=NOW)
        assert (results, any(counts.values())) == ([("lost", 5, -1, [])], False)

    results, _ = await store.apply([Part("p/0", 5, new, 7)], now_s=NOW)

    assert results[0].watermark == last
    assert await store.watermarks(["p/0", "p/1"]) == [last, -1]
    assert await store.item_indexes(["a", "c"]) == [1, 2]
    assert (await store.apply([Part("p/0", last, [])], now_s=NOW))[0][0].watermark == last
    assert await store.watermarks([]) == []


async def test_message_without_events_moves_the_watermark(store: Store) -> None:
    """And leaves no owner."""
    await send(store, message(0, user="ada"))

    kept = await contents(store)
    assert kept.keys() == {"watermarks", "witnesses"}
    assert kept["watermarks"] == {b"p/0": b"0"}
    assert await store.witnesses(["p/0"]) == [(0, 0, 0)]


@pytest.mark.parametrize("name", ["{}*?[\\\x00é漢" + "x" * 247, "😀" * 256, "漢" * 256])
async def test_hostile_ids_are_only_text(store: Store, name: str) -> None:
    """Ids of any 256 characters are stored and found again."""
    await send(store, message(0, click(name, 0), user=name, session=name + "s"))

    assert await store.item_ids(await store.item_indexes([name])) == [name]
    assert await store.linked_user(name + "s", now_s=NOW) == name
    await put_users(store, [(name, {})], NOW)
    held = {"events": 1, "sessions": 1, "links": 1, "records": 1}
    assert await user_data_counts(store, name, now_s=NOW) == held
    await send(store, erasure(1, name, NOW))
    assert await user_data_counts(store, name, now_s=NOW) == {
        **dict.fromkeys(held, 0),
        "records": 1,
    }


async def test_ranker_is_saved_by_one_learner(store: Store) -> None:
    """A learner behind the stored watermark cannot overwrite the state."""
    assert await load_ranker(store) == {}
    assert await save_ranker(store, {"state": b"1"}, field="x/0", expected=-1, offset=5)
    assert not await save_ranker(store, {"state": b"2"}, field="x/0", expected=-1, offset=6)
    assert await load_ranker(store) == {"state": b"1", "watermark:x/0": b"5"}
    assert await save_ranker(store, {"state": b"3"}, field="x/0", expected=5, offset=7)
    assert (await load_ranker(store))["state"] == b"3"


def test_events_as_the_step_takes_them() -> None:
    """Weights and purchases by the type in lower case; times in whole seconds."""
    events = [
        Event("Purchase", 1.9, event_id="e", item_id="i"),
        Event("view", 2.0, event_id="f"),
        Event("Dislike", 3.0, event_id="g", item_id="i"),
    ]

    types = EventTypes({"purchase": 4.0}, frozenset({"purchase"}), {"dislike": "hide"})
    stored = stored_events(events, types)

    assert stored == [
        StoredEvent("i", 1, "Purchase", 2.0, True, event_hash("e"), millisecond=900),
        StoredEvent("", 2, "view", 0.0, False, event_hash("f")),
        StoredEvent("i", 3, "Dislike", 0.0, False, event_hash("g"), effect=layout.HIDES),
    ]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_have_logarithms(weight: float) -> None:
    """A weight without a logarithm is refused with the settings."""
    with pytest.raises(ValueError, match="event_weights"):
        Settings(event_weights={"click": weight})


async def test_dead_connection_is_replaced(store: Store) -> None:
    """A connection that died unused is renewed for the next command."""
    await store.ping()
    port = store.redis.connection_pool.connection_kwargs["port"]
    other: Any = connect(f"redis://127.0.0.1:{port}")
    await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    await store.ping()

    await other.aclose()


async def test_an_absent_store_is_unavailable() -> None:
    """`ping` raises `Unavailable`."""
    away = Store(connect(f"redis://127.0.0.1:{own_port()}"), Settings())
    with pytest.raises(Unavailable):
        await away.ping()
    await away.redis.aclose()
