"""Undone events, and carts and purchases that were taken back: as if they had never been."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from models.events import Event, event_hash
from models.serving.cached.cache import StateCache
from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.histories import History, effects, item_indexes
from models.state.messages import Part, StoredMessage, shard_of, stored_events
from models.state.store import Store
from models.state.users.user_data import user_data_counts
from tests.models.state.pair_records import unpack_pairs
from tests.models.state.reference import (
    COUNTS,
    NOW,
    Reference,
    contents,
    decayed,
    history_of,
    pairs_of,
)

TYPES = EventTypes.of(Settings())
TAKERS = {"remove_from_cart": "cart", "return": "purchase"}


class Act(NamedTuple):
    """Something a user did: an event on an item, or the undoing of the event of a number."""

    user: str
    kind: str
    item: str
    undoes: int = -1


DRAWN = st.tuples(
    st.sampled_from(["ada", "ada", "bob"]),
    st.sampled_from(["click", "cart", "purchase", "dislike", *TAKERS, "undo", "undo"]),
    st.sampled_from("abcd"),
    st.sampled_from([1, 2, 3, 5, 8, -1]),
)


def acts_of(drawn: list[tuple[str, str, str, int]]) -> list[Act]:
    """Acts as drawn; an undo is of the event so many before it, by its user, or of a later one."""
    acts: list[Act] = []
    for user, kind, item, back in drawn:
        at = len(acts) - back
        if kind != "undo":
            acts.append(Act(user, kind, item))
        elif at >= 0:
            acts.append(Act(acts[at].user if back > 0 else user, kind, "", at))
    return acts


def event_of(number: int, act: Act) -> Event:
    """The event of an act, by its number; a minute apart."""
    at_s = NOW - 7200.0 + 60 * number
    if act.undoes >= 0:
        undone = {"eventId": f"{act.user}{act.undoes}"}
        return Event("undo", at_s, f"{act.user}{number}", properties=undone)
    return Event(act.kind, at_s, f"{act.user}{number}", act.item)


def message_of(offset: int, act: Act, number: int) -> StoredMessage:
    """A message of one act."""
    events = stored_events([event_of(number, act)], TYPES)
    return StoredMessage(offset, act.user, act.user, shard_of(act.user), NOW, events)


def numbers_that_count(acts: list[Act]) -> list[int]:
    """Numbers of the events that are neither undone nor taken back, by the definition."""
    undone = {(act.user, act.undoes) for act in acts if act.undoes >= 0}
    left = [n for n, act in enumerate(acts) if act.undoes < 0 and (act.user, n) not in undone]
    open_ones: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    taken = set()
    for n in left:
        user, kind, item, _ = acts[n]
        if kind in TAKERS.values():
            open_ones[user, kind, item].append(n)
        elif kind in TAKERS and open_ones[user, TAKERS[kind], item]:
            taken.add(open_ones[user, TAKERS[kind], item].pop())
    return [n for n in left if n not in taken]


async def apply(store: Store, acts: list[Act], batch: int) -> None:
    """Apply acts in batches of a size, each with the last message of the one before again."""
    every = [message_of(n, act, n) for n, act in enumerate(acts)]
    for at in range(0, len(every), batch):
        part = Part("p/0", at - 1, every[max(0, at - 1) : at + batch])
        ((status, *_),), _ = await store.apply([part], now_s=NOW)
        assert status == "applied"


def live_items(history: History) -> list[int]:
    """Items of the events of a history that count."""
    return [int(item) for item in history.items if item >= 0]


async def assert_as_if_never_sent(store: Store, acts: list[Act]) -> None:
    """The store is as if only the events that count had been sent."""
    counting = numbers_that_count(acts)
    reference = Reference()
    kept = [message_of(at, acts[n], n) for at, n in enumerate(counting)]
    reference.apply([Part("p/0", -1, kept)])
    everything = Reference()
    plain = [n for n, act in enumerate(acts) if act.undoes < 0]
    everything.apply([Part("p/0", -1, [message_of(at, acts[n], n) for at, n in enumerate(plain)])])
    counts = await store.counts()
    for name in ("events", "purchases"):
        assert counts.get(name, 0) == reference.counts[name], name
    indexes = {
        name.decode(): int(index)
        for name, index in (await store.redis.hgetall(store.key("items"))).items()
    }
    names = {index: name for name, index in indexes.items()}
    for owner, history in reference.histories.items():
        found = await history_of(store, owner)
        expected = [indexes[item] for _, item, _ in history if not item.startswith("-")]
        assert live_items(found) == expected
    stats = await StateCache(store).stats(np.array(list(names), np.int64), NOW)
    tops = dict(await store.redis.zrange(store.key("top:all"), 0, -1, withscores=True))
    for (index, name), row in zip(names.items(), stats, strict=True):
        parts = reference.items[name]
        assert row["events"] == len(parts)
        assert row["purchases"] == reference.item_purchases[name]
        assert tops.get(b"%d" % index, 0) == len(parts)
        for log2, half_life_s in zip(
            row["log2"], layout.POPULARITY_HALF_LIVES_S.values(), strict=True
        ):
            if parts:
                popularity = math.log2(decayed(parts, NOW, half_life_s))
                now = (NOW - layout.EPOCH) / half_life_s
                assert log2 - now == pytest.approx(popularity, abs=1e-5)
            else:
                assert log2 == 0.0
        numbers = np.frombuffer(
            await store.redis.get(store.key(f"takers:{index}")) or b"", np.uint32
        )
        owners = await store.owner_keys(numbers.tolist())
        assert sorted(map(str, owners)) == sorted(reference.recent_owners[name])
    assert_pairs(await contents(store), reference, everything, names)


def assert_pairs(
    stored: dict[str, bytes], reference: Reference, everything: Reference, names: dict[int, str]
) -> None:
    """Sums of pairs are right within the rounding of the greatest sums that there were."""
    found = {}
    for index, name in names.items():
        raw = stored.get(f"pairs:{index}")
        for item, own in (unpack_pairs(raw) if raw else {}).items():
            found[name, names[item]] = own
    right, ever = pairs_of(reference), pairs_of(everything)
    for pair in found.keys() | right.keys():
        for channel in ("month", "day"):
            count = COUNTS[channel]
            sums = [
                decayed(pairs.get(pair, {}).get(channel, []), NOW, count.half_life_s)
                for pairs in (right, ever)
            ]
            most = max(sum(sums), 1.0)
            log2 = found[pair][channel] if pair in found else -math.inf
            stored_sum = 2 ** (log2 - (NOW - layout.EPOCH) / count.half_life_s)
            bound = 8 * (2**count.step_log2 - 1) * most
            assert abs(stored_sum - sums[0]) <= bound, (pair, channel, stored_sum, sums)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(
    [
        ("ada", "click", "b", 1),
        ("ada", "cart", "a", 1),
        ("ada", "remove_from_cart", "a", 1),
        ("ada", "click", "c", 1),
        ("ada", "undo", "a", 2),
    ],
    3,
).via("the undone removal gives the cart back")
@example(
    [
        ("ada", "cart", "a", 1),
        ("ada", "click", "b", 1),
        ("ada", "cart", "a", 1),
        ("ada", "remove_from_cart", "a", 1),
        ("ada", "undo", "a", 2),
    ],
    1,
).via("the removal takes the other cart, if the one that it took is undone")
@example(
    [("ada", "click", "b", 1), ("ada", "purchase", "a", 1), ("ada", "return", "a", 1)],
    30,
).via("a return takes a purchase back in the step that it came in")
@given(st.lists(DRAWN, min_size=5, max_size=30), st.sampled_from([1, 3, 30]))
def test_what_is_withdrawn_is_as_if_it_never_was(
    redis_url: str, drawn: list[tuple[str, str, str, int]], batch: int
) -> None:
    """Any events, undone and taken back in any order, cut into any steps."""
    acts = acts_of(drawn)

    async def check() -> None:
        async with connect(redis_url) as client:
            store = Store(client, Settings(group="w", cache_s=0))
            try:
                await apply(store, acts, batch)
                await assert_as_if_never_sent(store, acts)
            finally:
                await client.flushall()

    asyncio.run(check())


async def test_an_undo_comes_to_nothing_twice(store: Store) -> None:
    """Sent again, under another id or before its event: the same state, counted as a duplicate."""
    acts = [Act("ada", "click", "a"), Act("ada", "click", "b"), Act("ada", "", "", undoes=1)]
    await apply(store, acts, 1)
    before = await contents(store)

    again = [*acts, acts[2]]
    message = message_of(3, again[3], 3)
    _, counts = await store.apply([Part("p/0", 2, [message])], now_s=NOW)

    after = await contents(store)
    assert counts["duplicates"] == 1
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed <= {"counts", "watermarks", "witnesses", "history:u:ada"}
    assert before["history:u:ada"][16:] == after["history:u:ada"][16:]
    resent = message_of(4, acts[1], 1)
    _, counts = await store.apply([Part("p/0", 3, [resent])], now_s=NOW)
    assert (counts["events"], counts["duplicates"]) == (0, 1)


async def test_nobody_undoes_events_of_others(store: Store) -> None:
    """The id of another user's event is none of one's own."""
    await apply(store, [Act("ada", "click", "a"), Act("ada", "click", "b")], 9)
    before = await contents(store)
    undo = stored_events([Event("undo", NOW, "x", properties={"eventId": "ada1"})], TYPES)

    message = StoredMessage(2, "eve", "eve", shard_of("eve"), NOW, undo)
    await store.apply([Part("p/0", 1, [message])], now_s=NOW)

    after = await contents(store)
    assert after["history:u:ada"] == before["history:u:ada"]
    assert {key for key in after if key.startswith(("pairs", "stats", "top"))} == {
        key for key in before if key.startswith(("pairs", "stats", "top"))
    }
    (history,) = await store.histories(["u:eve"])
    assert effects(history).tolist() == [layout.UNDONE]
    assert item_indexes(history).tolist() == [0]


async def test_what_is_no_longer_in_the_history_stays(redis_url: str) -> None:
    """An event that the history has trimmed is undone no more."""
    async with connect(redis_url) as client:
        store = Store(client, Settings(group="t", cache_s=0, history_events=10))
        acts = [Act("ada", "click", "abcdef"[n % 6]) for n in range(12)]
        await apply(store, [*acts, Act("ada", "", "", undoes=0)], 30)

        counts = await store.counts()

        assert counts["events"] == 12
        assert event_hash("ada0")


async def test_the_value_of_an_event_is_taken_back_with_it(store: Store) -> None:
    """What an eventValue has scaled is taken back at the weight that it counted with."""
    types = TYPES._replace(value_scales={"watch": 600.0})
    long = Event("watch", NOW - 60.0, "long", "a", event_value=3000.0)
    short = Event("watch", NOW - 30.0, "short", "a", event_value=300.0)
    undo = Event("undo", NOW, "u", properties={"eventId": "long"})
    for at, event in enumerate((long, short, undo)):
        message = StoredMessage(
            at, "ada", "ada", shard_of("ada"), NOW, stored_events([event], types)
        )
        await store.apply([Part("p/0", at - 1, [message])], now_s=NOW)

    (row,) = await StateCache(store).stats(np.array([1]), NOW)

    month_s = layout.POPULARITY_HALF_LIVES_S["month"]
    weight = row["log2"][3] - (NOW - 30 - layout.EPOCH) / month_s
    assert weight == pytest.approx(math.log2(0.5), abs=1e-6)


async def test_negative_and_undone_events_follow_a_login_and_an_erasure(store: Store) -> None:
    """A session's negative and undone events become the user's, can be undone there, and erased."""

    async def send(offset: int, event: Event, user: str = "") -> None:
        stored = stored_events([event], TYPES)
        one = StoredMessage(offset, user, "tab", shard_of("tab"), NOW, stored)
        await store.apply([Part("p/0", offset - 1, [one])], now_s=NOW)

    await send(0, Event("click", NOW - 50.0, "c", "a"))
    await send(1, Event("dislike", NOW - 40.0, "d", "b"))
    await send(2, Event("click", NOW - 30.0, "e", "c"))
    await send(3, Event("undo", NOW - 20.0, "f", properties='{"eventId": "e"}'))
    await send(4, Event("click", NOW - 10.0, "g", "a"), user="ada")
    (history,) = await store.histories(["u:ada"])
    assert effects(history).tolist() == [0, layout.HIDES, layout.UNDONE, 0]
    assert [len(one) > 0 for one in await store.recent_owners([1, 2, 3])] == [True, False, False]

    await send(5, Event("UNDO", NOW - 5.0, "h", properties={"eventId": "d"}), user="ada")

    (history,) = await store.histories(["u:ada"])
    assert effects(history).tolist() == [0, layout.UNDONE, layout.UNDONE, 0]
    erased = StoredMessage(6, "ada", "", 0, NOW, [], erased_at=float(NOW))
    await store.apply([Part("p/0", 5, [erased])], now_s=NOW)
    assert not any((await user_data_counts(store, "ada", now_s=NOW)).values())
