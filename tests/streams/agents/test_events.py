"""The event agent on a real Redis: groups, erasures, dead letters and training examples."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from models.ranking import examples
from models.ranking.features import FEATURES
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.client import connect
from models.state.tenants import Tenants
from models.state.users.user_data import user_data_counts
from streams.agents.contracts import Publish
from streams.agents.learning.example_sampling import ExampleSampler
from tests.streams.agents.agent_fixtures import NOW_S, EventWorker, restore, snapshot
from tests.streams.agents.simulated_kafka import Record

FIRST, SECOND = EventWorker.first, EventWorker.second


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[EventWorker]:
    """A worker of two partitions on an empty store."""
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0))
    await tenants.redis.flushdb()
    one = EventWorker(tenants)
    await one.assign(FIRST, SECOND)
    yield one
    await tenants.redis.aclose()


async def test_nothing_is_accepted_in_the_future(worker: EventWorker) -> None:
    """A producer whose clock is ahead does not make the state look fresh forever."""
    event = {"eventType": "click", "itemId": "lamp", "sentAt": NOW_S}
    raw = json.dumps({"sessionId": "s", "acceptedAt": NOW_S * 2, "eventList": [event]}).encode()
    worker.send(FIRST, raw)
    await worker.read(FIRST)

    assert (await worker.agent.store.counts())["accepted_at"] == NOW_S


async def test_a_group_registered_in_mid_stream_is_known_at_once(worker: EventWorker) -> None:
    """Before it is registered its events are dead letters, from the next one on they count."""
    worker.click("t-books", "a")
    await worker.read(FIRST)
    await worker.tenants.register("t-books", "books")
    worker.click("t-books", "a", "b")
    worker.send(FIRST, "c")
    await worker.read(FIRST)

    assert (await worker.in_effect("books"))[0] == 2
    assert await worker.in_effect() == (1, [3, -1])
    (letter,) = worker.letters
    assert (letter.reason, letter.group) == ("invalid", "")
    assert "'t-books'" in letter.detail
    assert await worker.tenants.store("books").item_indexes(list("abc")) == [1, 2, 0]


async def test_events_of_a_group_erased_in_mid_stream_are_dead_letters(worker: EventWorker) -> None:
    """A worker that still has its tracking id in cache dead-letters its events, and goes on."""
    tenants = worker.tenants
    await tenants.register("t-books", "books")
    worker.click("t-books", "a")
    await worker.read(FIRST)
    # Another process erases it; this one remembers the tracking id for as long as cache_s.
    other = Tenants(tenants.redis, tenants.settings)
    await other.erase("books")
    worker.click("t-books", "b")
    worker.send(FIRST, "c")
    await worker.read(FIRST)

    assert await worker.in_effect() == (1, [2, -1])
    assert await tenants.redis.keys("{books}:*") == []
    assert [letter.source.offset for letter in worker.letters] == [1]

    await other.register("t-books", "books")
    worker.click("t-books", "d")
    await worker.read(FIRST)
    assert await worker.in_effect("books") == (1, [3, -1])
    assert await tenants.store("books").item_indexes(list("abd")) == [0, 0, 1]


async def test_events_sent_before_their_tracker_was_removed_count(worker: EventWorker) -> None:
    """Also when the state is rebuilt from Kafka; later ones are dead letters."""
    tenants = worker.tenants
    await tenants.register("one", "books")
    await tenants.register("two", "books")
    worker.click("one", "a")
    worker.click("two", "b")
    await tenants.remove("one", now_s=2.0)
    late = Record(worker.encode(FIRST, "c", "one"), b"key", 100_000)
    worker.kafka.of(FIRST).records.append(late)
    await worker.read(FIRST)

    assert await worker.in_effect("books") == (2, [2, -1])
    assert [letter.source.offset for letter in worker.letters] == [2]


async def test_dead_letters_name_the_group(redis_url: str) -> None:
    """Letters of invalid or refused events carry the group and the message's key."""
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0, max_items=1))
    await tenants.redis.flushdb()
    worker = EventWorker(tenants)
    await worker.assign(FIRST)
    await tenants.register("t-books", "books")
    worker.send(FIRST, b'{"trackingId":"t-books","eventList":5}', b'{"eventList":5}', b"bad")
    worker.click("t-books", "a", "b")
    worker.send(FIRST, "a", "b")
    await worker.read(FIRST)

    assert [(letter.reason, letter.group) for letter in worker.letters] == [
        ("invalid", "books"),
        ("invalid", "shop"),
        ("invalid", "shop"),
        ("catalogue-full", "books"),
        ("catalogue-full", "shop"),
    ]
    assert worker.keys == {b"key"}
    await tenants.redis.aclose()


