"""Steps of several dataset groups: each group gets what it would get alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import NO_TYPES, Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from models.state.tenants import Tenants
from tests.models.state.reference import NOW, Reference, assert_same, click, contents, message

GROUPS = {"": "h", "other": "other"}
"""Names of the groups, by the group field of messages."""

EVENTS = st.builds(
    StoredEvent,
    item_id=st.sampled_from(["", *"abcdef"]),
    time=st.integers(NOW - 40 * 86400, NOW) | st.integers(NOW - 2, NOW),
    type=st.sampled_from(["click", "purchase"]),
    log2_weight=st.sampled_from([0.0, 1.0]),
    is_purchase=st.booleans(),
    hash=st.integers(1, 60),
    millisecond=st.integers(0, 999),
    recommendation_id=st.sampled_from(["", "r1"]),
    value=st.sampled_from([0, 1500]),
    context=st.dictionaries(
        st.sampled_from(["device", "hour"]),
        st.lists(st.sampled_from(["phone", "5"]), max_size=2, unique=True),
    ),
    effect=st.just(0),
    undoes=st.just(0),
    types=st.just(NO_TYPES),
)
COLUMNS = {"h": ["device"], "other": ["hour"]}
"""The contextual columns of each group."""

MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(list(GROUPS)),
        st.sampled_from(["", "u1", "u2"]),
        st.sampled_from(["s1", "s4", "u1"]),
        st.lists(EVENTS, min_size=1, max_size=3),
    ),
    max_size=30,
)
CUTS = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), min_size=1, max_size=10)


@pytest.fixture
async def tenants(redis_url: str) -> AsyncIterator[Tenants]:
    """Two groups in an empty Redis."""
    async with connect(redis_url) as client:
        await client.flushdb()
        one = Tenants(client, Settings(group="h", cache_s=0))
        await one.create("other")
        yield one
        await client.flushdb()


def of(group: str, one: StoredMessage) -> StoredMessage:
    """The message as one of this group."""
    return one._replace(group=group)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES, CUTS)
def test_each_group_is_as_if_alone(
    redis_url: str,
    drawn: list[tuple[str, str, str, list[StoredEvent]]],
    cuts: list[tuple[int, int]],
) -> None:
    """Any mixed stream, cut anywhere, with repeated parts, equals each group's reference."""

    async def check() -> None:
        async with connect(redis_url) as client:
            tenants = Tenants(client, Settings(group="h", cache_s=0))
            await tenants.create("other")
            try:
                await replay(tenants, drawn, cuts)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def replay(
    tenants: Tenants,
    drawn: list[tuple[str, str, str, list[StoredEvent]]],
    cuts: list[tuple[int, int]],
) -> None:
    """Apply a mixed stream on two partitions, and compare each group with its reference."""
    store = tenants.store("h")
    references = {group: Reference(columns=COLUMNS[name]) for group, name in GROUPS.items()}
    for name, columns in COLUMNS.items():
        await tenants.name_columns(name, columns)
    logs: tuple[list[StoredMessage], ...] = ([], [])
    at, sizes = 0, itertools.cycle(cuts)
    while at < len(drawn):
        size, again = next(sizes)
        starts = [len(log) for log in logs]
        for group, user, session, events in drawn[at : at + size]:
            log = logs[shard_of(session) % 2]
            log.append(of(group, message(len(log), *events, user=user, session=session)))
        parts = [
            Part(f"p/{number}", start - 1, log[max(0, start - again) :])
            for number, (log, start) in enumerate(zip(logs, starts, strict=True))
        ]
        for group, reference in references.items():
            reference.apply(
                [
                    part._replace(messages=[m for m in part.messages if m.group == group])
                    for part in parts
                ]
            )
        for _ in range(2):
            results, _ = await store.apply(parts, now_s=NOW)
            assert [(r.status, r.watermark) for r in results] == [
                ("applied", len(log) - 1) for log in logs
            ]
            # The second time the worker knows how far it is.
            parts = [
                part._replace(expected=len(log) - 1) for part, log in zip(parts, logs, strict=True)
            ]
        at += size
    for group, reference in references.items():
        await assert_same(tenants.store(GROUPS[group]), reference)


