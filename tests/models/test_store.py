"""The atomic step against its naive meaning, and the store's other promises."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import layout
from models.catalogue import Catalogue
from models.retrieval import unpack_neighbours
from models.sessions import unpack_history
from models.settings import Settings
from models.store import Part, Store, StoredEvent, StoredMessage, connect, shard_of
from tests.models.reference import Reference, decayed

NOW = 1_790_000_000
_groups = itertools.count()

EVENTS = st.builds(
    StoredEvent,
    item_id=st.sampled_from(["", *"abcdefgh"]),
    time=st.integers(NOW - 40 * 86400, NOW),
    type=st.sampled_from(["click", "purchase"]),
    log2_weight=st.sampled_from([0.0, 1.0]),
    is_purchase=st.booleans(),
    hash=st.integers(1, 60),
)
MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["", "", "u1", "u2"]),
        st.sampled_from(["s1", "s2", "s3", "u1"]),
        st.lists(EVENTS, min_size=1, max_size=4),
    ),
    max_size=25,
)


def click(item: str, number: int, time: int = NOW) -> StoredEvent:
    """A click with a hash of its own."""
    return StoredEvent(item, time, "click", 0.0, False, number + 1)


def message(offset: int, *events: StoredEvent, user: str = "", session: str = "s") -> StoredMessage:
    """One message."""
    return StoredMessage(offset, user, session, shard_of(session), 1.0 + offset, list(events))


async def dump(store: Store) -> dict[bytes, Any]:
    """Every key of the group with its value."""
    found = {}
    async for key in store.redis.scan_iter(
        match=store.prefix.replace("[", "\\[") + "*", count=1000
    ):
        found[key] = await store.redis.dump(key)
    return found


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(MESSAGES, st.lists(st.integers(1, 8), min_size=1, max_size=10))
def test_step_means_what_the_reference_says(
    redis_url: str, drawn: list[tuple[str, str, list[StoredEvent]]], cuts: list[int]
) -> None:
    """Any stream, cut into any batches, each sent twice, leads to the reference's state."""
    messages = [
        message(n, *events, user=user, session=session)
        for n, (user, session, events) in enumerate(drawn)
    ]
    reference = Reference()
    reference.apply(messages)

    async def check() -> None:
        store = Store(connect(redis_url), Settings(group=f"h{next(_groups)}", cache_s=0))
        at, sizes = 0, itertools.cycle(cuts)
        while at < len(messages):
            batch = messages[at : at + next(sizes)]
            for _ in range(2):
                results, _counts = await store.apply([Part("p/0", at - 1, batch)], now_s=NOW)
                assert results[0].status == "applied"
                assert results[0].watermark == batch[-1].offset
            at += len(batch)
        await assert_same(store, reference)
        await store.redis.aclose()

    asyncio.run(check())


async def assert_same(store: Store, reference: Reference) -> None:
    """Histories, counts, pairs and popularity are the reference's."""
    counts = await store.counts()
    assert counts.get("events", 0) == reference.applied
    assert counts.get("duplicates", 0) == reference.duplicates
    names = sorted(reference.items)
    indexes = await store.item_indexes(names)
    index_of = dict(zip(names, indexes, strict=True))
    for owner, history in reference.histories.items():
        stored = unpack_history(await store.redis.get(store.key(f"history:{owner}")))
        assert stored.count == reference.counts[owner]
        assert stored.times.tolist() == [time for time, *_ in history]
        assert stored.items.tolist() == [index_of.get(item, 0) for _, item, _ in history]
    clock = counts.get("clock", float(NOW))
    for name, index in index_of.items():
        raw = await store.redis.get(store.key(f"pairs:{index}"))
        records = np.frombuffer(raw or b"", layout.PAIR)
        for record in records[records["item"] > 0]:
            other = names[indexes.index(int(record["item"]))]
            for channel, log2 in zip(layout.PAIR_CHANNELS, record["log2"], strict=True):
                expected = decayed(
                    reference.pairs.get((name, other, channel.name), []), clock, channel.half_life_s
                )
                found = np.exp2(float(log2) - (clock - layout.EPOCH) / channel.half_life_s)
                assert found == pytest.approx(expected, rel=2e-3, abs=1e-9)
    if names:
        stats = await Catalogue(store).stats(np.array(indexes, np.int64), NOW)
        for name, row in zip(names, stats, strict=True):
            assert row["events"] == len(reference.items[name])
            week = np.exp2(row["log2"][2] - (clock - layout.EPOCH) / (7 * 86400))
            expected = decayed(reference.items[name], clock, 7 * 86400)
            assert week == pytest.approx(expected, rel=1e-6)


async def test_redelivery_changes_no_key(store: Store) -> None:
    """The same part again leaves every key as it was."""
    part = Part("p/0", -1, [message(n, click(f"i{n}", n)) for n in range(20)])
    await store.apply([part], now_s=NOW)
    before = await dump(store)

    results, counts = await store.apply([part], now_s=NOW)

    assert results[0].watermark == 19
    assert not any(counts.values())
    assert await dump(store) == before