async def test_lost_effects_of_several_groups_are_applied_again(worker: EventWorker) -> None:
    """The effects of all groups come back, each once."""
    tenants = worker.tenants
    await tenants.register("t-books", "books")
    worker.send(FIRST, "a")
    worker.click("t-books", "b")
    await worker.read(FIRST)
    kept = await snapshot(worker.agent.store)
    worker.click("t-books", "c", "d")
    worker.send(FIRST, "e")
    await worker.read(FIRST)
    await restore(worker.agent.store, kept)
    worker.click("t-books", "f")
    await worker.read(FIRST)
    await worker.read(FIRST)

    assert await worker.in_effect("books") == (4, [5, -1])
    assert await worker.in_effect() == (2, [5, -1])


@contextlib.asynccontextmanager
async def sampling(
    redis_url: str, publish: Publish, *, step_s: float = 1.0
) -> AsyncIterator[tuple[EventWorker, ExampleSampler]]:
    """A worker of one partition on an empty store, whose clock moves at each reading."""
    seconds = itertools.count(NOW_S, step_s)

    def clock() -> float:
        return next(seconds)

    tenants = Tenants(connect(redis_url), Settings(cache_s=0))
    await tenants.redis.flushdb()
    recommenders = Recommenders(tenants)
    sampler = ExampleSampler(recommenders, publish=publish, clock=clock)
    one = EventWorker(tenants, clock=clock, observer=sampler)
    await one.assign(FIRST)
    yield one, sampler
    await recommenders.close()
    await tenants.redis.aclose()


async def test_examples_carry_the_name_of_their_group(redis_url: str) -> None:
    """Choices of every group are sampled, each against its own group's candidates."""
    sent: list[tuple[bytes | None, int]] = []

    async def publish(values: Sequence[bytes], key: bytes | None) -> None:
        sent.append((key, len(values)))

    async with sampling(redis_url, publish) as (one, sampler):
        await one.tenants.register("t-books", "books")
        for item in "ab":
            one.send(FIRST, item)
            one.click("t-books", item)
            await one.read(FIRST)
        await sampler.flush()

    assert sorted(sent, key=str) == [(None, 1), (b"books", 1)]


async def test_examples_are_of_the_state_before_their_events(redis_url: str) -> None:
    """They are made once these are in effect, which would give the taken item away."""
    made: list[bytes] = []

    async def publish(values: Sequence[bytes], _: bytes | None) -> None:
        made.extend(values)

    # Whatever was held is too old when examples are made.
    async with sampling(redis_url, publish, step_s=10.0) as (one, sampler):
        for session, item, after_s in (("o", "y", 0), ("s", "x", 100), ("s", "y", 200)):
            event = {"eventType": "click", "itemId": item, "sentAt": 1.7e9 + after_s}
            one.send(FIRST, json.dumps({"sessionId": session, "eventList": [event]}).encode())
            await one.read(FIRST)
        await sampler.flush()

    (raw,) = made
    example = examples.decode(raw)
    assert example is not None
    taken = dict(zip(FEATURES, example.matrix()[0], strict=True))
    assert taken["since_last_touch"] == pytest.approx(math.log(101), rel=1e-3)
    assert taken["next_1_share"] == taken["both_10_share"] == 0


