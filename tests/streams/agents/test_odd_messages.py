"""Whatever a message holds: no agent ends, the next one takes effect, it has one dead letter."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import events, metadata_records
from models.errors import InvalidEvent, InvalidRecord
from models.ranking.examples import COMPARED, Example, encode, is_example
from models.ranking.features import FEATURES
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.metadata import record_entry
from models.state.store import connect
from ops.embedded_servers import start_redis
from streams.agents.atomic_batches import Assigned, AtomicBatches
from streams.agents.events import EventAgent
from streams.agents.metadata import MetadataAgent
from streams.agents.ranker import GroupLearners
from streams.forwarding import forwarder
from streams.forwarding.erasures import KnownErasures
from streams.forwarding.put_events_calls import pending, plan_calls
from streams.kafka.assignment import ReadStart, ReceivedMessage, next_read
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
"""A broker's default limit of a batch, less what a batch has beside the value of its record."""

EXAMPLES = settings(max_examples=60, deadline=None)


class Odd(NamedTuple):
    """A message as Kafka may have it."""

    value: bytes
    key: bytes
    timestamp_ms: int


ODD_CLICKS = st.lists(st.builds(Odd, ODD_EVENTS, KEYS, TIMES_MS), min_size=1, max_size=6)
ODD_ITEMS = st.lists(st.builds(Odd, ODD_RECORDS, KEYS, TIMES_MS), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


class Kept:
    """Dead letters, as they were produced."""

    def __init__(self) -> None:
        self.offsets: Counter[int] = Counter()

    async def publish(self, kind: str, values: Any, key: bytes | None) -> None:
        """Take note of a letter, which must fit, and be one."""
        for value in values if kind == "dead_letters" else ():
            assert len(value) + len(key or b"") < BROKER_TAKES_BYTES
            self.offsets[msgspec.json.decode(value, type=DeadLetter).source.offset] += 1


async def applied(agent: AtomicBatches[Any], topic: str, odd: list[Odd], good: Odd) -> None:
    """Bring the messages into effect, and a good one behind them."""
    number = next_read()
    start = ReadStart(0, number)
    agent.assigned({(topic, 0): Assigned(f"{number}/0", -1, start)})
    await agent.apply(
        ReceivedMessage(topic, 0, offset, one.value, one.key, one.timestamp_ms, number, offset - 1)
        for offset, one in enumerate([*odd, good])
    )
    assert agent.assignment.readings[topic, 0].applied == len(odd)


@given(odd=ODD_CLICKS)
@EXAMPLES
def test_events(redis_url: str, odd: list[Odd]) -> None:
    """Of the sessions agent, which also makes examples of what it takes."""

    async def check() -> None:
        kept, tenants = Kept(), Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        agent = EventAgent(tenants, publish=kept.publish, log=SimulatedKafka(), clock=lambda: NOW_S)
        await applied(agent, "clicks", odd, Odd(good_event(0), b"good", 0))
        assert kept.offsets == Counter(n for n, one in enumerate(odd) if not is_event(one.value))
        assert (await agent.store.item_indexes(["good"]))[0] > 0
        if agent._offering is not None:
            await agent._offering
        await tenants.redis.aclose()

    asyncio.run(check())


def is_event(raw: bytes) -> bool:
    """Whether the message has a meaning; trackers of others are nobody's."""
    try:
        if events.parse_erasure(raw, now_s=NOW_S, future_limit_s=300) is not None:
            return True
        return events.parse(raw, now_s=NOW_S).tracking_id in {None, "shop"}
    except InvalidEvent:
        return False


@given(odd=ODD_ITEMS, topic=st.sampled_from(["items", "users"]))
@EXAMPLES
def test_records(redis_url: str, odd: list[Odd], topic: Any) -> None:
    """Of the metadata agent."""
    good = {"group": "shop", "itemId": "good", "userId": "good", "at": NOW_S, "properties": {}}

    async def check() -> None:
        kept, tenants = Kept(), Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        agent = MetadataAgent(
            tenants, publish=kept.publish, log=SimulatedKafka(), clock=lambda: NOW_S
        )
        await applied(agent, topic, odd, Odd(json.dumps(good).encode(), b"shop/good", 0))
        wrong = [n for n, one in enumerate(odd) if not is_record(topic, one)]
        assert kept.offsets == Counter(wrong)
        await tenants.redis.aclose()

    asyncio.run(check())


def is_record(kind: metadata_records.RecordKind, odd: Odd) -> bool:
    """Whether the message has a meaning; groups of others do not exist."""
    try:
        found = metadata_records.parse_record(kind, odd.key, odd.value, now_s=NOW_S)
        record_entry(0, kind, found, own_group="shop")
    except InvalidRecord:
        return False
    return found.group == "shop"


@given(
    raws=st.lists(
        st.one_of(odd_examples(n_features=len(FEATURES), rivals=COMPARED), st.binary(max_size=60)),
        min_size=1,
        max_size=6,
    ),
    key=KEYS,
)
@EXAMPLES
def test_examples(redis_url: str, raws: list[bytes], key: bytes) -> None:
    """Of the ranker, whose measures stay finite and can be saved."""
    rows = bytes(2 * 2 * len(FEATURES))
    good = encode(Example(len(FEATURES), {"interactions": dict.fromkeys(COMPARED, 1)}, rows))

    async def check() -> None:
        tenants = Tenants(connect(redis_url), SETTINGS)
        await tenants.redis.flushdb()
        learners = GroupLearners(tenants)
        await learners.assigned("examples/0")
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
        course = learners._own.courses["interactions"]
        for means in course.scoreboard.means.values():
            assert all(0 <= value <= 1 for value in means.values())
        await tenants.redis.aclose()

    asyncio.run(check())


@given(odd=ODD_CLICKS)
@EXAMPLES
def test_forwarding(odd: list[Odd]) -> None:
    """Of the forwarder: each message is one that it passes over, or has calls to make."""
    # Noting an erasure asks Redis nothing.
    erasures = KnownErasures(SETTINGS, connect("redis://127.0.0.1:1"))
    read = [
        forwarder._read(as_faust(n, one), SETTINGS, erasures, NOW_S)
        for n, one in enumerate([*odd, Odd(good_event(0), b"good", 0)])
    ]
    for message, one in zip(read, odd, strict=False):
        assert (message.put is None) or is_event(one.value)
    calls = [call for session in plan_calls(pending(read)) for call in session]
    assert any(each.event.event_id == "good0" for call in calls for each in call)


def as_faust(offset: int, odd: Odd) -> Any:
    """As Faust hands a message over."""
    place = SimpleNamespace(
        topic="clicks", partition=0, offset=offset, timestamp=odd.timestamp_ms / 1000
    )
    return SimpleNamespace(message=place, value=odd.value, key=odd.key)
