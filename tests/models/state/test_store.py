"""The atomic step against its naive meaning, and the store's other guarantees."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import Unavailable
from models.events import Event, event_hash
from models.serving.cached.cache import StateCache
from models.settings import Settings
from models.state import layout
from models.state.catalogue.metadata import put_users
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.messages import (
    NO_TYPES,
    Part,
    StoredEvent,
    StoredMessage,
    shard_of,
    stored_events,
)
from models.state.store import Store
from models.state.stored_ranker import load_ranker, save_ranker
from models.state.users.user_data import user_data_counts
from tests.models.state.pair_records import unpack_items, unpack_pairs
from tests.models.state.reference import (
    NOW,
    Reference,
    click,
    contents,
    decayed,
    erasure,
    history_of,
    message,
    replay,
)
from tests.servers import own_port

EVENTS = st.builds(
    StoredEvent,
    item_id=st.sampled_from(["", *"abcdefgh"]),
    time=st.integers(NOW - 40 * 86400, NOW) | st.integers(NOW - 2, NOW),
    type=st.sampled_from(["click", "Click", "purchase"]),
    log2_weight=st.sampled_from([0.0, 1.0, math.log2(3)]),
    is_purchase=st.booleans(),
    hash=st.integers(1, 60) | st.integers(1, 60).map(lambda n: n + 2**40 - 2**16),
    context=st.dictionaries(
        st.sampled_from(["device", "hour", "colour"]),
        st.lists(st.sampled_from(["phone", "5", "ü=|"]), max_size=2, unique=True),
        max_size=3,
    ),
    millisecond=st.sampled_from([0, 0, 999]),
    recommendation_id=st.sampled_from(["", "r1"]),
    value=st.sampled_from([0, 1500]),
    effect=st.sampled_from([0, 0, 0, layout.HIDES, layout.SINKS]),
    # What takes others back is tried in test_withdrawals.py.
    undoes=st.just(0),
    types=st.just(NO_TYPES),
)
MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "u1", "u2"]),
        st.sampled_from(["s1", "s4", "s5", "u1"]),
        st.lists(EVENTS, min_size=1, max_size=4),
    )
    | st.tuples(
        st.sampled_from(["u1", "u2"]),
        st.sampled_from(["s1", "s4"]),
        st.sampled_from([NOW - 86400.0, NOW - 1.0, NOW + 0.5, NOW + 1.0]),
    ),
    max_size=25,
)
assert {shard_of(session) % 2 for session in ("s1", "s4")} == {0, 1}, "both partitions in use"
CUTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), min_size=1, max_size=10)


async def send(store: Store, *messages: StoredMessage, batch: int = 100) -> dict[str, int]:
    """Apply messages to one partition, whose first offset is 0; returns the last step's counts."""
    counts: dict[str, int] = {}
    for at in range(0, len(messages), batch):
        part = Part("p/0", messages[at].offset - 1, list(messages[at : at + batch]))
        results, counts = await store.apply([part], now_s=NOW)
        assert results[0].status == "applied"
    return counts


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


async def test_full_catalogue_stops_before_the_message(make_store: Callable[..., Store]) -> None:
    """A message with too many new items has no effect, nor have later ones."""
    store, twin = make_store(max_items=2), make_store(max_items=2)
    first = message(0, click("a", 0), session="s1")
    batch = [
        first,
        message(1, click("a", 1), click("b", 2), click("c", 3), user="ada", session="s1"),
        message(2, click("a", 4)),
    ]

    results, counts = await store.apply([Part("p/0", -1, batch)], now_s=NOW)

    assert results[0] == ("full", 0, 1, [2])
    assert counts["events"] == 1
    await send(twin, first)
    assert await contents(store) == await contents(twin)
    kept = batch[1]._replace(events=[*batch[1].events[:2], click("b", 5)])
    results, _ = await store.apply([Part("p/0", 0, [kept, batch[2]])], now_s=NOW)
    assert results[0] == ("applied", 2, -1, [])


async def test_neighbours_are_bounded_and_the_strong_stay(
    make_store: Callable[..., Store],
) -> None:
    """A full list evicts weak neighbours, the same in any batches; none is there twice."""
    messages = []
    for step in range(1200):
        # Items come again after they had to go.
        other = "friend" if step % 30 == 0 else f"i{step * 37 % 400}"
        time = NOW + 3600 * step
        events = [click(item, 2 * step + n, time) for n, item in enumerate(["hub", other])]
        messages.append(message(step, *events, session=f"s{step}"))
    kept = []
    for batch in (1200, 500, 7, 1):
        store = make_store()
        await send(store, *messages, batch=batch)
        hub, friend = await store.item_indexes(["hub", "friend"])
        raw = await store.redis.get(store.key(f"pairs:{hub}"))
        items = unpack_items(raw)
        assert len(items) == layout.NEIGHBOURS
        assert len(set(items)) == layout.NEIGHBOURS
        assert friend in items
        kept.append(raw)

    assert kept == [kept[0]] * 4


