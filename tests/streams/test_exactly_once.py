"""Exactly once, whatever happens: the sessions agent on a real Redis and a simulated broker.

Faults strike between any two commands to Redis, not only between batches: partitions are assigned
anew, Redis falls back to an earlier state, its append-only file is torn, Kafka loses its end. When
all is quiet again, every event of the logs is in effect once.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.reads import Client
from models.sessions import unpack_history
from models.settings import Settings
from models.store import Store, connect
from models.tenants import Tenants
from ops.embedded import Server, start_redis
from streams.assignment import Partition, Start, Witness, next_read
from streams.dead_letters import DeadLetter
from streams.sessions import Sessions
from streams.steps import LOOKS, Assigned, first_offset
from tests.streams.simulated_kafka import SimulatedKafka

PARTITIONS: list[Partition] = [("clicks", 0), ("clicks", 1), ("purchases", 0)]
NOW_S = 1_790_000_000
POISON = b"no message"
SETTLING_ROUNDS = 60

Action = Callable[[], Awaitable[None]]


class Struck(Client):
    """A client of Redis that lets something happen between two of its commands."""

    after: int = -1
    action: Action | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Do what the client does; at the chosen command, let it happen before."""
        if self.action is not None:
            self.after -= 1
            if self.after < 0:
                action, self.action = self.action, None
                await action()
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class Waiting(Sessions):
    """The agent, which asks Redis for something between the arrival of a batch and its step."""

    async def _examples(self, *_: object) -> dict[str, list[bytes]]:
        await self.store.redis.exists("nothing")
        return {}


class Worker:
    """One worker process: an agent, and the partitions that the broker thinks it has."""

    def __init__(self, url: str, options: Settings, kafka: SimulatedKafka) -> None:
        self.client: Any = Struck.from_url(url, retry=Retry(NoBackoff(), 1), socket_timeout=10)
        self.tenants = Tenants(self.client, options)
        self.kafka = kafka
        self.buried: list[int] = []
        self.sessions = Sessions(self.tenants, publish=self.publish, log=kafka, clock=lambda: NOW_S)

    async def publish(self, _: str, values: Sequence[bytes], __: bytes | None) -> None:
        """Keep dead letters."""
        letters = [msgspec.json.decode(value, type=DeadLetter) for value in values]
        self.buried += [letter.source.offset for letter in letters]

    async def assign(self, partitions: Sequence[Partition]) -> None:
        """Begin where the store is, as a worker does at an assignment."""
        store = self.sessions.store
        fields = [f"{topic}/{number}" for topic, number in partitions]
        marks, found = await store.watermarks(fields), await store.witnesses(fields)
        assigned = {}
        for partition, name, mark, kept in zip(partitions, fields, marks, found, strict=True):
            witness = None if kept is None else Witness(*kept)
            start = Start(first_offset(mark, witness), next_read())
            assigned[partition] = Assigned(name, mark, start, witness)
        self.sessions.assigned(assigned)
        self.kafka.assign({partition: one.start for partition, one in assigned.items()})

    async def close(self) -> None:
        """Let go of Redis."""
        await self.client.aclose()


