"""Outcomes of served lists against their definition, in whatever order lists and events come."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.served_messages import ServedList
from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.event_types import EventTypes
from models.state.messages import Part, StoredEvent
from models.state.outcomes.served_outcomes import (
    SUM,
    ListsOf,
    Outcomes,
    ServedMessage,
    ServedPart,
    apply_served,
    read_outcomes,
    read_series,
    stored_list,
)
from models.state.store import Store
from tests.models.state.reference import NOW, click, contents, erasure, message

WINDOW_S = 100


class Taken(NamedTuple):
    """An event as the definition sees it."""

    owner: str
    item: str
    time: int
    is_purchase: bool
    value: int
    named: str


def shown(
    name: str, items: str = "abc", *, at_s: float = NOW - 50, user: str = "u1", **rest: Any
) -> ServedList:
    """A list of items by the letter, in a place called home."""
    return ServedList(
        name,
        at_s,
        list(items),
        "t" * len(items),
        recipe="trending-now",
        user_id=user or None,
        **{"placement": "home", **rest},
    )


def taken(
    item: str, number: int, time: int = NOW - 40, *, named: str = "", value: int = 0, **rest: Any
) -> StoredEvent:
    """A click, or a purchase of a value in thousandths."""
    kind = rest.get("type", "click")
    return click(item, number, time)._replace(
        recommendation_id=named, value=value, type=kind, is_purchase=kind == "purchase"
    )


async def serve(store: Store, *lists: ServedList, offset: int = 0) -> dict[str, int]:
    """Apply one message of lists; returns the step's counts."""
    one = ServedMessage(offset, "", [stored_list(served) for served in lists])
    results, counts = await apply_served(store, [ServedPart("s/0", offset - 1, [one])], now_s=NOW)
    assert results[0][:2] == ("applied", offset)
    return counts


async def send(store: Store, *events: StoredEvent, offset: int = 0, **whose: str) -> None:
    """Apply one message of events."""
    results, _ = await store.apply(
        [Part("p/0", offset - 1, [message(offset, *events, **{"user": "u1", **whose})])], now_s=NOW
    )
    assert results[0][:2] == ("applied", offset)


async def total(store: Store) -> Outcomes:
    """Counts of everything that was served on these days."""
    found = await read_outcomes(store, "all", since_s=NOW - 86400, until_s=NOW + 1)
    return found.get("", Outcomes())


def defined(lists: list[ServedList], events: list[Taken], links: dict[str, str]) -> Outcomes:
    """What the definition says of all lists and events at once."""

    def owner_of(one: ServedList) -> str:
        if one.user_id:
            return f"u:{one.user_id}"
        session = one.session_id or ""
        return f"u:{links[session]}" if session in links else f"s:{session}"

    by_id = {one.recommendation_id: one for one in lists}
    outcomes: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in events:
        if event.named:
            meant = [by_id[event.named]] if event.named in by_id else []
        else:
            meant = [
                one
                for one in lists
                if owner_of(one) == event.owner and int(one.served_at) <= event.time
            ]
        fitting = [
            one
            for one in meant
            if event.item in one.items and event.time <= int(one.served_at) + WINDOW_S
        ]
        if fitting:
            last = max(fitting, key=lambda one: (int(one.served_at * 1000), one.recommendation_id))
            counted = outcomes[last.recommendation_id, event.item]
            counted[1 if event.is_purchase else 0] = 1
            counted[2] += event.value
    return Outcomes(
        len(lists),
        sum(len(one.items) for one in lists),
        sum(clicked for clicked, _, _ in outcomes.values()),
        sum(bought for _, bought, _ in outcomes.values()),
        sum(value for *_, value in outcomes.values()) / 1000,
    )


