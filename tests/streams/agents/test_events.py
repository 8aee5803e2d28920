"""The sessions agent on a real Redis: what it goes back to, and what is no longer its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.store import Store, connect
from ops.embedded_servers import start_redis
from streams.agents.atomic_batches import LOOKS, Assigned, Publish, places
from streams.agents.events import EventAgent
from streams.kafka.assignment import Partition, ReadStart, first_offset, next_read
from streams.kafka.dead_letters import DeadLetter
from tests.streams.agents.simulated_kafka import SimulatedKafka

FIRST, SECOND = ("clicks", 0), ("clicks", 1)
NOW_S = 1.8e9


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@dataclass
class Worker:
    """An agent on a simulated broker."""

    sessions: EventAgent
    kafka: SimulatedKafka
    letters: list[DeadLetter] = field(default_factory=list)
    keys: set[bytes | None] = field(default_factory=set)

    async def assign(self, *partitions: Partition) -> None:
        """Give it these partitions, to read on where the store is."""
        store = self.sessions.store
        fields = [f"{topic}/{number}" for topic, number in partitions]
        found = await places(store, fields)
        assigned = {}
        for tp, name, (mark, witness) in zip(partitions, fields, found, strict=True):
            offset = max(self.kafka.of(tp).oldest, first_offset(mark, witness))
            assigned[tp] = Assigned(name, mark, ReadStart(offset, next_read()), witness)
        self.sessions.assigned(assigned)
        self.kafka.assign({tp: one.start for tp, one in assigned.items()})

    def send(self, partition: Partition, *items: str | bytes, tracking_id: str = "shop") -> None:
        """Add a click on each item to a partition; bytes as they are."""
        for item in items:
            at_s = 1.7e9 + len(self.kafka.of(partition).records)
            event = {"eventType": "click", "itemId": item, "sentAt": at_s}
            message = {
                "trackingId": tracking_id,
                "sessionId": f"s{partition[1]}",
                "eventList": [event],
            }
            raw = item if isinstance(item, bytes) else json.dumps(message).encode()
            self.kafka.append(partition, raw)

    async def read(self, *partitions: Partition) -> None:
        """Hand over what lies beyond its position in these partitions, as one batch."""
        await self.sessions.apply(self.kafka.read(*partitions))

    async def in_effect(self, group: str = "shop") -> tuple[int, list[int]]:
        """Events of a group that are in effect, and the position in each partition."""
        counts = await self.sessions.tenants.store(group).counts()
        fields = [f"{topic}/{number}" for topic, number in (FIRST, SECOND)]
        return int(counts.get("events", 0)), await self.sessions.store.watermarks(fields)


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    """A worker of two partitions on an empty store."""
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0))
    await tenants.redis.flushdb()

    async def publish(_: str, values: Sequence[bytes], key: bytes | None) -> None:
        one.keys.add(key)
        one.letters.extend(msgspec.json.decode(value, type=DeadLetter) for value in values)

    kafka = SimulatedKafka()
    one = Worker(EventAgent(tenants, publish=publish, log=kafka, clock=lambda: NOW_S), kafka)
    await one.assign(FIRST, SECOND)
    yield one
    await tenants.redis.aclose()


async def snapshot(store: Store) -> dict[bytes, bytes]:
    """Everything in Redis."""
    return {key: await store.redis.dump(key) for key in await store.redis.keys()}


async def restore(store: Store, kept: Mapping[bytes, bytes]) -> None:
    """Put Redis back to a snapshot."""
    await store.redis.flushdb()
    for key, value in kept.items():
        await store.redis.restore(key, 0, value)


async def test_what_redis_lost_of_an_idle_partition_is_read_again(worker: Worker) -> None:
    """Redis forgets effects of a partition on which nothing new arrives: they come back."""
    worker.send(FIRST, "a", "b")
    await worker.read(FIRST)
    kept = await snapshot(worker.sessions.store)
    worker.send(FIRST, "c")
    worker.send(SECOND, "x", "y")
    await worker.read(FIRST, SECOND)
    assert await worker.in_effect() == (5, [2, 1])
    await restore(worker.sessions.store, kept)
    assert await worker.in_effect() == (2, [1, -1])

    await worker.sessions.look_after()
    await worker.read(FIRST, SECOND)

    assert await worker.in_effect() == (5, [2, 1])


async def test_a_step_sees_what_redis_lost(worker: Worker) -> None:
    """A new message beyond what Redis lost waits until that has been read again."""
    worker.send(FIRST, "a", "b")
    await worker.read(FIRST)
    await restore(worker.sessions.store, {})
    worker.send(FIRST, "c")
    await worker.read(FIRST)
    assert await worker.in_effect() == (0, [-1, -1])

    await worker.read(FIRST)

    assert await worker.in_effect() == (3, [2, -1])


async def test_partitions_taken_away_in_mid_step(worker: Worker) -> None:
    """A step whose partitions go to another worker meanwhile applies and remembers nothing."""
    sessions = worker.sessions
    keep = sessions._publish

    async def moved(kind: str, values: Sequence[bytes], key: bytes | None) -> None:
        await keep(kind, values, key)
        await worker.assign(SECOND)

    sessions._publish = moved
    worker.send(FIRST, "a", b"no message", "b")
    await worker.read(FIRST)

    assert await worker.in_effect() == (0, [-1, -1])
    assert list(sessions.assignment.readings) == [SECOND]
    await sessions.look_after()

    sessions._publish = keep
    await worker.assign(FIRST, SECOND)
    await worker.read(FIRST)
    assert await worker.in_effect() == (2, [2, -1])
    assert [letter.raw() for letter in worker.letters] == [b"no message"] * 2


async def test_partitions_taken_away_while_redis_works(worker: Worker) -> None:
    """What a step brought into effect while its partitions moved on is not noted as progress."""
    store = worker.sessions.store
    run = store._run

    async def moved(payload: bytes, *, has_others: bool) -> bytes:
        answer = await run(payload, has_others=has_others)
        await worker.assign(SECOND)
        return answer

    store._run = moved  # type: ignore[method-assign]
    worker.send(FIRST, "a")
    await worker.read(FIRST)

    assert await worker.in_effect() == (1, [0, -1])
    assert list(worker.sessions.assignment.readings) == [SECOND]
    await worker.sessions.look_after()


async def test_nothing_is_accepted_in_the_future(worker: Worker) -> None:
    """A producer whose clock is ahead does not make the state look fresh for ever."""
    event = {"eventType": "click", "itemId": "lamp", "sentAt": NOW_S}
    raw = json.dumps({"sessionId": "s", "acceptedAt": NOW_S * 2, "eventList": [event]}).encode()
    worker.send(FIRST, raw)
    await worker.read(FIRST)

    assert (await worker.sessions.store.counts())["accepted_at"] == NOW_S


async def test_a_group_registered_in_mid_stream_is_known_at_once(worker: Worker) -> None:
    """Before it is registered its events are dead letters, from the next one on they count."""
    worker.send(FIRST, "a", tracking_id="t-books")
    await worker.read(FIRST)
    await worker.sessions.tenants.register("t-books", "books")
    worker.send(FIRST, "a", "b", tracking_id="t-books")
    worker.send(FIRST, "c")
    await worker.read(FIRST)

    assert (await worker.in_effect("books"))[0] == 2
    assert await worker.in_effect() == (1, [3, -1])
    (letter,) = worker.letters
    assert (letter.reason, letter.group) == ("invalid", "")
    assert "'t-books'" in letter.detail
    assert await worker.sessions.tenants.store("books").item_indexes(list("abc")) == [1, 2, 0]


async def test_a_group_erased_under_the_stream_gets_nothing(worker: Worker) -> None:
    """A worker that still takes its tracking id for known buries its events, and goes on."""
    tenants = worker.sessions.tenants
    await tenants.register("t-books", "books")
    worker.send(FIRST, "a", tracking_id="t-books")
    await worker.read(FIRST)
    # Another process erases it; this one remembers the tracking id for as long as cache_s.
    other = Tenants(tenants.redis, tenants.settings)
    await other.erase("books")
    worker.send(FIRST, "b", tracking_id="t-books")
    worker.send(FIRST, "c")
    await worker.read(FIRST)

    assert await worker.in_effect() == (1, [2, -1])
    assert await tenants.redis.keys("{books}:*") == []
    assert [letter.source.offset for letter in worker.letters] == [1]

    await other.register("t-books", "books")
    worker.send(FIRST, "d", tracking_id="t-books")
    await worker.read(FIRST)
    assert await worker.in_effect("books") == (1, [3, -1])
    assert await tenants.store("books").item_indexes(list("abd")) == [0, 0, 1]


async def test_events_of_a_removed_tracker_are_dead_letters(worker: Worker) -> None:
    """Its group stays, and those of another tracker count."""
    tenants = worker.sessions.tenants
    await tenants.register("one", "books")
    await tenants.register("two", "books")
    await tenants.remove("one")
    worker.send(FIRST, "a", tracking_id="one")
    worker.send(FIRST, "b", tracking_id="two")
    await worker.read(FIRST)

    assert await worker.in_effect("books") == (1, [1, -1])
    assert len(worker.letters) == 1


async def test_dead_letters_name_the_group(worker: Worker, redis_url: str) -> None:
    """What is invalid or too much of a group is buried in its name, and under its key."""
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0, max_items=1))
    worker.sessions = EventAgent(
        tenants,
        publish=worker.sessions._publish,
        log=worker.kafka,
        clock=lambda: NOW_S,
    )
    await worker.assign(FIRST)
    await tenants.register("t-books", "books")
    worker.send(FIRST, b'{"trackingId":"t-books","eventList":5}', b'{"eventList":5}', b"bad")
    worker.send(FIRST, "a", "b", tracking_id="t-books")
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


async def test_what_redis_lost_of_a_group_is_read_again(worker: Worker) -> None:
    """The effects of all groups come back, each once, whichever of them the lost ones were."""
    tenants = worker.sessions.tenants
    await tenants.register("t-books", "books")
    worker.send(FIRST, "a")
    worker.send(FIRST, "b", tracking_id="t-books")
    await worker.read(FIRST)
    kept = await snapshot(worker.sessions.store)
    worker.send(FIRST, "c", "d", tracking_id="t-books")
    worker.send(FIRST, "e")
    await worker.read(FIRST)
    await restore(worker.sessions.store, kept)
    worker.send(FIRST, "f", tracking_id="t-books")
    await worker.read(FIRST)
    await worker.read(FIRST)

    assert await worker.in_effect("books") == (4, [5, -1])
    assert await worker.in_effect() == (2, [5, -1])


async def test_what_kafka_no_longer_has_is_not_waited_for(worker: Worker) -> None:
    """Where the oldest of what was to be read again are gone, reading goes on with the others."""
    worker.send(FIRST, "a", "b", "c")
    await worker.read(FIRST)
    await restore(worker.sessions.store, {})
    worker.kafka.of(FIRST).oldest = 2
    await worker.sessions.look_after()
    worker.send(FIRST, "d")
    await worker.read(FIRST)

    assert await worker.in_effect() == (2, [3, -1])


@contextlib.asynccontextmanager
async def sampling(redis_url: str, publish: Publish) -> AsyncIterator[Worker]:
    """A worker of one partition, on an empty store, whose clock moves a second at each look."""
    clock = itertools.count(NOW_S)
    tenants = Tenants(connect(redis_url), Settings(cache_s=0))
    await tenants.redis.flushdb()
    kafka = SimulatedKafka()
    one = Worker(EventAgent(tenants, publish=publish, log=kafka, clock=lambda: next(clock)), kafka)
    await one.assign(FIRST)
    yield one
    await tenants.close()
    await tenants.redis.aclose()


async def test_examples_are_sent_in_the_name_of_their_group(redis_url: str) -> None:
    """Choices of every group are sampled, each against its own group's candidates."""
    sent: list[tuple[bytes | None, int]] = []

    async def publish(kind: str, values: Sequence[bytes], key: bytes | None) -> None:
        assert kind == "examples"
        sent.append((key, len(values)))

    async with sampling(redis_url, publish) as one:
        await one.sessions.tenants.register("t-books", "books")
        for item in "ab":
            one.send(FIRST, item)
            one.send(FIRST, item, tracking_id="t-books")
            await one.read(FIRST)
        assert one.sessions._offering is not None
        await one.sessions._offering

    assert sorted(sent, key=str) == [(None, 1), (b"books", 1)]


