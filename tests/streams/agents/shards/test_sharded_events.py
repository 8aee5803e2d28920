"""A worker of a group of several shards that dies between any two of its commands.

Each command to Redis and each publication is an occasion: the worker ends there, and another one
goes on from what Redis and Kafka have. What is left in outboxes is sent again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import REGISTRY
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part, StoredMessage
from models.state.shards.reached_marks import ReachedMarks
from models.state.shards.shard_names import mark_field
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.sharded_store import ShardedStore
from models.state.tenants import Tenants
from streams.agents.events import EventCodec, event_agent
from streams.agents.rewinds import AssignedPartition, stored_positions
from streams.agents.shards.deltas import delta_agent
from streams.agents.shards.outboxes import Outboxes
from streams.agents.shards.sharded_events import LearningAhead, ShardedEventWriter
from streams.kafka.consuming.assignment import (
    Partition,
    ReadStart,
    ReceivedMessage,
    first_offset,
    next_read,
)
from tests.models.state.reference import NOW, Reference
from tests.models.state.shards.sharded_reference import assert_same_shards
from tests.streams.agents.simulated_kafka import SimulatedKafka
from tests.streams.agents.simulated_worker import FaultyClient

SHARDS = 2
CLICKS: Partition = ("clicks", 0)
SESSION_DELTAS: list[Partition] = [("deltas.u", number) for number in range(SHARDS)]
ITEM_DELTAS: list[Partition] = [("deltas.i", number) for number in range(SHARDS)]
OPTIONS = Settings(shards=SHARDS, outcomes=False, group="h", tracking_id="h", history_events=20)


class Killed(BaseException):
    """The end of a worker process."""


class Worker:
    """One worker process: the agents of both hops, on a simulated broker."""

    def __init__(
        self,
        url: str,
        kafka: SimulatedKafka,
        steps: type[ShardedSteps] = ShardedSteps,
        options: Settings = OPTIONS,
    ) -> None:
        self.client: Any = FaultyClient.from_url(
            url, retry=Retry(NoBackoff(), 1), socket_timeout=10
        )
        self.kafka = kafka
        self.left = -1
        tenants = Tenants(self.client, options)
        self.codec = EventCodec(tenants, lambda: NOW)
        self.steps = steps(self.client, options, shards=SHARDS)
        self.letters: list[bytes] = []
        self.events = event_agent(
            tenants,
            publish=self.keep,
            log=kafka,
            clock=lambda: NOW,
            writer=ShardedEventWriter(self.steps, self.publish, lambda: NOW),
        )
        self.sessions, self.items = (
            delta_agent(
                kind,
                tenants,
                self.steps,
                publish=self.keep,
                publish_deltas=self.publish,
                log=kafka,
                clock=lambda: NOW,
            )
            for kind in ("u", "i")
        )
        self.outboxes = Outboxes(self.steps, self.publish)

    async def keep(self, values: Sequence[bytes], _: bytes | None) -> None:
        """Keep dead letters, of which there are none."""
        self.letters += values

    async def publish(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Append to the topics of deltas; names are given as soon as they are asked for."""
        for name, value in values:
            await self.die_here()
            partition = (f"deltas.{name[0]}", int(name[1:]))
            self.kafka.append(partition, value)
            await self.die_here()
        await self.apply_items()

    async def die_here(self) -> None:
        """End the process, if this is the chosen place."""
        self.client.after -= 1
        if self.client.action is not None and self.client.after < 0:
            await self.client.action()

    async def apply_items(self) -> None:
        """Apply what there is for item shards."""
        await self.items.apply(self.kafka.read(*ITEM_DELTAS))

    async def assign(self) -> None:
        """Assign all partitions at the store's positions."""
        fields = {CLICKS: "clicks/0"}
        fields |= {one: mark_field("u", "cluster/topic", one[1]) for one in SESSION_DELTAS}
        fields |= {one: mark_field("i", "cluster/topic", one[1]) for one in ITEM_DELTAS}
        found = await stored_positions(self.events.store, [*fields.values()])
        assigned = {}
        for (partition, name), (mark, witness) in zip(fields.items(), found, strict=True):
            start = ReadStart(first_offset(mark, witness), next_read())
            assigned[partition] = AssignedPartition(name, mark, start, witness)
        for agent, partitions in (
            (self.events, [CLICKS]), (self.sessions, SESSION_DELTAS), (self.items, ITEM_DELTAS),
        ):  # fmt: skip
            agent.assign({one: assigned[one] for one in partitions})
        self.kafka.assign({partition: one.start for partition, one in assigned.items()})

    async def settle(self) -> None:
        """Everything in effect, and every outbox empty."""
        for _ in range(30):
            await self.events.apply(self.kafka.read(CLICKS))
            await self.sessions.apply(self.kafka.read(*SESSION_DELTAS))
            await self.apply_items()
            for agent in (self.events, self.sessions, self.items):
                await agent.detect_losses()
            await self.outboxes.look(range(SHARDS))
            names = [f"{kind}{number:02d}" for kind in "ui" for number in range(SHARDS)]
            sizes = [await self.steps.outbox_sizes(shard, names) for shard in range(SHARDS)]
            if not any(map(sum, sizes)) and self.kafka.of(CLICKS).position >= len(
                self.kafka.of(CLICKS).records
            ):
                return
        raise AssertionError(f"outboxes still have {sizes}")