TIMES = st.integers(NOW - 300, NOW)
LISTS = st.lists(
    st.tuples(
        st.sampled_from([("u1", ""), ("u2", ""), ("", "s1"), ("", "")]),
        TIMES,
        st.permutations("abcd").map(lambda items: items[:3]),
    ),
    max_size=8,
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([("u1", "s1"), ("u2", "s9"), ("", "s1"), ("", "s2")]),
        TIMES,
        st.sampled_from("abcde"),
        st.sampled_from(["click", "purchase"]),
        st.sampled_from([0, 0, 1500]),
        st.sampled_from(["", "", *(f"r{n}" for n in range(8)), "unknown"]),
    ),
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LISTS, EVENTS, st.sets(st.integers(0, 11), max_size=4), st.randoms(use_true_random=False))
def test_outcomes_equal_their_definition_in_any_order(
    redis_url: str,
    drawn: list[Any],
    happened: list[Any],
    undone: set[int],
    chance: random.Random,
) -> None:
    """Lists and events come mixed at random, each message twice, and sessions join users midway.

    Some events are undone, maybe before they come; and nothing counts again after an erasure.
    """
    undone &= set(range(len(happened)))
    lists = [
        shown(f"r{n}", "".join(items), at_s=time + n / 10, user=user, session_id=session or None)
        for n, ((user, session), time, items) in enumerate(drawn)
    ]
    links = {session: user for (user, session), *_ in happened if user}
    events = [
        Taken(
            f"u:{user or links[session]}" if user or session in links else f"s:{session}",
            item,
            time,
            kind == "purchase",
            value,
            named,
        )
        for n, ((user, session), time, item, kind, value, named) in enumerate(happened)
        if n not in undone
    ]
    order = [("list", n) for n in range(len(lists))] + [("event", n) for n in range(len(happened))]
    order += [("undo", n) for n in undone]
    chance.shuffle(order)
    types = EventTypes.of(Settings()).for_withdrawals()

    async def check() -> None:
        async with connect(redis_url) as client:
            store = Store(client, Settings(group="o", cache_s=0, outcome_window_s=WINDOW_S))
            offsets = {"s/0": 0, "p/0": 0}

            async def come(kind: str, n: int) -> None:
                for again in (0, 0, 1):  # redelivered, then produced twice
                    place = "s/0" if kind == "list" else "p/0"
                    offset = offsets[place] + again
                    if kind == "list":
                        one = ServedMessage(offset, "", [stored_list(lists[n])])
                        await apply_served(store, [ServedPart(place, offset - 1, [one])], now_s=NOW)
                        continue
                    (user, session), time, item, event_type, value, named = happened[n]
                    event = taken(item, n, time, named=named, value=value, type=event_type)
                    event = event._replace(types=types)
                    if kind == "undo":
                        event = StoredEvent("", NOW, "undo", 0.0, False, 100 + n)
                        event = event._replace(undoes=n + 1, types=types)
                    sent = message(offset, event, user=user, session=session)
                    await store.apply([Part(place, offset - 1, [sent])], now_s=NOW)
                offsets[place] += 2

            try:
                for kind, n in order:
                    await come(kind, n)
                counted = await total(store)
                assert counted == defined(lists, events, links)
                gone = erasure(offsets["p/0"], "u1", NOW + 1.0)
                await store.apply([Part("p/0", offsets["p/0"] - 1, [gone])], now_s=NOW)
                offsets["p/0"] += 1
                for kind, n in order:
                    user = (drawn if kind == "list" else happened)[n][0][0]
                    if user == "u1":
                        await come(kind, n)
                assert await total(store) == counted
            finally:
                await client.flushdb()

    asyncio.run(check())


async def test_an_undone_event_is_no_outcome_of_a_list_that_comes_after_it(
    make_store: Callable[..., Store],
) -> None:
    """It named the list before that was known; another event that did counts."""
    store = make_store(outcome_window_s=WINDOW_S)
    types = EventTypes.of(Settings()).for_withdrawals()
    undo = StoredEvent("", NOW, "undo", 0.0, False, 100)._replace(undoes=1, types=types)
    await send(store, taken("a", 0, named="r1")._replace(types=types))
    await send(store, taken("b", 1, named="r1")._replace(types=types), offset=1)
    await send(store, undo, offset=2)
    await serve(store, shown("r1", "abc", at_s=NOW - 60))

    assert await total(store) == Outcomes(1, 3, 1, 0, 0.0)


