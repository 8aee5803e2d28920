"""The contract of atomic batches on a real Redis: the same suite over both agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.tenants import Tenants
from streams.agents.rewinds import END_CHECKS
from streams.kafka.consuming.assignment import Partition
from tests.streams.agents.agent_fixtures import (
    AgentWorker,
    EventWorker,
    MetadataWorker,
    restore,
    snapshot,
)


@pytest.fixture(params=[EventWorker, MetadataWorker])
async def worker(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[AgentWorker]:
    """A worker of either agent with two partitions, on an empty store."""
    tenants = Tenants(connect(redis_url), Settings(examples_per_s=0, cache_s=0))
    await tenants.redis.flushdb()
    one: AgentWorker = request.param(tenants)
    await one.assign(one.first, one.second)
    yield one
    await tenants.redis.aclose()


class BeforeStep:
    """A `StepObserver` that acts before a step, once."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action: Callable[[], Any] | None = action
        self.steps: list[str] = []

    async def before_step(self, messages: Sequence[Any]) -> Callable[[], None]:
        """Act, if this is the first step."""
        self.steps.append(f"before {len(messages)}")
        action, self._action = self._action, None
        if action is not None:
            await action()
        return lambda: self.steps.append("after")


async def test_the_observer_sees_each_step_once(worker: AgentWorker) -> None:
    """It looks at the state before, and acts after the step is in effect."""
    seen: list[int] = []

    async def look() -> None:
        seen.append(await worker.n_in_effect())

    worker.agent.observer = BeforeStep(look)
    worker.send(worker.first, "a", b"no message", "b")
    await worker.read(worker.first)

    assert seen == [0]
    assert worker.agent.observer.steps == ["before 3", "after"]
    assert await worker.in_effect() == (2, [2, -1])


async def test_the_observer_does_not_act_after_a_step_that_ended(worker: AgentWorker) -> None:
    """Partitions that are taken away before the step is in effect end it."""

    async def move() -> None:
        await worker.assign(worker.second)

    worker.agent.observer = BeforeStep(move)
    worker.send(worker.first, "a")
    await worker.read(worker.first)

    assert worker.agent.observer.steps == ["before 1"]
    assert await worker.in_effect() == (0, [-1, -1])


async def test_lost_effects_of_an_idle_partition_are_applied_again(worker: AgentWorker) -> None:
    """Redis loses effects of a partition on which nothing new arrives: they come back."""
    first, second = worker.first, worker.second
    worker.send(first, "a", "b")
    await worker.read(first)
    kept = await snapshot(worker.agent.store)
    worker.send(first, "c")
    worker.send(second, "x", "y")
    await worker.read(first, second)
    assert await worker.in_effect() == (5, [2, 1])
    await restore(worker.agent.store, kept)
    assert await worker.in_effect() == (2, [1, -1])

    await worker.agent.detect_losses()
    await worker.read(first, second)

    assert await worker.in_effect() == (5, [2, 1])


async def test_a_step_notices_lost_effects(worker: AgentWorker) -> None:
    """A new message behind lost ones waits until they have been read again."""
    worker.send(worker.first, "a", "b")
    await worker.read(worker.first)
    await restore(worker.agent.store, {})
    worker.send(worker.first, "c")
    await worker.read(worker.first)
    assert await worker.in_effect() == (0, [-1, -1])

    await worker.read(worker.first)

    assert await worker.in_effect() == (3, [2, -1])


async def test_a_rebalance_in_mid_step_ends_it(worker: AgentWorker) -> None:
    """A step whose partitions go to another worker applies and records nothing."""
    agent, first, second = worker.agent, worker.first, worker.second
    publish = agent.dead_letters.publish

    async def publish_and_move(values: Sequence[bytes], key: bytes | None) -> None:
        await publish(values, key)
        await worker.assign(second)

    agent.dead_letters.publish = publish_and_move
    worker.send(first, "a", b"no message", "b")
    await worker.read(first)

    assert await worker.in_effect() == (0, [-1, -1])
    assert list(agent.assignment.reads) == [second]
    await agent.detect_losses()

    agent.dead_letters.publish = publish
    await worker.assign(first, second)
    await worker.read(first)
    assert await worker.in_effect() == (2, [2, -1])
    assert [letter.raw() for letter in worker.letters] == [b"no message"] * 2


async def test_a_rebalance_during_a_write_leaves_no_progress(worker: AgentWorker) -> None:
    """Effects of a step whose partitions moved meanwhile stay, and are not recorded."""
    writer: Any = worker.agent._writer
    write = writer.write

    async def write_and_move(parts: Sequence[Any]) -> Any:
        results = await write(parts)
        await worker.assign(worker.second)
        return results

    writer.write = write_and_move
    worker.send(worker.first, "a")
    await worker.read(worker.first)

    assert await worker.in_effect() == (1, [0, -1])
    assert list(worker.agent.assignment.reads) == [worker.second]
    await worker.agent.detect_losses()


