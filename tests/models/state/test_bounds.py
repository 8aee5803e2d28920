"""What steps keep of a group is bounded, and within the bounds exact."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from models.serving.cached.cache import StateCache
from models.state import layout
from models.state.messages import (
    Part,
    StoredEvent,
)
from models.state.store import Store
from tests.models.state.message_fixtures import send
from tests.models.state.pair_records import unpack_items, unpack_pairs
from tests.models.state.reference import (
    NOW,
    Reference,
    click,
    contents,
    decayed,
    history_of,
    message,
)


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


async def test_a_late_first_event_makes_an_item_older(store: Store) -> None:
    """In the list of new items too."""
    many = [click(f"i{n}", n, NOW + n) for n in range(layout.TOPS + 1)]
    await send(store, *(message(n, event) for n, event in enumerate(many)))
    newest = (await store.item_indexes([f"i{layout.TOPS}"]))[0]
    late = click(f"i{layout.TOPS}", 9999, NOW - 100)
    await store.apply([Part("p/0", layout.TOPS, [message(layout.TOPS + 1, late)])], now_s=NOW)

    assert await store.redis.zscore(store.key("top:recent"), newest) == NOW + layout.TOPS
    assert await store.redis.zscore(store.key("top:new"), newest) is None