async def test_a_click_counts_for_the_last_list_that_showed_the_item(
    make_store: Callable[..., Store],
) -> None:
    """By its dimensions, its position and its source; one that named another counts for that."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(
        store,
        shown("r1", "abc", at_s=NOW - 60, placement="home", arm="control"),
        shown("r2", "cab", at_s=NOW - 50, placement="cart", arm="bold"),
    )
    await send(store, taken("a", 1), taken("b", 2, named="r1"), taken("z", 3))

    async def clicks(by: Any, *of: str | None) -> dict[str, int]:
        found = await read_outcomes(store, by, since_s=NOW - 86400, until_s=NOW, of=ListsOf(*of))
        return {name: one.clicks for name, one in found.items()}

    assert await clicks("placement") == {"home": 1, "cart": 1}
    assert await clicks("arm") == {"control": 1, "bold": 1}
    assert await clicks("position") == {"1": 0, "2": 2, "3": 0}
    assert await clicks("reason") == {"trending": 2}
    assert await clicks("recipe", "cart") == {"trending-now": 1}
    assert await clicks("position", None, "bold") == {"1": 0, "2": 1, "3": 0}
    assert await clicks("position", "home", "bold") == {}
    assert await clicks("position", None, "bold", None, "trending") == {"1": 0, "2": 1, "3": 0}
    assert await clicks("position", None, None, None, "pinned") == {}
    assert await clicks("arm", None, None, "trending-now") == {"control": 1, "bold": 1}
    assert await total(store) == Outcomes(2, 6, 2, 0, 0.0)
    series = await read_series(store, since_s=NOW - 7200, until_s=NOW)
    assert sum((one.clicks for _, one in series)) == 2


async def test_counts_of_an_earlier_release_stay_in_reports(
    make_store: Callable[..., Store],
) -> None:
    """It counted items by reason, and again by position: neither counts twice."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(store, shown("r1", "abc", placement="home"))
    hour = store.key(f"outcomes:h{(NOW - 60) // 3600}")
    before = {"home\t\ttrending-now\tr" + "t": 9, "home\t\ttrending-now\tp2": 4}
    await store.redis.hset(
        hour, mapping={field: SUM.pack(0, n, 1, 0, 0) for field, n in before.items()}
    )

    async def shown_by(by: Any, reason: str | None = None) -> dict[str, int]:
        of = ListsOf(reason=reason)
        found = await read_outcomes(store, by, since_s=NOW - 86400, until_s=NOW, of=of)
        return {name: one.impressions for name, one in found.items()}

    assert await shown_by("reason") == {"trending": 12}
    assert await shown_by("position") == {"1": 1, "2": 5, "3": 1}
    assert await shown_by("position", "trending") == {"1": 1, "2": 1, "3": 1}
    assert await shown_by("placement", "trending") == {"home": 12}
    assert await shown_by("all") == {"": 3}


async def test_purchases_have_a_value(make_store: Callable[..., Store]) -> None:
    """Values add up over all events on an item, which was converted once."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(store, shown("r1"))
    await send(
        store,
        taken("a", 1, value=19_990, type="purchase"),
        taken("a", 2, value=500, type="Purchase"),
        taken("a", 3),
    )

    assert await total(store) == Outcomes(1, 3, 1, 1, 20.49)


async def test_events_beyond_the_window_do_not_count(make_store: Callable[..., Store]) -> None:
    """Nor those before the list."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(store, shown("r1", at_s=NOW - 200.5))
    await send(store, taken("a", 1, NOW - 202), taken("b", 2, NOW - 101), taken("c", 3, NOW - 100))

    assert (await total(store)).clicks == 1


async def test_nothing_of_an_erased_user_is_kept(make_store: Callable[..., Store]) -> None:
    """Lists before the erasure go, and do not come again; counts and later lists stay."""
    store = make_store(outcome_window_s=WINDOW_S)
    session: dict[str, Any] = {"user": "", "session_id": "s"}
    experiment: dict[str, Any] = {"experiment": "e1", "arm": "a", "horizon_s": 50, "bucket_s": 10}
    await serve(store, shown("r1", **experiment), shown("r2", **session), shown("r3", at_s=NOW - 1))
    await send(store, taken("a", 1))
    before = await total(store)
    gone = erasure(1, "u1", NOW - 20.0)
    await store.apply([Part("p/0", 0, [gone])], now_s=NOW)

    counts = await serve(
        store, shown("r4"), shown("r5", **session), shown("r6", at_s=NOW - 1), offset=1
    )

    assert counts == {"lists": 1, "repeated": 0, "unfollowed": 0, "erased": 2}
    kept = await contents(store)
    assert [key for key in kept if key.startswith("exposure:")] == []
    assert kept[f"askers:{NOW // WINDOW_S}"] == {b"r3": b"u:u1", b"r6": b"u:u1"}
    assert b"r1" not in kept["shown:u:u1"]
    assert b"r3" in kept["shown:u:u1"]
    assert (await total(store)).clicks == before.clicks == 1


async def test_a_list_that_comes_again_counts_once(make_store: Callable[..., Store]) -> None:
    """Whether Kafka delivers its message again, or a producer has sent it twice."""
    store = make_store()
    await serve(store, shown("r1"))
    first = ServedMessage(0, "", [stored_list(shown("r1"))])
    await apply_served(store, [ServedPart("s/0", -1, [first])], now_s=NOW)

    counts = await serve(store, shown("r1"), offset=1)

    assert counts["repeated"] == 1
    assert await total(store) == Outcomes(1, 3)


async def test_lists_beyond_the_limit_are_not_counted_at_all(
    make_store: Callable[..., Store],
) -> None:
    """Neither as shown nor their clicks: rates are those of the lists that are followed."""
    store = make_store(outcome_lists=100)
    counts = await serve(store, *(shown(f"r{n}", at_s=NOW - 90 + n) for n in range(60)))
    await send(store, taken("a", 1, named="r55"), taken("b", 2, named="r49"))

    assert (counts["lists"], counts["unfollowed"]) == (50, 10)
    assert await total(store) == Outcomes(50, 150, 1)