async def test_a_fault_in_making_examples_is_raised_at_the_next_step(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would otherwise be one line of a log, once: a ranker that never learns again."""

    async def publish(*_: object) -> None:
        """Produce nothing."""

    def fault(*_: object) -> bytes:
        raise AssertionError("a fault of the program")

    monkeypatch.setattr(ExampleSampler, "_example", fault)
    async with sampling(redis_url, publish) as (one, sampler):
        for item in "ab":
            one.send(FIRST, item)
            await one.read(FIRST)
        with pytest.raises(AssertionError):
            await sampler.flush()
        one.send(FIRST, "c")
        with pytest.raises(AssertionError):
            await one.read(FIRST)


async def test_examples_of_a_moment_are_produced_together(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker gets few messages; examples are dropped while it does not answer."""
    sent: list[int] = []
    is_over, asked, answers = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def moment(_: float) -> None:
        await is_over.wait()

    async def publish(values: Sequence[bytes], _: bytes | None) -> None:
        sent.append(len(values))
        asked.set()
        await answers.wait()

    async def read(one: EventWorker, items: str) -> None:
        for item in items:
            one.send(FIRST, item)
            await one.read(FIRST)

    monkeypatch.setattr(asyncio, "sleep", moment)
    async with sampling(redis_url, publish) as (one, sampler):
        await read(one, "abcd")
        is_over.set()
        await asked.wait()
        assert sent == [3]
        await read(one, "abcd")
        assert sampler._making is not None
        await sampler._making
        answers.set()
        await sampler.flush()
        await read(one, "a")
        await sampler.flush()

    assert sent == [3, 1]


async def test_a_tracking_id_is_looked_up_until_redis_answers(worker: EventWorker) -> None:
    """An outage makes no dead letters; a rebalance ends the look-up."""
    tenants = worker.tenants
    await tenants.register("t-books", "books")
    ask, failures = tenants.group_of, itertools.count()

    async def away(tracking_id: str) -> str | None:
        if next(failures) < 2:
            raise ConnectionError
        return await ask(tracking_id)

    tenants.group_of = away  # type: ignore[method-assign]
    worker.click("t-books", "a")
    await worker.read(FIRST)
    assert (await worker.in_effect("books"))[0] == 1

    async def moved(_: str) -> str | None:
        await worker.assign(SECOND)
        raise ConnectionError

    tenants.group_of = moved  # type: ignore[method-assign,assignment]
    worker.click("t-books", "b")
    await worker.read(FIRST)
    assert (await worker.in_effect("books"))[0] == 1
    assert worker.letters == []


async def test_a_lost_erasure_is_applied_again(worker: EventWorker) -> None:
    """Redis loses it, or everything: the user is erased again, whatever partition is read first."""
    store = worker.agent.store
    event = {"eventType": "click", "itemId": "a", "sentAt": NOW_S - 100, "eventId": "e1"}
    sent = {"sessionId": "s1", "userId": "ada", "eventList": [event], "acceptedAt": NOW_S - 100}
    erased = {"erase": "shop", "userId": "ada", "acceptedAt": NOW_S - 99}
    worker.kafka.append(FIRST, json.dumps(sent).encode())
    await worker.read(FIRST)
    before = await snapshot(store)
    assert (await user_data_counts(store, "ada", now_s=NOW_S))["events"] == 1
    worker.kafka.append(SECOND, json.dumps(erased).encode())
    # A client's retry, behind the erasure: it has no effect.
    worker.kafka.append(FIRST, json.dumps(sent).encode())
    await worker.read(SECOND, FIRST)

    for kept in (before, {}):
        assert await user_data_counts(store, "ada", now_s=NOW_S) == {
            "events": 0,
            "sessions": 0,
            "links": 0,
            "records": 0,
        }
        assert "ada" not in str(await store.redis.keys())
        await restore(store, kept)
        await worker.agent.detect_losses()
        await worker.read(FIRST, SECOND)
    assert not worker.letters
    assert not any((await user_data_counts(store, "ada", now_s=NOW_S)).values())

    again = {**sent, "eventList": [{**event, "sentAt": NOW_S - 98}], "acceptedAt": NOW_S - 98}
    worker.kafka.append(FIRST, json.dumps(again).encode())
    await worker.read(FIRST)
    assert (await user_data_counts(store, "ada", now_s=NOW_S))["events"] == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"erase": "no group!", "userId": "ada", "acceptedAt": 1.7e9},
        {"erase": "shop", "acceptedAt": 1.7e9},
        {"erase": "shop", "userId": "ada"},
        {"erase": "shop", "userId": "ada", "acceptedAt": NOW_S + 1000},
    ],
)
async def test_a_broken_erasure_is_a_dead_letter(
    worker: EventWorker, broken: dict[str, object]
) -> None:
    """An erasure without a valid group, user or time erases nothing."""
    worker.send(FIRST, json.dumps(broken).encode(), "a")
    await worker.read(FIRST)

    assert [letter.reason for letter in worker.letters] == ["invalid"]
    assert await worker.in_effect() == (1, [1, -1])