async def test_examples_of_a_moment_are_sent_together(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few messages for the broker; and none wait for one that does not answer."""
    sent: list[int] = []
    is_over, asked, answers = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def moment(_: float) -> None:
        await is_over.wait()

    async def publish(_: str, values: Sequence[bytes], __: bytes | None) -> None:
        sent.append(len(values))
        asked.set()
        await answers.wait()

    async def read(one: Worker, items: str) -> None:
        for item in items:
            one.send(FIRST, item)
            await one.read(FIRST)

    monkeypatch.setattr(asyncio, "sleep", moment)
    async with sampling(redis_url, publish) as one:
        await read(one, "abcd")
        is_over.set()
        await asked.wait()
        assert sent == [3]
        await read(one, "abcd")
        answers.set()
        assert one.sessions._offering is not None
        await one.sessions._offering
        await read(one, "a")
        await one.sessions._offering

    assert sent == [3, 1]


async def test_whose_events_these_are_is_asked_until_redis_answers(worker: Worker) -> None:
    """While Redis is away nothing is buried for being unknown; partitions that move on are left."""
    tenants = worker.sessions.tenants
    await tenants.register("t-books", "books")
    ask, failures = tenants.group_of, itertools.count()

    async def away(tracking_id: str) -> str | None:
        if next(failures) < 2:
            raise ConnectionError
        return await ask(tracking_id)

    tenants.group_of = away  # type: ignore[method-assign]
    worker.send(FIRST, "a", tracking_id="t-books")
    await worker.read(FIRST)
    assert (await worker.in_effect("books"))[0] == 1

    async def moved(_: str) -> str | None:
        await worker.assign(SECOND)
        raise ConnectionError

    tenants.group_of = moved  # type: ignore[method-assign,assignment]
    worker.send(FIRST, "b", tracking_id="t-books")
    await worker.read(FIRST)
    assert (await worker.in_effect("books"))[0] == 1
    assert worker.letters == []


async def test_two_losses_within_one_reading_again(worker: Worker) -> None:
    """What the first going back fetched does not pass for what the second asked for."""
    store, kafka = worker.sessions.store, worker.kafka
    worker.send(FIRST, *(f"a{n}" for n in range(11)))
    await worker.read(FIRST)
    at_10 = await snapshot(store)
    worker.send(FIRST, *(f"b{n}" for n in range(10)))
    await worker.read(FIRST)
    at_20 = await snapshot(store)
    worker.send(FIRST, *(f"c{n}" for n in range(20)))
    await worker.read(FIRST)

    await restore(store, at_20)
    await worker.sessions.look_after()
    kafka.fetch(FIRST)
    await restore(store, at_10)
    await worker.sessions.look_after()
    await worker.sessions.apply(kafka.deliver(FIRST))
    await worker.read(FIRST)

    assert await worker.in_effect() == (41, [40, -1])


async def test_a_batch_never_meets_an_assignment_that_is_not_its_own(worker: Worker) -> None:
    """Redis loses effects and partitions are assigned anew while a batch waits for something."""
    sessions, store = worker.sessions, worker.sessions.store
    worker.send(FIRST, *"abc")
    await worker.read(FIRST)
    kept = await snapshot(store)
    worker.send(FIRST, *"def")
    await worker.read(FIRST)
    written = sessions._examples

    for partitions in ((SECOND,), (FIRST, SECOND)):

        async def struck(
            *_: object, partitions: Sequence[Partition] = partitions
        ) -> dict[str, list[bytes]]:
            sessions._examples = written  # type: ignore[method-assign]
            await restore(store, kept)
            await worker.assign(*partitions)
            return {}

        sessions._examples = struck  # type: ignore[assignment]
        worker.send(FIRST, "g")
        await worker.read(FIRST)
        assert await worker.in_effect() == (3, [2, -1])
        await worker.assign(FIRST, SECOND)

    await worker.read(FIRST)
    assert await worker.in_effect() == (8, [7, -1])


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("lost", [2, 3, 4])
async def test_kafka_lost_its_last_messages(worker: Worker, is_running: bool, lost: int) -> None:
    """New messages at the offsets of lost ones take effect, in a running worker or a new one."""
    worker.send(FIRST, *(f"old{n}" for n in range(9)))
    await worker.read(FIRST)
    worker.kafka.lose_tail(FIRST, lost)
    worker.send(FIRST, "new0", "new1", "new2")
    if not is_running:
        await worker.assign(FIRST, SECOND)
    for _ in range(3 * LOOKS):
        await worker.read(FIRST)
        await worker.sessions.look_after()

    assert await worker.in_effect() == (12, [11 - lost, -1])
    known = await worker.sessions.store.item_indexes(["new0", "new1", "new2"])
    assert 0 not in known


async def test_kafka_lost_its_last_messages_and_nothing_is_new(worker: Worker) -> None:
    """What comes after a loss that nothing had covered takes effect, and the tail is told once."""
    worker.send(FIRST, *"abcdef")
    await worker.read(FIRST)
    worker.kafka.lose_tail(FIRST, 3)
    for _ in range(3 * LOOKS):
        await worker.sessions.look_after()
        await worker.read(FIRST)
    assert await worker.in_effect() == (6, [2, -1])
    worker.send(FIRST, "x")
    await worker.read(FIRST)

    assert await worker.in_effect() == (7, [3, -1])


async def test_a_topic_made_anew_is_not_taken_for_the_old_one(worker: Worker) -> None:
    """Its positions are loaded again; nothing of it counts under the old watermark."""
    worker.send(FIRST, *"abc")
    await worker.read(FIRST)
    worker.kafka.lose_tail(FIRST, 3)
    worker.kafka.renewed.add(FIRST)
    worker.send(FIRST, *"xyz")
    for _ in range(3):
        await worker.sessions.look_after()
        await worker.read(FIRST)

    assert worker.kafka.reloads > 0
    assert await worker.in_effect() == (3, [2, -1])


async def test_a_message_passed_over_on_its_way_is_read_again(worker: Worker) -> None:
    """Where a fetched message never arrives, the next one is not taken for its successor."""
    worker.send(FIRST, *"abcd")
    worker.kafka.fetch(FIRST)
    first, _, *others = worker.kafka.deliver(FIRST)
    await worker.sessions.apply([first, *others])
    assert await worker.in_effect() == (1, [0, -1])
    await worker.read(FIRST)

    assert await worker.in_effect() == (4, [3, -1])


async def test_an_erasure_is_applied_again_with_all_else(worker: Worker) -> None:
    """Redis loses it, or everything: the user is gone again, whatever partition is read first."""
    store = worker.sessions.store
    event = {"eventType": "click", "itemId": "a", "sentAt": NOW_S - 100, "eventId": "e1"}
    sent = {"sessionId": "s1", "userId": "ada", "eventList": [event], "acceptedAt": NOW_S - 100}
    erased = {"erase": "shop", "userId": "ada", "acceptedAt": NOW_S - 99}
    worker.kafka.append(FIRST, json.dumps(sent).encode())
    await worker.read(FIRST)
    before = await snapshot(store)
    assert (await store.user_data_counts("ada", now_s=NOW_S))["events"] == 1
    worker.kafka.append(SECOND, json.dumps(erased).encode())
    # A client's retry, and what waited: neither takes effect.
    worker.kafka.append(FIRST, json.dumps(sent).encode())
    await worker.read(SECOND, FIRST)

    for kept in (before, {}):
        assert await store.user_data_counts("ada", now_s=NOW_S) == {
            "events": 0,
            "sessions": 0,
            "links": 0,
            "records": 0,
        }
        assert "ada" not in str(await store.redis.keys())
        await restore(store, kept)
        await worker.sessions.look_after()
        await worker.read(FIRST, SECOND)
    assert not worker.letters
    assert not any((await store.user_data_counts("ada", now_s=NOW_S)).values())

    again = {**sent, "eventList": [{**event, "sentAt": NOW_S - 98}], "acceptedAt": NOW_S - 98}
    worker.kafka.append(FIRST, json.dumps(again).encode())
    await worker.read(FIRST)
    assert (await store.user_data_counts("ada", now_s=NOW_S))["events"] == 1


@pytest.mark.parametrize(
    "broken",
    [
        {"erase": "no group!", "userId": "ada", "acceptedAt": 1.7e9},
        {"erase": "shop", "acceptedAt": 1.7e9},
        {"erase": "shop", "userId": "ada"},
        {"erase": "shop", "userId": "ada", "acceptedAt": NOW_S + 1000},
    ],
)
async def test_a_broken_erasure_is_a_dead_letter(worker: Worker, broken: dict[str, object]) -> None:
    """What it would erase, and up to when, must be certain."""
    worker.send(FIRST, json.dumps(broken).encode(), "a")
    await worker.read(FIRST)

    assert [letter.reason for letter in worker.letters] == ["invalid"]
    assert await worker.in_effect() == (1, [1, -1])