async def everything(tenants: Tenants) -> dict[str, dict[str, Any]]:
    """All stored keys and values, by group."""
    return {name: await contents(tenants.store(name)) for name in GROUPS.values()}


async def test_a_redelivered_batch_changes_nothing(tenants: Tenants) -> None:
    """Even if the batch's own watermark was lost: the other group has its own."""
    store = tenants.store("h")
    part = Part(
        "p/0", -1, [of(group, message(n, click("a", n))) for n, group in enumerate(["", "other"])]
    )
    _, counts = await store.apply([part], now_s=NOW)
    assert counts["events"] == counts["items"] == 2
    before = await everything(tenants)

    _, counts = await store.apply([part], now_s=NOW)
    assert not any(counts.values())
    assert await everything(tenants) == before

    for key in await store.redis.keys("{h}:*"):
        await store.redis.delete(key)
    _, counts = await store.apply([part], now_s=NOW)
    assert counts["events"] == 1
    assert await everything(tenants) == before


async def test_an_unknown_group_stops_the_part(tenants: Tenants) -> None:
    """Earlier messages are in effect, it and later ones are not; other partitions go on."""
    store = tenants.store("h")
    mixed = [
        of("other", message(0, click("a", 0))),
        of("nowhere", message(1, click("a", 1))),
        message(2, click("a", 2)),
    ]

    results, counts = await store.apply(
        [Part("p/0", -1, mixed), Part("p/1", -1, [message(0, click("b", 3))])], now_s=NOW
    )

    assert results == [("gone", 0, 1, []), ("applied", 0, -1, [])]
    assert counts["events"] == 2
    assert await store.redis.keys("{nowhere}:*") == []
    passed = of("", message(1))
    results, counts = await store.apply([Part("p/0", 0, [passed, mixed[2]])], now_s=NOW)
    assert (results[0].status, counts["events"]) == ("applied", 1)


@pytest.mark.usefixtures("tenants")
async def test_a_full_group_stops_the_part(redis_url: str) -> None:
    """No message behind that of a full group is in effect, in any group."""
    async with connect(redis_url) as client:
        store = Store(client, Settings(group="h", max_items=1))
        mixed = [
            of("other", message(0, click("a", 0))),
            message(1, click("b", 1)),
            of("other", message(2, click("a", 2), click("c", 3))),
            message(3, click("b", 4)),
        ]

        results, counts = await store.apply([Part("p/0", -1, mixed)], now_s=NOW)

        assert results == [("full", 1, 2, [1])]
        assert counts["events"] == 2
        left = mixed[2]._replace(events=mixed[2].events[:1])
        results, counts = await store.apply([Part("p/0", 1, [left, mixed[3]])], now_s=NOW)
        assert results == [("applied", 3, -1, [])]
        assert counts["events"] == 2


async def test_a_group_made_again_starts_afresh(tenants: Tenants) -> None:
    """Watermarks of an erased group do not hold for a new one of its name."""
    store = tenants.store("h")
    await store.apply([Part("p/0", -1, [of("other", message(7, click("a", 0)))])], now_s=NOW)
    await tenants.erase("other")
    await tenants.create("other")

    results, _ = await store.apply(
        [Part("p/0", 7, [of("other", message(8, click("b", 1)))])], now_s=NOW
    )

    assert results == [("applied", 8, -1, [])]
    assert await tenants.store("other").item_indexes(["a", "b"]) == [0, 1]


async def test_lost_effects_stop_all_groups(tenants: Tenants) -> None:
    """A watermark behind the worker's refuses the messages of every group."""
    store = tenants.store("h")

    results, counts = await store.apply(
        [Part("p/0", 7, [of("other", message(8, click("b", 1)))])], now_s=NOW
    )

    assert results == [("lost", -1, -1, [])]
    assert not any(counts.values())
    assert await contents(tenants.store("other")) == {}