def messages() -> list[bytes]:
    """Two users whose sessions are on the other shard, logins, an undone event and an erasure."""
    numbers = itertools.count()

    def message(session: str, *items: str, user: str = "", **more: Any) -> bytes:
        events = [
            {
                "eventType": "click", "itemId": item, "sentAt": NOW - 100 + (n := next(numbers)),
                "eventId": f"e{n}", **more,
            }
            for item in items
        ]  # fmt: skip
        owner = {"userId": user} if user else {}
        sent = {
            "trackingId": "h",
            "sessionId": session,
            "acceptedAt": NOW - 50,
            "eventList": events,
        }
        return json.dumps(sent | owner).encode()

    return [
        message("s1", "a", "b", user="u1"),
        message("s2", "b", "c"),
        message("s2", "a", user="u2"),
        message("s2", "d"),
        message("s3", "c", "a", user="u1", eventType="purchase"),
        b'{"erase":"h","userId":"u2","acceptedAt":%d.0}' % (NOW - 40),
        message("s1", "d"),
    ]


async def reference_of(worker: Worker) -> Reference:
    """What the messages lead to."""
    found = Reference(limit=20)
    for offset, value in enumerate(messages()):
        one = await worker.codec.decode(ReceivedMessage(*CLICKS, offset, value))
        found.apply([Part("p/0", -1, [one])])
    return found


async def run(url: str, after: int) -> bool:
    """One stream, with a worker that dies after so many occasions; False if there are not as many.

    Each message is in effect before the next: their order is that of one shard.
    """
    kafka = SimulatedKafka()
    workers: list[Worker] = []

    async def kill() -> None:
        workers[-1].client.action = None
        raise Killed

    async def start() -> Worker:
        one = Worker(url, kafka)
        workers.append(one)
        await one.assign()
        return one

    try:
        worker = await start()
        worker.client.after, worker.client.action = after, kill
        for value in messages():
            kafka.append(CLICKS, value)
            try:
                await worker.settle()
            except Killed:
                worker = await start()
                await worker.settle()
        has_died = len(workers) > 1
        worker.client.action = None
        await assert_same_shards(worker.steps, await reference_of(worker), owners_are_same=False)
        assert not any(one.letters for one in workers)
        store = ShardedStore(worker.client, OPTIONS)
        assert await ReachedMarks(store).read(["clicks/0"]) == [len(messages()) - 1]
        return has_died
    finally:
        await workers[-1].client.flushdb()
        for one in workers:
            await one.client.aclose()


async def test_a_worker_that_dies_anywhere_loses_and_doubles_nothing(redis_url: str) -> None:
    """Between commands, before and behind publications; every so many of the places."""
    after = 0
    while await run(redis_url, after):
        after += 29
    assert after > 100


async def test_a_shard_that_falls_back_is_noticed(redis_url: str) -> None:
    """Its watermark is behind the others': its messages are applied again, and only its."""
    kafka = SimulatedKafka()
    worker = Worker(redis_url, kafka)
    async with connect(redis_url) as client:
        await worker.assign()
        for value in messages()[:3]:
            kafka.append(CLICKS, value)
        await worker.settle()
        keys = [key async for key in client.scan_iter(match="{h/u01}*")]
        before = {key: await client.dump(key) for key in keys}
        for value in messages()[3:]:
            kafka.append(CLICKS, value)
        await worker.settle()
        keys = [key async for key in client.scan_iter(match="{h/u01}*")]
        await asyncio.gather(*map(client.delete, keys))
        await asyncio.gather(*(client.restore(key, 0, raw or b"") for key, raw in before.items()))
        await worker.settle()
        await assert_same_shards(worker.steps, await reference_of(worker), owners_are_same=False)
        await client.flushdb()
    await worker.client.aclose()


async def test_what_is_no_delta_is_a_dead_letter_of_its_shards(redis_url: str) -> None:
    """A message that somebody else wrote is counted under the words of the other metrics."""
    kafka = SimulatedKafka()
    worker = Worker(redis_url, kafka)
    name = "recommender_deltas_dead_total"
    before = {of: REGISTRY.get_sample_value(name, {"kind": of}) for of in ("sessions", "items")}
    await worker.assign()
    kafka.append(SESSION_DELTAS[0], b"no delta")
    kafka.append(ITEM_DELTAS[1], b"nor this")
    await worker.settle()
    assert len(worker.letters) == 2
    for of, count in before.items():
        assert REGISTRY.get_sample_value(name, {"kind": of}) == (count or 0) + 1
    await worker.client.flushdb()
    await worker.client.aclose()


async def test_names_are_learned_while_the_state_is_looked_at(redis_url: str) -> None:
    """An observer that ends only once a new item's index was asked for; the step knows it then."""
    kafka = SimulatedKafka()
    worker = Worker(redis_url, kafka)
    await worker.assign()
    one = await worker.codec.decode(ReceivedMessage(*CLICKS, 0, messages()[0]))
    was_asked, n_published = asyncio.Event(), 0

    async def publish(values: Sequence[tuple[str, bytes]]) -> None:
        nonlocal n_published
        n_published += 1
        await worker.publish(values)
        was_asked.set()

    class Observer:
        async def before_step(self, _: Sequence[StoredMessage]) -> Callable[[], None]:
            await was_asked.wait()
            return was_asked.clear

    writer = ShardedEventWriter(worker.steps, publish, lambda: NOW)
    then = await LearningAhead(Observer(), writer).before_step([one])
    then()
    assert not was_asked.is_set()
    assert n_published == 1
    await writer.learn([one])
    assert n_published == 1
    await worker.client.flushdb()
    await worker.client.aclose()
