"""Odd messages stop no agent: each becomes one dead letter, and the next one takes effect."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from models import events, metadata_records
from models.errors import InvalidEvent, InvalidRecord
from models.ranking.examples import Example, compared_orders, encode, is_example
from models.ranking.features import FEATURES
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.catalogue.metadata import record_entry
from models.state.clients.client import connect
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.events import event_agent
from streams.agents.learning.example_sampling import ExampleSampler
from streams.agents.learning.ranker import GroupLearners
from streams.agents.metadata import metadata_agent
from streams.agents.rewinds import AssignedPartition
from streams.forwarding.app import read_message
from streams.forwarding.erasures import KnownErasures
from streams.forwarding.sink_calls import pending, plan_calls
from streams.kafka.consuming.assignment import ReadStart, ReceivedMessage, next_read
from streams.kafka.dead_letters import DeadLetter, Origin, envelope
from tests.streams.agents.odd_messages import (
    KEYS,
    ODD_EVENTS,
    ODD_RECORDS,
    TIMES_MS,
    good_event,
    odd_examples,
)
from tests.streams.agents.simulated_kafka import SimulatedKafka

NOW_S = 1_790_000_000.0
SETTINGS = Settings(
    group="shop",
    tracking_id="shop",
    examples_per_s=1000,
    cache_s=0,
    forward_tracking_id="real-tracker",
)
BROKER_TAKES_BYTES = 1_048_588 - 100
"""A broker's default limit of a batch, less the overhead beside the value of its record."""

EXAMPLES = settings(max_examples=60, deadline=None)


class Odd(NamedTuple):
    """A message as Kafka may deliver it."""

    value: bytes
    key: bytes
    timestamp_ms: int


ODD_CLICKS = st.lists(st.builds(Odd, ODD_EVENTS, KEYS, TIMES_MS), min_size=1, max_size=6)
ODD_ITEMS = st.lists(st.builds(Odd, ODD_RECORDS, KEYS, TIMES_MS), min_size=1, max_size=6)


class DeadLetters:
    """Offsets of the dead letters that were produced."""

    def __init__(self) -> None:
        self.offsets: Counter[int] = Counter()

    async def publish(self, values: Sequence[bytes], key: bytes | None) -> None:
        """Count letters by offset; each must be valid, and fit into a batch."""
        for value in values:
            assert len(value) + len(key or b"") < BROKER_TAKES_BYTES
            self.offsets[msgspec.json.decode(value, type=DeadLetter).source.offset] += 1


async def ignore(_: Sequence[bytes], __: bytes | None) -> None:
    """Produce training examples nowhere."""


async def applied(agent: AtomicBatches[Any], topic: str, odd: list[Odd], good: Odd) -> None:
    """Apply the messages, and a valid one behind them."""
    number = next_read()
    start = ReadStart(0, number)
    agent.assign({(topic, 0): AssignedPartition(f"{number}/0", -1, start)})
    await agent.apply(
        ReceivedMessage(topic, 0, offset, one.value, one.key, one.timestamp_ms, number, offset - 1)
        for offset, one in enumerate([*odd, good])
    )
    assert agent.assignment.reads[topic, 0].applied == len(odd)


@given(odd=ODD_CLICKS)
@EXAMPLES
def test_events(redis_url: str, odd: list[Odd]) -> None:
    """The event agent, which also makes examples of the valid ones."""

    async def check() -> None:
        kept, tenants = DeadLetters(), Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        sampler = ExampleSampler(Recommenders(tenants), publish=ignore, clock=lambda: NOW_S)
        agent = event_agent(
            tenants,
            publish=kept.publish,
            log=SimulatedKafka(),
            clock=lambda: NOW_S,
            observer=sampler,
        )
        await applied(agent, "clicks", odd, Odd(good_event(0), b"good", 0))
        assert kept.offsets == Counter(n for n, one in enumerate(odd) if not is_event(one.value))
        assert (await agent.store.item_indexes(["good"]))[0] > 0
        await sampler.flush()
        await tenants.redis.aclose()

    asyncio.run(check())


