"""Exactly once under faults: the event agent on a real Redis and a simulated broker.

Faults occur between any two commands to Redis, not only between batches: partitions are reassigned,
Redis restarts with an earlier state, its append-only file is torn, Kafka loses its tail. Once the
faults end, every event of the logs is in effect once.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from models.settings import Settings
from models.state.histories import unpack_history
from streams.agents.rewinds import END_CHECKS
from streams.kafka.consuming.assignment import Partition
from tests.streams.agents.losing_redis import LosingRedis
from tests.streams.agents.simulated_kafka import SimulatedKafka
from tests.streams.agents.simulated_worker import NOW_S, Worker, events_by_item

PARTITIONS: list[Partition] = [("clicks", 0), ("clicks", 1), ("purchases", 0)]
POISON = b"no message"
SETTLING_ROUNDS = 60


class Faults(RuleBasedStateMachine):
    """Deliveries of any size, and every fault of Kafka and Redis but lost tails."""

    history_events = 100
    recent_events = 100_000

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = LosingRedis()
        # A copy without validation: no example would fill the least allowed table of newest events.
        self.options = Settings(examples_per_s=0, history_events=self.history_events).model_copy(
            update={"recent_events": self.recent_events}
        )
        self.kafka = SimulatedKafka()
        self.workers: list[Worker] = []
        self.paused: tuple[asyncio.Task[None], asyncio.Event] | None = None
        self.sent: dict[Partition, list[str]] = {partition: [] for partition in PARTITIONS}
        self.poison: set[int] = set()
        self.gone: set[str] = set()

    def do(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine; an error of the agent fails the test."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    @property
    def worker(self) -> Worker:
        """The worker that has the partitions assigned."""
        return self.workers[-1]

    @initialize()
    def begin(self) -> None:
        """One worker has all partitions."""
        self.do(self._take_over())

    async def _take_over(self) -> None:
        for worker in self.workers:
            worker.kafka = SimulatedKafka()
        self.workers.append(Worker(self.redis.url, self.options, self.kafka))
        await self.worker.assign(PARTITIONS)

    # Messages

    @rule(
        partition=st.sampled_from(PARTITIONS),
        n=st.integers(1, 4),
        late_s=st.sampled_from([0, 0, 0, 10_000]),
    )
    def send(self, partition: Partition, n: int, late_s: int) -> None:
        """New events of the partition's session, each on an item of its own; some are late."""
        for _ in range(n):
            name = f"{partition[0][0]}{partition[1]}-{len(self.sent[partition])}"
            self.sent[partition].append(name)
            self._append(partition, name, NOW_S - 50_000 + len(self.sent[partition]) - late_s)

    @rule(partition=st.sampled_from(PARTITIONS), back=st.integers(1, 5))
    def send_again(self, partition: Partition, back: int) -> None:
        """One of the last events is sent again, under the same eventId."""
        value = self._sent_before(partition, back)
        if value is not None:
            self.kafka.append(partition, value)

    @precondition(lambda self: self.recent_events >= self.history_events)
    @rule(
        partition=st.sampled_from(PARTITIONS),
        other=st.sampled_from(PARTITIONS),
        back=st.integers(1, 5),
    )
    def send_under_another_session(self, partition: Partition, other: Partition, back: int) -> None:
        """One of the last events is sent again by a client that has a new session by now."""
        value = self._sent_before(partition, back)
        if value is not None:
            self.kafka.append(other, value.replace(b'"sessionId": "s-', b'"sessionId": "t-'))

    @rule(partition=st.sampled_from(PARTITIONS), n_between=st.integers(0, 4))
    def send_late_and_again(self, partition: Partition, n_between: int) -> None:
        """An event older than all others takes effect, and its sender retries it.

        Other sessions' events come in between.
        """
        self.send(partition, 1, 10_000)
        for other in PARTITIONS:
            if other != partition and n_between:
                self.send(other, n_between, 0)
        self.do(self.worker.agent.apply(self.kafka.read(*PARTITIONS)))
        self.send_again(partition, 1)

    def _sent_before(self, partition: Partition, back: int) -> bytes | None:
        """The message of one of the last events; None if Kafka has lost it."""
        if len(self.sent[partition]) < back:
            return None
        named = f'"{self.sent[partition][-back]}"'.encode()
        records = self.kafka.of(partition).records
        return next((r.value for r in records if r and named in r.value), None)

    @rule(partition=st.sampled_from(PARTITIONS))
    def send_poison(self, partition: Partition) -> None:
        """Bytes that are no message."""
        self.kafka.append(partition, POISON)

    @rule(partition=st.sampled_from(PARTITIONS))
    def end_transaction(self, partition: Partition) -> None:
        """A marker takes an offset, at which no message arrives."""
        self.kafka.of(partition).records.append(None)

    def _append(self, partition: Partition, name: str, at_s: int) -> None:
        event = {"eventId": name, "eventType": "click", "itemId": name, "sentAt": at_s}
        session = f"s-{partition[0]}-{partition[1]}"
        self.kafka.append(
            partition, json.dumps({"sessionId": session, "eventList": [event]}).encode()
        )

    # Deliveries

    @rule(
        partition=st.sampled_from(PARTITIONS),
        fetched=st.integers(0, 5),
        arrived=st.integers(1, 5),
    )
    def deliver(self, partition: Partition, fetched: int, arrived: int) -> None:
        """Some messages are fetched, and some fetched ones arrive."""
        self.kafka.fetch(partition, fetched)
        self.do(self.worker.agent.apply(self.kafka.deliver(partition, arrived)))
        self.do(self.redis.take_snapshot())

    @rule(
        after=st.integers(0, 3),
        fault=st.sampled_from(["rebalance", "lose", "lose and rebalance", "take away"]),
        back=st.integers(0, 3),
        n_sent=st.integers(0, 2),
    )
    def deliver_and_strike(self, after: int, fault: str, back: int, n_sent: int) -> None:
        """A fault before one of the commands to Redis while a batch is applied."""
        for partition in PARTITIONS:
            self.send(partition, n_sent, 0)

        async def strike() -> None:
            if fault.startswith("lose"):
                await self.redis.lose(back)
            if fault.endswith("rebalance"):
                await self.worker.assign(PARTITIONS)
            if fault == "take away":
                await self.worker.assign(PARTITIONS[:1])

        self.worker.client.after, self.worker.client.action = after, strike
        self.do(self.worker.agent.apply(self.kafka.read(*PARTITIONS)))
        self.worker.client.action = None
        self.do(self.redis.take_snapshot())

    @rule()
    def look_after(self) -> None:
        """The agent looks for losses."""
        self.do(self.worker.agent.detect_losses())

    @rule()
    def rebalance(self) -> None:
        """The same worker is assigned all partitions again."""
        self.do(self.worker.assign(PARTITIONS))

    @precondition(lambda self: self.paused is None)
    @rule(after=st.integers(0, 2))
    def pause_and_replace(self, after: int) -> None:
        """The worker pauses in mid-batch, and another one takes over its partitions."""
        reached, gate = asyncio.Event(), asyncio.Event()

        async def stop() -> None:
            reached.set()
            await gate.wait()

        async def until_paused() -> None:
            client = self.worker.client
            client.after, client.action = after, stop
            task = asyncio.ensure_future(self.worker.agent.apply(self.kafka.read(*PARTITIONS)))
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
        """The paused worker continues with its batch, whose partitions it has lost."""
        assert self.paused is not None
        task, gate = self.paused
        self.paused = None
        gate.set()
        self.do(task)

    # Faults

    @rule(back=st.integers(0, 3))
    def lose(self, back: int) -> None:
        """Redis restarts with an earlier state."""
        self.do(self.redis.lose(back))

    @rule(partition=st.sampled_from(PARTITIONS), first=st.integers(0, 2), more=st.integers(0, 2))
    def lose_twice(self, partition: Partition, first: int, more: int) -> None:
        """Redis loses effects again before the rewind for the first loss is done."""
        self.send(partition, 4, 0)
        for _ in range(4):
            self.deliver(partition, 4, 1)

        async def twice() -> None:
            for back in (first, first + more):
                await self.redis.lose(back)
                await self.worker.agent.detect_losses()
                for each in PARTITIONS:
                    self.kafka.fetch(each, 3)

        self.do(twice())

    @rule(cut=st.integers(1, 400), twice=st.booleans())
    def tear_file(self, cut: int, twice: bool) -> None:
        """Redis dies with the end of its file torn off, and restarts once or twice."""
        self.redis.start_again(cut)
        if twice:
            self.redis.start_again(0)

    @rule(partition=st.sampled_from(PARTITIONS), cut=st.integers(1, 400))
    def tear_file_and_go_on(self, partition: Partition, cut: int) -> None:
        """Redis dies in mid-step; the step is applied again; later Redis restarts once more."""
        self.send(partition, 1, 0)
        self.do(self.worker.agent.apply(self.kafka.read(partition)))
        self.redis.start_again(cut)
        self.do(self.worker.agent.detect_losses())
        self.do(self.worker.agent.apply(self.kafka.read(partition)))
        self.redis.start_again(0)

    @rule()
    def broker_away(self) -> None:
        """Kafka does not answer while the agent wants to rewind, and then does."""

        async def away() -> None:
            self.kafka.is_away = True
            await self.redis.lose(0)
            await self.worker.agent.detect_losses()
            self.kafka.is_away = False

        self.do(away())

    # Invariant

    async def _settle(self) -> None:
        agent = self.worker.agent
        await self.worker.assign(PARTITIONS)
        for _ in range(SETTLING_ROUNDS):
            await agent.apply(self.kafka.read(*PARTITIONS))
            await agent.detect_losses()
            marks = await agent.store.watermarks([f"{t}/{n}" for t, n in PARTITIONS])
            if all(map(self._is_whole, PARTITIONS, marks)):
                return
        raise AssertionError(f"stuck at {marks}")

    def _is_whole(self, partition: Partition, mark: int) -> bool:
        """True if no message is behind the watermark, and it is not behind the end."""
        records = self.kafka.of(partition).records
        return mark < len(records) and not any(records[mark + 1 :])

    @rule()
    def all_is_in_effect_once(self) -> None:
        """Every event of the logs counts exactly once, and histories are in order."""
        if self.paused is not None:
            self.resume()
        self.do(self._settle())
        self.do(self._check())

    async def _check(self) -> None:
        store = self.worker.agent.store
        logged: Counter[str] = Counter()
        for partition in PARTITIONS:
            for offset, record in enumerate(self.kafka.of(partition).records):
                if record and record.value == POISON:
                    assert any(offset in worker.dead_lettered for worker in self.workers)
                elif record:
                    logged[json.loads(record.value)["eventList"][0]["eventId"]] += 1
        expected = dict.fromkeys(logged, 1)
        found = await events_by_item(store)
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
        """Check the invariant once more, and stop everything."""
        try:
            if self.workers:
                self.all_is_in_effect_once()
        finally:
            for worker in self.workers:
                self.do(worker.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            self.redis.stop()


class LostTails(Faults):
    """The same with lost tails.

    A worker that has lost its partitions may still hold some of the lost messages.
    """

    @rule(partition=st.sampled_from(PARTITIONS), n=st.integers(1, 6), new=st.integers(0, 8))
    def lose_tail(self, partition: Partition, n: int, new: int) -> None:
        """Kafka restarts without its last messages; new ones take their offsets."""
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
            for _ in range(2 * END_CHECKS + 1):
                self.do(self.worker.agent.detect_losses())
                self.kafka.fetch(partition)
                self.do(self.worker.agent.apply(self.kafka.deliver(partition)))


class ShortHistories(Faults):
    """The same with histories so short that late events fall out of them at once.

    The group's table of newest events is as short: only the histories detect repetitions.
    """

    history_events = 10
    recent_events = 8

    @initialize()
    def begin(self) -> None:
        """One worker has all partitions, with full histories."""
        super().begin()
        for partition in PARTITIONS:
            self.send(partition, self.history_events + 2, 0)


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