async def test_many_small_counts_add_up(store: Store) -> None:
    """Rounding is right on average: of many events no count stalls, and none runs away."""
    friends, rounds, chance = 30, 150, random.Random(3)
    messages = []
    for n in range(rounds * friends):
        pair = ["hub", f"f{n % friends}"]
        if n // friends % 3 == 0:
            pair.reverse()
        time = NOW - 1800 * (rounds - n // friends)
        events = [click(item, chance.getrandbits(32), time) for item in pair]
        messages.append(message(n, *events, session=f"s{n}"))
    reference = Reference(store.settings.history_events)
    reference.apply([Part("p/0", -1, messages)])
    await send(store, *messages, batch=500)

    hub, *others = await store.item_indexes(["hub", *(f"f{n}" for n in range(friends))])
    found = unpack_pairs(await store.redis.get(store.key(f"pairs:{hub}")))

    assert found.keys() == set(others)
    for channel in layout.PAIR_CHANNELS:
        age = (NOW - layout.EPOCH) / channel.half_life_s
        parts = reference.pairs["hub", "f0", channel.name]
        expected = decayed(parts, NOW, channel.half_life_s)
        counts = np.exp2([found[item][channel.name] - age for item in others])
        assert counts.mean() == pytest.approx(expected, rel=0.15)
        # Shares have few codes, and so single pairs' directions are rough.
        if channel.name in ("day", "month"):
            assert (counts / expected).min() > 0.25
            assert (counts / expected).max() < 2.5


async def test_everything_else_is_bounded(store: Store) -> None:
    """Histories and top lists stop growing at their limits, and list no item twice."""
    messages = [message(n, click(f"i{(n * 17) % 700}", n, NOW + n)) for n in range(2000)]
    await send(store, *messages)
    history = await history_of(store, "s:s")

    assert len(history.items) == store.settings.history_events
    assert history.count == 2000
    assert history.times.tolist() == list(range(NOW + 1800, NOW + 2000))
    for index in range(1, 701):
        raw = await store.redis.get(store.key(f"pairs:{index}"))
        items = [item for item in unpack_items(raw) if item]
        assert len(set(items)) == len(items) <= layout.NEIGHBOURS
    for name in ("all", "recent", "new", *layout.POPULARITY_HALF_LIVES_S):
        assert await store.redis.zcard(store.key(f"top:{name}")) == layout.TOPS


async def test_logarithms_of_zero_are_records_too(store: Store) -> None:
    """Pairs whose logarithm is 0, as at the epoch, are not taken for free places."""
    for offset, other in enumerate("bcde"):
        pair = [click(item, 2 * offset + n, layout.EPOCH) for n, item in enumerate(["a", other])]
        await send(store, message(offset, *pair, session=other))

    items = unpack_items(await store.redis.get(store.key("pairs:1")))

    assert [item for item in items if item] == [2, 3, 4, 5]


async def test_the_clock_is_the_newest_event(store: Store) -> None:
    """Late events, in the same step or another, do not move it."""
    await send(store, message(0, click("a", 0, NOW), click("b", 1, NOW - 9)))
    await send(store, message(1, click("c", 2, NOW - 8)))
    assert (await store.counts())["clock"] == NOW

    await send(store, message(2, click("d", 3, NOW + 7)))
    assert (await store.counts())["clock"] == NOW + 7


async def test_event_types_are_bounded(store: Store) -> None:
    """Types beyond the limit share code 0; their events count all the same."""
    events = [StoredEvent("a", NOW, f"type{n}", 0.0, False, n) for n in range(300)]
    messages = [message(n, event, session=f"s{n}") for n, event in enumerate(events)]
    await send(store, *messages)

    codes = {n + 1: f"type{n}" for n in range(layout.TYPES)}
    imported = {layout.IMPORTED - code: name for code, name in codes.items()}
    assert await store.event_types() == codes | imported
    assert (await store.counts())["events"] == 300
    assert (await history_of(store, "s:s299")).types.tolist() == [0]


async def test_tops_hold_the_exact_head(store: Store) -> None:
    """Each bounded top list is the beginning of a full sort."""
    places = np.random.default_rng(1).zipf(1.3, 3000) % 500
    times = np.sort(np.random.default_rng(2).integers(NOW - 5 * 86400, NOW, 3000)).tolist()
    await send(
        store,
        *(
            message(n, click(f"i{place}", n, time), session=f"s{n}")
            for n, (place, time) in enumerate(zip(places.tolist(), times, strict=True))
        ),
    )
    n_items = int((await store.counts())["items"])
    stats = await StateCache(store).stats(np.arange(1, n_items + 1), NOW)
    columns = {"all": stats["events"], "recent": stats["last"], "new": stats["first"]}
    columns |= dict(zip(layout.POPULARITY_HALF_LIVES_S, stats["log2"].T, strict=True))

    for name, column in columns.items():
        top = await store.redis.zrange(store.key(f"top:{name}"), 0, -1, desc=True, withscores=True)
        assert [score for _, score in top] == sorted(column.tolist(), reverse=True)[: layout.TOPS]


async def test_login_joins_the_session(store: Store) -> None:
    """The session's events become the user's, by time, none twice; later ones follow."""
    seen_on_both = click("b", 2, NOW + 2)
    await send(
        store,
        message(0, click("d", 4, NOW + 4), seen_on_both, user="ada", session="old"),
        message(1, click("a", 1, NOW + 1), seen_on_both, click("c", 3, NOW + 3), session="new"),
        message(2, click("e", 5, NOW + 5), user="ada", session="new"),
        message(3, click("f", 6, NOW + 6), session="new"),
        batch=1,
    )
    history = await history_of(store, "u:ada")

    assert await store.item_ids(history.items.tolist()) == list("abcdef")
    assert history.count == 6
    assert not await store.redis.exists(store.key("history:s:new"))


async def test_a_joined_history_is_bounded(make_store: Callable[..., Store]) -> None:
    """Joined events count against the limit, even if the login itself is a repetition."""
    store = make_store(history_events=10)
    newest = click("z", 99, NOW + 99)
    await send(
        store,
        message(0, *(click("a", n, NOW + n) for n in range(9)), newest, user="ada", session="old"),
        message(1, *(click("b", n, NOW + n) for n in range(20, 29)), session="new"),
        message(2, newest, user="ada", session="new"),
    )
    history = await history_of(store, "u:ada")

    assert history.times.tolist() == [*range(NOW + 20, NOW + 29), NOW + 99]
    assert history.count == 19


async def test_links_and_histories_expire(make_store: Callable[..., Store]) -> None:
    """A link lives for one to two session lifetimes; every history expires."""
    store = make_store(session_ttl_s=1000, user_ttl_s=5000)
    await send(store, message(0, click("a", 0), user="ada"), message(1, click("b", 1), session="t"))

    found = [await store.linked_user("s", now_s=NOW + later) for later in (0, 1000, 2000)]
    assert found == ["ada", "ada", None]
    for n, (later, owner) in enumerate([(1000, "u:ada"), (3000, "s:s")], 2):
        await store.apply([Part("p/0", n - 1, [message(n, click("c", n))])], now_s=NOW + later)
        assert (await history_of(store, owner)).items[-1] == 3
    for key, most in (("u:ada", 5000), ("s:t", 1000)):
        assert most - 60 < await store.redis.ttl(store.key(f"history:{key}")) <= most
    for generation in (NOW // 1000, NOW // 1000 + 1):
        links = store.key(f"links:{generation}:{shard_of('s')}")
        assert 1940 < await store.redis.ttl(links) <= 2000


async def test_a_session_in_use_keeps_its_link(make_store: Callable[..., Store]) -> None:
    """Events renew the link: it expires one session_ttl after the last of them."""
    store = make_store(session_ttl_s=1000)
    for n in range(5):
        one = message(n, click("a", n), user="" if n else "ada")
        await store.apply([Part("p/0", n - 1, [one])], now_s=NOW + 900 * n)

    assert await store.linked_user("s", now_s=NOW + 4500) == "ada"
    assert (await history_of(store, "u:ada")).count == 5
    assert (await store.counts())["users"] == 1


async def test_a_late_first_event_makes_an_item_older(store: Store) -> None:
    """In the list of new items too."""
    many = [click(f"i{n}", n, NOW + n) for n in range(layout.TOPS + 1)]
    await send(store, *(message(n, event) for n, event in enumerate(many)))
    newest = (await store.item_indexes([f"i{layout.TOPS}"]))[0]
    late = click(f"i{layout.TOPS}", 9999, NOW - 100)
    await store.apply([Part("p/0", layout.TOPS, [message(layout.TOPS + 1, late)])], now_s=NOW)

    assert await store.redis.zscore(store.key("top:recent"), newest) == NOW + layout.TOPS
    assert await store.redis.zscore(store.key("top:new"), newest) is None


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


async def test_erasing_a_user(store: Store) -> None:
    """History, links and linked sessions' histories go; counts of items stay."""
    await send(
        store,
        message(0, click("a", 0), session="s1"),
        message(1, click("b", 1), user="ada", session="s1"),
        message(2, click("c", 2), user="ada", session="s2"),
        message(3, click("c", 3), user="bob", session="s3"),
        message(4, click("d", 4), session="ada"),
    )
    before = await contents(store)
    assert await store.linked_user("s1", now_s=NOW) == "ada"

    held = await user_data_counts(store, "ada", now_s=NOW)
    await send(store, erasure(5, "ada", NOW))

    assert held == {"events": 4, "sessions": 2, "links": 2, "records": 0}
    assert await store.linked_user("s1", now_s=NOW) is None
    assert await store.linked_user("s3", now_s=NOW) == "bob"
    after = await contents(store)
    assert "ada" not in str(after)
    assert [key for key in before if after.get(key) != before[key]] == [
        key
        for key in before
        if "ada" in key + str(before[key]) or key in ("watermarks", "witnesses")
    ]
    assert not any((await user_data_counts(store, "ada", now_s=NOW)).values())


async def test_erased_events_are_dropped_if_repeated(
    make_store: Callable[..., Store],
) -> None:
    """Of linked sessions too; later events count."""
    store = make_store(session_ttl_s=1000)
    late, again = click("a", 0), click("b", 1)
    await send(store, message(0, late, user="ada", session="s1"), message(1, again, session="s1"))
    await send(store, erasure(2, "ada", NOW + 0.5), erasure(3, "ada", NOW + 0.5))
    came = [
        message(4, late, user="ada", session="s1"),
        message(5, again, session="s1"),
        message(6, again, session="s1")._replace(accepted_at=NOW + 9.0),
        message(7, click("c", 2, NOW + 5), user="ada", session="new"),
        message(8, late._replace(time=NOW + 5), user="bob", session="s1"),
        message(9, click("d", 3, NOW + 5), user="ada")._replace(accepted_at=NOW + 9.0),
    ]
    counts = await send(store, *came)

    assert (counts["erased"], counts["events"]) == (4, 2)
    history = await history_of(store, "u:ada")
    assert await store.item_ids(history.items.tolist()) == ["d"]
    assert not await store.redis.exists(store.key("history:s:s1"))
    assert await store.erased_until(["u:ada", "s:s1", "u:bob"]) == [NOW + 0.5, NOW + 0.5, 0.0]
    assert "ada" not in str(await store.redis.zrange(store.key("erased"), 0, -1))


async def test_a_late_erasure_leaves_newer_events(store: Store) -> None:
    """Other partitions may be ahead of the erasure's: events sent after it stay."""
    events = [click("a", 0, NOW - 9), click("b", 1, NOW + 9)]
    await send(store, message(0, *events, user="ada"), erasure(1, "ada", NOW))
    history = await history_of(store, "u:ada")

    assert await store.item_ids(history.items.tolist()) == ["b"]
    assert history.count == 1
    assert await store.owner_keys(history.numbers) == ["u:ada"]


async def test_tombstones_are_bounded(make_store: Callable[..., Store]) -> None:
    """By number and by age."""
    store = make_store(max_tombstones=1000)
    await send(store, *(erasure(n, f"u{n}", NOW - 1000.0 + n) for n in range(600)))
    assert await store.redis.zcard(store.key("erased")) == 1000

    old = NOW - store.settings.kept_tombstones_s - 1.0
    await send(store, erasure(600, "old", old))
    assert await store.erased_until(["u:u599", "u:u0", "u:old"]) == [NOW - 401.0, 0.0, 0.0]
    ttl = await store.redis.ttl(store.key("erased"))
    assert 0 < ttl <= store.settings.kept_tombstones_s


async def test_links_of_a_user_are_bounded(make_store: Callable[..., Store]) -> None:
    """The oldest goes for a new one, so that an erasure finds them all."""
    store = make_store(user_sessions=3)
    sessions = [f"s{n}" for n in range(5)]
    await send(
        store, *(message(n, click("a", n), user="ada", session=s) for n, s in enumerate(sessions))
    )

    linked = [await store.linked_user(session, now_s=NOW) for session in sessions]
    assert linked == [None, None, "ada", "ada", "ada"]
    assert (await user_data_counts(store, "ada", now_s=NOW))["links"] == 3


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