def is_event(raw: bytes) -> bool:
    """True if the message is valid and of a known tracking id."""
    try:
        if events.parse_erasure(raw, now_s=NOW_S, future_limit_s=300) is not None:
            return True
        return events.parse(raw, now_s=NOW_S).tracking_id in {None, "shop"}
    except InvalidEvent:
        return False


@given(odd=ODD_ITEMS, topic=st.sampled_from(["items", "users"]))
@EXAMPLES
def test_records(redis_url: str, odd: list[Odd], topic: Any) -> None:
    """The metadata agent."""
    good = {"group": "shop", "itemId": "good", "userId": "good", "at": NOW_S, "properties": {}}

    async def check() -> None:
        kept, tenants = DeadLetters(), Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        agent = metadata_agent(
            tenants, publish=kept.publish, log=SimulatedKafka(), clock=lambda: NOW_S
        )
        await applied(agent, topic, odd, Odd(json.dumps(good).encode(), b"shop/good", 0))
        wrong = [n for n, one in enumerate(odd) if not is_record(topic, one)]
        assert kept.offsets == Counter(wrong)
        await tenants.redis.aclose()

    asyncio.run(check())


def is_record(kind: metadata_records.RecordKind, odd: Odd) -> bool:
    """True if the message is valid and of an existing group."""
    try:
        found = metadata_records.parse_record(kind, odd.key, odd.value, now_s=NOW_S)
        record_entry(0, kind, found, own_group="shop")
    except InvalidRecord:
        return False
    return found.group == "shop"


@given(
    raws=st.lists(
        st.one_of(
            odd_examples(n_features=len(FEATURES), rivals=compared_orders()), st.binary(max_size=60)
        ),
        min_size=1,
        max_size=6,
    ),
    key=KEYS,
)
@EXAMPLES
def test_examples(redis_url: str, raws: list[bytes], key: bytes) -> None:
    """The ranker agent, whose measures stay finite and can be saved."""
    rows = bytes(2 * 2 * len(FEATURES))
    good = encode(
        Example(len(FEATURES), {"interactions": dict.fromkeys(compared_orders(), 1)}, rows)
    )

    async def check() -> None:
        tenants = Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        learners = GroupLearners(tenants)
        await learners.load("examples/0")
        arrivals = [ReceivedMessage("examples", 0, n, raw, key) for n, raw in enumerate(raws)]
        behind = ReceivedMessage("examples", 0, len(raws), good, b"")
        spoiled = await learners.learn([*arrivals, behind])
        wrong = [arrival for arrival in arrivals if not is_example(arrival.value)]
        assert Counter(one.offset for one in spoiled) == Counter(one.offset for one in wrong)
        for one in spoiled:
            letter = envelope(
                "ranker", "invalid", "x", one[:3], one.value, key=one.key, now_s=NOW_S
            )
            assert msgspec.json.decode(letter, type=DeadLetter).source == Origin(*one[:3])
        await learners.save()
        assert learners.saved == len(raws)
        course = learners._own.learners["interactions"]
        for means in course.scoreboard.means.values():
            assert all(0 <= value <= 1 for value in means.values())
        await tenants.redis.aclose()

    asyncio.run(check())


@given(odd=ODD_CLICKS)
@EXAMPLES
def test_forwarding(odd: list[Odd]) -> None:
    """The forwarder: each message is skipped, or has calls to make."""
    # An erasure is recorded without asking Redis.
    erasures = KnownErasures(SETTINGS, connect("redis://127.0.0.1:1"))
    read = [
        read_message(as_faust(n, one), SETTINGS, erasures, NOW_S)
        for n, one in enumerate([*odd, Odd(good_event(0), b"good", 0)])
    ]
    for message, one in zip(read, odd, strict=False):
        assert (message.put is None) or is_event(one.value)
    calls = [call for session in plan_calls(pending(read)) for call in session]
    assert any(each.event.event_id == "good0" for call in calls for each in call)


def as_faust(offset: int, odd: Odd) -> Any:
    """A message as Faust delivers it."""
    place = SimpleNamespace(
        topic="clicks", partition=0, offset=offset, timestamp=odd.timestamp_ms / 1000
    )
    return SimpleNamespace(message=place, value=odd.value, key=odd.key)