async def test_messages_that_kafka_deleted_are_not_waited_for(worker: AgentWorker) -> None:
    """Where the oldest messages to read again are gone, reading goes on with the others."""
    worker.send(worker.first, "a", "b", "c")
    await worker.read(worker.first)
    await restore(worker.agent.store, {})
    worker.kafka.of(worker.first).oldest = 2
    await worker.agent.detect_losses()
    worker.send(worker.first, "d")
    await worker.read(worker.first)

    assert await worker.in_effect() == (2, [3, -1])


async def test_a_second_loss_during_a_rewind(worker: AgentWorker) -> None:
    """Messages that the first rewind fetched are not taken for those of the second."""
    store, kafka, first = worker.agent.store, worker.kafka, worker.first
    worker.send(first, *(f"a{n}" for n in range(11)))
    await worker.read(first)
    at_10 = await snapshot(store)
    worker.send(first, *(f"b{n}" for n in range(10)))
    await worker.read(first)
    at_20 = await snapshot(store)
    worker.send(first, *(f"c{n}" for n in range(20)))
    await worker.read(first)

    await restore(store, at_20)
    await worker.agent.detect_losses()
    kafka.fetch(first)
    await restore(store, at_10)
    await worker.agent.detect_losses()
    await worker.agent.apply(kafka.deliver(first))
    await worker.read(first)

    assert await worker.in_effect() == (41, [40, -1])


async def test_a_batch_is_applied_under_its_own_assignment_only(worker: AgentWorker) -> None:
    """Redis loses effects and partitions are assigned anew while a batch waits."""
    agent, first, second = worker.agent, worker.first, worker.second
    worker.send(first, *"abc")
    await worker.read(first)
    kept = await snapshot(agent.store)
    worker.send(first, *"def")
    await worker.read(first)

    for n, partitions in enumerate(((second,), (first, second))):

        async def lose_and_move(partitions: Sequence[Partition] = partitions) -> None:
            await restore(agent.store, kept)
            await worker.assign(*partitions)

        agent.observer = BeforeStep(lose_and_move)
        worker.send(first, f"g{n}")
        await worker.read(first)
        assert await worker.in_effect() == (3, [2, -1])
        await worker.assign(first, second)

    agent.observer = None
    await worker.read(first)
    assert await worker.in_effect() == (8, [7, -1])


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("lost", [2, 3, 4])
async def test_new_messages_after_a_lost_tail(
    worker: AgentWorker, is_running: bool, lost: int
) -> None:
    """Messages at the offsets of lost ones take effect, in a running worker or a new one."""
    worker.send(worker.first, *(f"old{n}" for n in range(9)))
    await worker.read(worker.first)
    worker.kafka.lose_tail(worker.first, lost)
    worker.send(worker.first, "new0", "new1", "new2")
    if not is_running:
        await worker.assign(worker.first, worker.second)
    for _ in range(3 * END_CHECKS):
        await worker.read(worker.first)
        await worker.agent.detect_losses()

    assert await worker.in_effect() == (12, [11 - lost, -1])
    assert 0 not in await worker.agent.store.item_indexes(["new0", "new1", "new2"])


async def test_a_lost_tail_without_new_messages(worker: AgentWorker) -> None:
    """The watermark goes back to the log's end, and the next message takes effect."""
    worker.send(worker.first, *"abcdef")
    await worker.read(worker.first)
    worker.kafka.lose_tail(worker.first, 3)
    for _ in range(3 * END_CHECKS):
        await worker.agent.detect_losses()
        await worker.read(worker.first)
    assert await worker.in_effect() == (6, [2, -1])
    worker.send(worker.first, "x")
    await worker.read(worker.first)

    assert await worker.in_effect() == (7, [3, -1])


async def test_a_topic_that_was_made_again_is_another(worker: AgentWorker) -> None:
    """Its positions are loaded again; nothing of it counts under the old watermark."""
    worker.send(worker.first, *"abc")
    await worker.read(worker.first)
    worker.kafka.lose_tail(worker.first, 3)
    worker.kafka.renewed.add(worker.first)
    worker.send(worker.first, *"xyz")
    for _ in range(3):
        await worker.agent.detect_losses()
        await worker.read(worker.first)

    assert worker.kafka.reloads > 0
    assert await worker.in_effect() == (3, [2, -1])


async def test_a_message_that_never_arrived_is_read_again(worker: AgentWorker) -> None:
    """Where a fetched message is lost on its way, the next one is not taken for its successor."""
    worker.send(worker.first, *"abcd")
    worker.kafka.fetch(worker.first)
    first, _, *others = worker.kafka.deliver(worker.first)
    await worker.agent.apply([first, *others])
    assert await worker.in_effect() == (1, [0, -1])
    await worker.read(worker.first)

    assert await worker.in_effect() == (4, [3, -1])


async def test_a_standing_partition_is_read_again_on_demand(worker: AgentWorker) -> None:
    """`reread` begins a new read behind the watermark, which `detect_losses` asks Kafka for."""
    worker.send(worker.first, "a", "b")
    await worker.read(worker.first)
    worker.agent.reread({worker.first})
    await worker.agent.detect_losses()

    assert worker.kafka.sought == [{worker.first: 2}]
    worker.send(worker.first, "c")
    await worker.read(worker.first)
    assert await worker.in_effect() == (3, [2, -1])