async def test_outcomes_can_be_turned_off(make_store: Callable[..., Store]) -> None:
    """Events then leave nothing of them behind."""
    store = make_store(outcomes=False)

    await send(store, taken("a", 1, named="r1", value=5))

    families = {key.partition(":")[0] for key in await contents(store)}
    assert not families & {"shown", "askers", "awaited", "outcomes"}


async def test_a_replay_in_another_order_counts_the_same(
    make_store: Callable[..., Store],
) -> None:
    """All events first, then all lists, whose items the store knows by the events or not at all."""
    lists = [shown("r1", "a,", at_s=NOW - 60), shown("r2", "xa", at_s=NOW - 50)]
    events = [taken("a", 1), taken("x", 2, NOW - 45), taken(",", 3, NOW - 30)]
    live, again = make_store(), make_store()
    await serve(live, *lists)
    await send(live, *events)
    await send(again, *events)
    await serve(again, *lists)

    assert await total(live) == await total(again) == Outcomes(2, 4, 3)


async def test_an_experiment_counts_users_once(make_store: Callable[..., Store]) -> None:
    """By the arm they were shown first, with their outcomes until their deadline."""
    store = make_store(outcome_window_s=WINDOW_S)
    common: dict[str, Any] = {"experiment": "e1", "horizon_s": 50, "bucket_s": 10}
    at_s = NOW - 95
    await serve(
        store,
        shown("r1", "abc", at_s=at_s, arm="a", **common),
        shown("r2", "abc", at_s=at_s + 1, arm="a", **common),
        shown("r3", "xyz", at_s=at_s + 2, arm="b", **common),
        shown("r4", "abc", at_s=at_s, arm="b", user="u2", **common),
    )
    await send(
        store,
        taken("a", 1, at_s + 5, value=2000, type="purchase"),
        taken("b", 2, at_s + 6),
        taken("c", 3, at_s + 7),
        taken("c", 4, at_s + 51),
        taken("x", 5, at_s + 8),
    )

    stored = (await contents(store))["experiment:e1"]
    bucket = at_s - at_s % 10
    assert stored.pop(b"users") == b"2"
    assert {name: struct.unpack("<7d", raw) for name, raw in stored.items()} == {
        b"a\t%d" % bucket: (1, 1, 1, 2, 4, 2000, 4_000_000),
        b"b\t%d" % bucket: (1, 0, 0, 0, 0, 0, 0),
    }


async def test_an_event_that_becomes_the_users_own_counts_once(
    make_store: Callable[..., Store],
) -> None:
    """A session's event that names a user's list, before the session is that user's."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(store, shown("r1"))
    named = taken("a", 1, named="r1", value=1500)
    await send(store, named, user="", session="s1")
    assert (await total(store)).value == 1.5

    await send(store, taken("z", 2), offset=1, session="s1")

    assert (await total(store))[2:] == (1, 0, 1.5)


async def test_events_of_a_session_count_once_it_is_the_users(
    make_store: Callable[..., Store],
) -> None:
    """For lists of the user's, although nothing was shown to the session."""
    store = make_store(outcome_window_s=WINDOW_S)
    await serve(store, shown("r1"))
    await send(store, taken("a", 1), user="", session="s1")
    assert (await total(store)).clicks == 0

    await send(store, taken("b", 2), offset=1, session="s1")

    assert (await total(store)).clicks == 2


async def test_outcomes_of_undone_events_are_undone(store: Store) -> None:
    """What an undone click, or a returned purchase, counted for counts no more: lists named too."""
    types = EventTypes.of(Settings()).for_withdrawals()
    await serve(store, shown("r1"), shown("r2", user="u2"))
    await send(store, taken("a", 1), taken("b", 2, named="r2"))
    await send(store, taken("c", 3, type="purchase", value=500, named="r1"), offset=1)
    found = await total(store)
    assert (found.clicks, found.conversions, found.value) == (2, 1, 0.5)

    undo = StoredEvent("", NOW - 20, "undo", 0.0, False, 9, undoes=2, types=types)
    await send(store, undo, undo._replace(undoes=3), offset=2)
    back = StoredEvent(
        "c", NOW - 10, "return", 0.0, False, 11, effect=layout.TAKES_BACK_PURCHASE, types=types
    )
    await send(store, undo._replace(undoes=4), back, offset=3)

    found = await total(store)
    assert (found.clicks, found.conversions, found.value) == (0, 0, 0.0)