async def test_lost_effects_are_noticed(store: Store) -> None:
    """A store behind what the worker has applied takes nothing and says where it is."""
    await store.apply([Part("p/0", -1, [message(0, click("a", 0))])], now_s=NOW)
    before = await dump(store)

    results, _ = await store.apply([Part("p/0", 7, [message(8, click("b", 8))])], now_s=NOW)

    assert (results[0].status, results[0].watermark) == ("lost", 0)
    assert await dump(store) == before


async def test_full_catalogue_stops_before_the_message(redis_url: str) -> None:
    """A message that names too many new items has no effect, nor has what follows it."""
    store = Store(connect(redis_url), Settings(group="full", max_items=2))
    batch = [
        message(0, click("a", 0)),
        message(1, click("a", 1), click("b", 2), click("c", 3)),
        message(2, click("a", 4)),
    ]

    results, counts = await store.apply([Part("p/0", -1, batch)], now_s=NOW)

    assert results[0] == ("full", 0, 1, [2])
    assert counts["events"] == 1
    await store.redis.aclose()


async def test_everything_is_bounded(store: Store) -> None:
    """Histories, neighbours and top lists stop growing at their limits."""
    offset = 0
    for step in range(20):
        batch = []
        for _ in range(100):
            batch.append(message(offset, click(f"i{(offset * 17) % 700}", offset, NOW + step)))
            offset += 1
        await store.apply([Part("p/0", offset - 101, batch)], now_s=NOW)
    history = unpack_history(await store.redis.get(store.key("history:s:s")))

    assert len(history.items) == store.settings.history_events
    assert history.count == 2000
    sizes = [len(await store.redis.get(store.key(f"pairs:{n}"))) for n in range(1, 700, 50)]
    assert max(sizes) <= layout.NEIGHBOURS * layout.PAIR.itemsize
    for name in ("all", "recent", "day", "new"):
        assert await store.redis.zcard(store.key(f"top:{name}")) <= layout.TOPS


async def test_tops_hold_the_exact_head(store: Store) -> None:
    """The top list is the head of a full sort, although it is bounded."""
    events = [click(f"i{n % 500}", n, NOW - 3000 + n) for n in range(3000)]
    for at in range(0, 3000, 100):
        batch = [
            message(at + n, event, session=f"s{n}") for n, event in enumerate(events[at : at + 100])
        ]
        await store.apply([Part("p/0", at - 1, batch)], now_s=NOW)

    newest = await store.redis.zrange(store.key("top:recent"), 0, 4, desc=True)

    assert await store.item_ids([int(n) for n in newest]) == [
        f"i{n}" for n in (499, 498, 497, 496, 495)
    ]


async def test_hostile_ids_are_only_text(store: Store) -> None:
    """Ids of any 256 characters are stored and found again."""
    name = "{}*?[\\\x00é漢" + "x" * 247
    await store.apply(
        [Part("p/0", -1, [message(0, click(name, 0), user=name, session=name)])], now_s=NOW
    )

    assert await store.item_ids(await store.item_indexes([name])) == [name]
    assert (await store.erase_user(name))["events"] == 1


async def test_erasing_a_user(store: Store) -> None:
    """History, links and histories of linked sessions go; what is counted of items stays."""
    await store.apply(
        [
            Part(
                "p/0", -1,
                [
                    message(0, click("a", 0), session="s1"),
                    message(1, click("b", 1), user="ada", session="s1"),
                    message(2, click("c", 2), user="ada", session="s2"),
                    message(3, click("c", 3), user="bob", session="s3"),
                ],
            )
        ],
        now_s=NOW,
    )  # fmt: skip
    assert await store.linked_user("s1", now_s=NOW) == "ada"

    removed = await store.erase_user("ada")

    assert removed == {"events": 3, "sessions": 1, "links": 2}
    assert await store.linked_user("s1", now_s=NOW) is None
    assert await store.linked_user("s3", now_s=NOW) == "bob"
    assert not [key for key in await dump(store) if b"ada" in key]


async def test_ranker_is_saved_by_one_learner(store: Store) -> None:
    """A learner that is behind the stored watermark cannot overwrite it."""
    assert await store.save_ranker({"state": b"1"}, field="x/0", expected=-1, offset=5)
    assert not await store.save_ranker({"state": b"2"}, field="x/0", expected=-1, offset=6)
    assert (await store.load_ranker())["state"] == b"1"


async def test_neighbours_share_one(store: Store) -> None:
    """Shares of a list are non-negative and sum to less than one in every channel."""
    events = [click(f"i{n % 7}", n, NOW + n) for n in range(60)]
    batch = [message(n, event) for n, event in enumerate(events)]
    await store.apply([Part("p/0", -1, batch)], now_s=NOW)

    raw = await store.redis.get(store.key("pairs:1"))
    (neighbours,) = unpack_neighbours([raw], NOW + 60.0)

    assert (neighbours.shares >= 0).all()
    assert (neighbours.shares.sum(axis=0)[:5] < 1).all()
    assert unpack_neighbours([None, raw], 0.0)[0].items.size == 0


async def test_dead_connection_is_replaced(store: Store, redis_url: str) -> None:
    """A connection that died unused costs the next command nothing but a new one."""
    await store.ping()
    other: Any = connect(redis_url)
    await other.client_kill_filter(_type="normal", skipme=True)

    await store.ping()

    await other.aclose()