class Faults(RuleBasedStateMachine):
    """Deliveries of any size, and every fault that Kafka and Redis may have."""

    history_events = 100

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.server: Server = start_redis(Path(self.folder.name))
        self.options = Settings(examples_per_s=0, history_events=self.history_events)
        self.kafka = SimulatedKafka()
        self.workers: list[Worker] = []
        self.paused: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self.snapshots: list[dict[bytes, bytes]] = []
        self.sent: dict[Partition, list[str]] = {partition: [] for partition in PARTITIONS}
        self.poison: set[int] = set()
        self.gone: set[str] = set()

    def do(self, work: Awaitable[Any]) -> Any:
        """The result of a coroutine; a fault of the agent is a fault of the test."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @property
    def worker(self) -> Worker:
        """The worker that has the partitions now."""
        return self.workers[-1]

    @initialize()
    def begin(self) -> None:
        """One worker has all partitions."""
        self.do(self._take_over())

    async def _take_over(self) -> None:
        for worker in self.workers:
            worker.kafka = SimulatedKafka()
        self.workers.append(Worker(self.server.url, self.options, self.kafka))
        await self.worker.assign(PARTITIONS)

    # What is sent

    @rule(
        partition=st.sampled_from(PARTITIONS),
        n=st.integers(1, 4),
        late_s=st.sampled_from([0, 0, 0, 10_000]),
    )
    def send(self, partition: Partition, n: int, late_s: int) -> None:
        """New events of the partition's session, each on an item of its own; some come late."""
        for _ in range(n):
            name = f"{partition[0][0]}{partition[1]}-{len(self.sent[partition])}"
            self.sent[partition].append(name)
            self._append(partition, name, NOW_S - 50_000 + len(self.sent[partition]) - late_s)

    @rule(partition=st.sampled_from(PARTITIONS), back=st.integers(1, 5))
    def send_again(self, partition: Partition, back: int) -> None:
        """One of the last events is sent again, under the same eventId."""
        if len(self.sent[partition]) >= back:
            name = self.sent[partition][-back]
            records = self.kafka.of(partition).records
            held = (r.value for r in records if r and name.encode() in r.value)
            value = next(held, None)
            if value is not None:
                self.kafka.append(partition, value)

    @rule(partition=st.sampled_from(PARTITIONS))
    def send_late_and_again(self, partition: Partition) -> None:
        """An event older than all others takes effect; a sender that did not hear of it repeats."""
        self.send(partition, 1, 10_000)
        self.do(self.worker.sessions.apply(self.kafka.read(partition)))
        self.send_again(partition, 1)

    @rule(partition=st.sampled_from(PARTITIONS))
    def send_poison(self, partition: Partition) -> None:
        """What is no message."""
        self.kafka.append(partition, POISON)

    def _append(self, partition: Partition, name: str, at_s: int) -> None:
        event = {"eventId": name, "eventType": "click", "itemId": name, "sentAt": at_s}
        session = f"s-{partition[0]}-{partition[1]}"
        self.kafka.append(
            partition, json.dumps({"sessionId": session, "eventList": [event]}).encode()
        )

    # What arrives

    @rule(
        partition=st.sampled_from(PARTITIONS),
        fetched=st.integers(0, 5),
        arrived=st.integers(1, 5),
    )
    def deliver(self, partition: Partition, fetched: int, arrived: int) -> None:
        """Some messages are fetched, and some that were fetched before arrive."""
        self.kafka.fetch(partition, fetched)
        self.do(self.worker.sessions.apply(self.kafka.deliver(partition, arrived)))
        self.take_snapshot()

    @rule(
        after=st.integers(0, 3),
        fault=st.sampled_from(["rebalance", "lose", "lose and rebalance", "take away"]),
        back=st.integers(0, 3),
    )
    def deliver_and_strike(self, after: int, fault: str, back: int) -> None:
        """While a batch is applied, before one of the commands to Redis, a fault strikes."""

        async def strike() -> None:
            if fault.startswith("lose"):
                await self._lose(back)
            if fault.endswith("rebalance"):
                await self.worker.assign(PARTITIONS)
            if fault == "take away":
                await self.worker.assign(PARTITIONS[:1])

        self.worker.client.after, self.worker.client.action = after, strike
        self.do(self.worker.sessions.apply(self.kafka.read(*PARTITIONS)))
        self.worker.client.action = None

    @rule()
    def look_after(self) -> None:
        """The agent looks whether something was lost."""
        self.do(self.worker.sessions.look_after())

    @rule()
    def rebalance(self) -> None:
        """The same worker gets all partitions anew."""
        self.do(self.worker.assign(PARTITIONS))

    @precondition(lambda self: self.paused is None)
    @rule(after=st.integers(0, 2))
    def pause_and_replace(self, after: int) -> None:
        """The worker stops in mid-batch; another gets its partitions."""
        reached, gate = asyncio.Event(), asyncio.Event()

        async def stop() -> None:
            reached.set()
            await gate.wait()

        async def until_paused() -> None:
            client = self.worker.client
            client.after, client.action = after, stop
            task = asyncio.ensure_future(self.worker.sessions.apply(self.kafka.read(*PARTITIONS)))
            waiting = asyncio.ensure_future(reached.wait())
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            client.action = None
            self.paused = (task, gate)
            await self._take_over()

        self.do(until_paused())

    @precondition(lambda self: self.paused is not None)
    @rule()
    def resume(self) -> None:
        """The worker that was stopped goes on with its batch, and learns that it has nothing."""
        assert self.paused is not None
        task, gate = self.paused
        self.paused = None
        gate.set()
        self.do(task)

    # What breaks

    def take_snapshot(self) -> None:
        """Remember the state of Redis."""

        async def take() -> None:
            redis: Any = connect(self.server.url)
            keys = await redis.keys()
            pipe = redis.pipeline(transaction=False)
            for key in keys:
                pipe.dump(key)
            self.snapshots.append(dict(zip(keys, await pipe.execute(), strict=True)))
            del self.snapshots[:-8]
            await redis.aclose()

        self.do(take())

    async def _lose(self, back: int) -> None:
        if len(self.snapshots) <= back:
            return
        redis = connect(self.server.url)
        pipe = redis.pipeline(transaction=False)
        pipe.flushall()
        for key, value in self.snapshots[-1 - back].items():
            pipe.restore(key, 0, value)
        await pipe.execute()
        await redis.aclose()

    @rule(back=st.integers(0, 3))
    def lose(self, back: int) -> None:
        """Redis is back at an earlier state."""
        self.do(self._lose(back))

    @rule(first=st.integers(0, 2), second=st.integers(0, 3))
    def lose_twice(self, first: int, second: int) -> None:
        """Redis is back at an earlier state, and again before what was lost has arrived."""

        async def twice() -> None:
            for back in (first, second):
                await self._lose(back)
                await self.worker.sessions.look_after()
                for partition in PARTITIONS:
                    self.kafka.fetch(partition, 3)

        self.do(twice())

    @rule(cut=st.integers(1, 400), twice=st.booleans())
    def tear_file(self, cut: int, twice: bool) -> None:
        """Redis dies, and the end of its file with it; maybe it starts twice."""
        self.server.process.kill()
        self.server.process.wait()
        folder = Path(self.folder.name)
        files = [p for p in folder.rglob("*.aof") if ".base" not in p.name]
        newest = max(files, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        os.truncate(newest, max(0, newest.stat().st_size - cut))
        self.server = start_redis(folder, port=self.server.port)
        if twice:
            self.server.process.kill()
            self.server.process.wait()
            self.server = start_redis(folder, port=self.server.port)
        # What a snapshot holds of later steps is not what the server would come back with.
        self.snapshots.clear()

    @rule()
    def broker_away(self) -> None:
        """Kafka does not answer while the agent wants to go back, and then does."""

        async def away() -> None:
            self.kafka.is_away = True
            await self._lose(0)
            await self.worker.sessions.look_after()
            self.kafka.is_away = False

        self.do(away())

    # What must be

    async def _settle(self) -> None:
        sessions = self.worker.sessions
        await self.worker.assign(PARTITIONS)
        for _ in range(SETTLING_ROUNDS):
            await sessions.apply(self.kafka.read(*PARTITIONS))
            await sessions.look_after()
            marks = await sessions.store.watermarks([f"{t}/{n}" for t, n in PARTITIONS])
            ends = [len(self.kafka.of(partition).records) - 1 for partition in PARTITIONS]
            if marks == ends:
                return
        raise AssertionError(f"stuck at {marks}, the logs end at {ends}")

    @rule()
    def all_is_in_effect_once(self) -> None:
        """Every event of the logs counts once, none more than once, and histories are in order."""
        if self.paused is not None:
            self.resume()
        self.do(self._settle())
        self.do(self._check())

    async def _check(self) -> None:
        store = self.worker.sessions.store
        logged: Counter[str] = Counter()
        for partition in PARTITIONS:
            for offset, record in enumerate(self.kafka.of(partition).records):
                if record and record.value == POISON:
                    assert any(offset in worker.buried for worker in self.workers)
                elif record:
                    logged[json.loads(record.value)["eventList"][0]["eventId"]] += 1
        expected = dict.fromkeys(logged, 1)
        found = await _events_by_item(store)
        assert {name: found.get(name, 0) for name in expected} == expected
        assert {name: n for name, n in found.items() if n > 1} == {}
        assert found.keys() - expected.keys() <= self.gone
        counts = await store.counts()
        assert int(counts.get("events", 0)) == sum(found.values())
        for partition in PARTITIONS:
            raw = await store.redis.get(store.key(f"history:s:s-{partition[0]}-{partition[1]}"))
            times = unpack_history(raw).times.tolist()
            assert times == sorted(times)

    def teardown(self) -> None:
        """The last look, and everything ends."""
        try:
            if self.workers:
                self.all_is_in_effect_once()
        finally:
            for worker in self.workers:
                self.do(worker.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.server.stop()
            self.folder.cleanup()


class LostTails(Faults):
    """And Kafka may lose the last messages of a partition."""

    @rule(partition=st.sampled_from(PARTITIONS), n=st.integers(1, 6), new=st.integers(0, 8))
    def lose_tail(self, partition: Partition, n: int, new: int) -> None:
        """Kafka starts again without its last messages; new ones take their offsets."""
        records = self.kafka.of(partition).records
        lost = {
            json.loads(r.value)["eventList"][0]["eventId"]
            for r in records[-n:]
            if r and r.value != POISON
        }
        self.kafka.lose_tail(partition, n)
        self.gone |= lost
        if new:
            self.send(partition, new, 0)
        else:
            for _ in range(2 * LOOKS + 1):
                self.do(self.worker.sessions.look_after())
                self.kafka.fetch(partition)
                self.do(self.worker.sessions.apply(self.kafka.deliver(partition)))


class ShortHistories(Faults):
    """And histories hold so few events that late ones fall out of them at once."""

    history_events = 10

    @initialize()
    def begin(self) -> None:
        """One worker has all partitions, and their histories are full."""
        super().begin()
        for partition in PARTITIONS:
            self.send(partition, self.history_events + 2, 0)


async def _events_by_item(store: Store) -> dict[str, int]:
    items = await store.redis.hgetall(store.key("items"))
    pages: dict[int, bytes] = {}
    found = {}
    for name, raw in items.items():
        page, place = divmod(int(raw), 64)
        if page not in pages:
            pages[page] = await store.redis.get(store.key(f"stats:{page}")) or b""
        found[name.decode()] = int.from_bytes(pages[page][48 * place : 48 * place + 4], "little")
    return {name: n for name, n in found.items() if n}


BOUNDS = settings(
    max_examples=int(os.environ.get("STORM_EXAMPLES", "6")),  # a run with 200 takes minutes
    stateful_step_count=30,
    phases=(Phase.generate,) if "STORM_UNSHRUNK" in os.environ else tuple(Phase),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestFaults = Faults.TestCase
TestFaults.settings = BOUNDS
TestLostTails = LostTails.TestCase
TestLostTails.settings = BOUNDS
TestShortHistories = ShortHistories.TestCase
TestShortHistories.settings = BOUNDS
