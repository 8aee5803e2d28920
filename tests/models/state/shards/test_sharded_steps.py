"""A sharded group against its naive meaning, under redelivery, lost publications and crashes."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.settings import Settings
from models.state.clients.client import connect
from models.state.layout import EPOCH, STATS_PER_PAGE
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.shards.shard_names import (
    DeltaMessage,
    DeltaPart,
    history_shard,
    item_shard,
    names_value,
    owner_shard,
    shard_prefix,
    split,
)
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.split_lists import ListSplit
from tests.models.state.message_fixtures import MESSAGES
from tests.models.state.reference import NOW, Reference, click, contents, erasure, message
from tests.models.state.shards.shard_network import ShardNetwork
from tests.models.state.shards.sharded_reference import (
    ShardedReference,
    assert_same_shards,
    lists_of,
    names_of,
    shard_store,
)
from tests.models.state.test_withdrawals import (
    DRAWN,
    acts_of,
    assert_pairs,
    message_of,
    numbers_that_count,
)

COLUMNS = ["device", "hour"]
Drawn = list[tuple[str, str, list[StoredEvent] | float]]


def to_log(network: ShardNetwork, user: str, session: str, events: Any) -> StoredMessage:
    """Append one message, or an erasure, to the partition of its session."""
    log = network.events[shard_of(session) % 2]
    if isinstance(events, float):
        log.append(erasure(len(log), user, events))
    else:
        one = message(len(log), *events, user=user, session=session)
        log.append(one._replace(accepted_at=NOW - 2.0 + 7 * len(log) % 5))
    return log[-1]


def without_joins_across(drawn: Drawn, shards: int) -> Drawn:
    """The messages but logins in a session with an anonymous history on another shard."""
    kept: Drawn = []
    anonymous = set()
    for user, session, events in drawn:
        if not user:
            anonymous.add(session)
        elif session in anonymous and owner_shard(user, shards) != owner_shard(session, shards):
            continue
        kept.append((user, session, events))
    return kept


def numbered(events: list[StoredEvent] | float, first: int) -> list[StoredEvent] | float:
    """The events with ids of their own."""
    if isinstance(events, float):
        return events
    return [event._replace(hash=first + n + 1) for n, event in enumerate(events)]


def some_splits(shards: int, chance: random.Random) -> dict[int, list[ListSplit]]:
    """Splits of half of the items that will be, from a time on that is before some events' time."""
    age = NOW - EPOCH
    found = {}
    for shard in range(shards):
        for index in range(STATS_PER_PAGE * shard, STATS_PER_PAGE * shard + 20):
            begins = [age - chance.choice([10**9, 86_400, 40, 5, 0]), age - 2]
            if chance.random() < 0.5:
                found[index] = [ListSplit(min(begins), 2), ListSplit(max(begins), shards)]
    return found


async def make_network(client: Any, shards: int, chance: random.Random, limit: int) -> ShardNetwork:
    """Shards without items, that know the contextual columns, and of which lists are split."""
    steps = ShardedSteps(client, Settings(group="h", history_events=limit), shards=shards)
    await steps.split_lists(some_splits(shards, chance))
    for shard in range(shards):
        await client.sadd(shard_prefix("h", "i", shard) + "columns", *COLUMNS)
    reference = ShardedReference(shards, limit=limit, columns=COLUMNS)
    return ShardNetwork(steps, reference, chance.randrange)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES, st.sampled_from([2, 3]), st.sampled_from([10, 100]), st.randoms())
def test_shards_equal_the_reference(
    redis_url: str, drawn: Drawn, shards: int, limit: int, chance: random.Random
) -> None:
    """Any stream, steps in any order, messages again, publications lost, twice or late."""

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                network = await make_network(client, shards, chance, limit)
                for user, session, events in drawn:
                    to_log(network, user, session, events)
                    for _ in range(chance.randrange(5)):
                        await network.do_something()
                await network.drain()
                links = network.reference.all_links()
                await assert_same_shards(network.steps, network.reference, links)
            finally:
                await client.flushdb()

    asyncio.run(check())


@settings(
    max_examples=15,
    phases=[Phase.generate],  # to make the stream shorter takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(MESSAGES, st.sampled_from([2, 4]), st.randoms())
def test_one_message_after_the_other_is_as_without_shards(
    redis_url: str, drawn: Drawn, shards: int, chance: random.Random
) -> None:
    """Where every delta has arrived before the next message, the state is that of one shard.

    But for repeated events of owners on different shards, and for logins to a user of another shard
    than that of the session's history (decision 44), of which there are none here.
    """
    drawn = without_joins_across(drawn, shards)

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                network = await make_network(client, shards, chance, 20)
                reference = Reference(limit=20, columns=COLUMNS)
                for number, (user, session, events) in enumerate(drawn):
                    one = to_log(network, user, session, numbered(events, 5 * number))
                    reference.apply([Part(f"p/{shard_of(session) % 2}", -1, [one])])
                    await network.drain()
                await assert_same_shards(network.steps, reference)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def test_shards_that_fall_back_to_an_earlier_state_lose_nothing(redis_url: str) -> None:
    """A replica takes over that lacks the last steps: its shard reads on from where it is.

    Deltas of messages that are applied again are those that others have by then, or new ones. But a
    history may get another number than the one that items remember.
    """
    async with connect(redis_url) as client:
        for seed in range(4):
            chance = random.Random(seed)
            try:
                network = await make_network(client, 3, chance, 20)
                for shard in range(3):
                    await network.keep(f"i{shard:02d}")
                reference = Reference(limit=20, columns=COLUMNS)
                for number in range(40):
                    user = f"u{chance.randrange(6)}"
                    items = chance.choices("abcdefgh", k=2)
                    events = [click(x, 2 * number + n, NOW - 40 + n) for n, x in enumerate(items)]
                    one = to_log(network, user, user, events)
                    reference.apply([Part(f"p/{shard_of(user) % 2}", -1, [one])])
                    for _ in range(chance.randrange(6)):
                        await network.do_something()
                    name = network.names[chance.randrange(6)]
                    if number % 5 == 0:
                        await network.keep(name)
                    if number % 7 == 0:
                        await network.fall_back(name)
                await network.drain()
                await assert_same_shards(network.steps, reference, owners_are_same=False)
            finally:
                await client.flushdb()


async def test_a_forwarded_message_links_nothing_anew(redis_url: str) -> None:
    """On its way to a user, while the session has become another's: the session stays theirs."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 3, random.Random(1), 20)
            session, here = "s1", owner_shard("s1", 3)
            ada, bob = (
                next(u for u in map("u{}".format, range(99)) if owner_shard(u, 3) == shard)
                for shard in range(3)
                if shard != here
            )
            to_log(network, ada, session, [click("a", 1)])
            await network.drain()
            to_log(network, "", session, [click("b", 2)])
            while await network.apply_events(shard_of(session) % 2, here, 1):
                pass
            to_log(network, bob, session, [click("c", 3)])
            # Deltas for Ada's shard come last: the message, and that the session is Bob's.
            field, bobs = shard_of(session) % 2, owner_shard(bob, 3)
            while await network.apply_events(field, bobs, 1):
                pass
            await network.send_again(bobs, f"u{here:02d}", 10)
            while await network.apply_deltas(f"u{here:02d}", 10):
                pass
            source = (await network.steps.waiting_values(here, f"u{owner_shard(ada, 3):02d}"))[::-1]
            network.deltas[f"u{owner_shard(ada, 3):02d}"] += source
            await network.drain()
            links = network.reference.all_links()
            assert links[here] == {session: bob}
            await assert_same_shards(network.steps, network.reference, links)
        finally:
            await client.flushdb()


async def test_a_link_that_comes_late_is_removed_all_the_same(redis_url: str) -> None:
    """A user's oldest session is unlinked by a message of another partition, which comes first."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 3, random.Random(1), 20)
            steps = ShardedSteps(client, Settings(group="h", user_sessions=1), shards=3)
            network.steps = steps
            user = "ada"
            here = owner_shard(user, 3)
            there = (here + 1) % 3
            first, second = (
                next(
                    name
                    for name in map("s{}".format, range(999))
                    if owner_shard(name, 3) == there and shard_of(name) % 2 == partition
                )
                for partition in (0, 1)
            )
            for session in (first, second):
                to_log(network, user, session, [click("a", shard_of(session))])
                while await network.apply_events(shard_of(session) % 2, here, 1):
                    pass
            name = f"u{there:02d}"
            # Whatever was published before is forgotten; the last value comes first.
            network.late, network.deltas[name] = [], []
            network.deltas[name] += (await steps.waiting_values(here, name))[::-1]
            await network.drain()
            store = shard_store(steps, "u", there)
            assert await store.linked_user(first, now_s=NOW) is None
            assert await store.linked_user(second, now_s=NOW) == user
        finally:
            await client.flushdb()


async def test_what_comes_again_changes_nothing(redis_url: str) -> None:
    """All messages and all deltas of all topics once more, behind marks and in front of none."""
    chance = random.Random(7)
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 3, chance, 20)
            for number in range(30):
                user, session = chance.choice([("", "s1"), ("u1", "s4"), ("u2", "s1"), ("", "s5")])
                items = chance.choices("abcdefgh", k=2)
                events = [click(item, 2 * number + n, NOW - number) for n, item in enumerate(items)]
                to_log(network, user, session, events)
            await network.drain()
            await assert_same_shards(
                network.steps, network.reference, network.reference.all_links()
            )
            for name, log in network.deltas.items():
                network.deltas[name] = log * 2
            await network.drain()
            await assert_same_shards(
                network.steps, network.reference, network.reference.all_links()
            )
        finally:
            await client.flushdb()


async def test_an_item_without_room_is_refused(redis_url: str) -> None:
    """Item shards give no more indexes than their share; the event's message says which."""
    async with connect(redis_url) as client:
        try:
            steps = ShardedSteps(client, Settings(group="h", max_items=1), shards=2)
            shard = owner_shard("a", 2)
            value = split(names_value(["a", "b" if owner_shard("b", 2) == shard else "c"]))[1]
            part = DeltaPart("i/0", -1, [DeltaMessage(0, value)])
            await steps.apply_deltas(shard, [part], now_s=NOW)
            indexes = await steps.indexes_of(["a", "b", "c"])
            assert list(indexes) == ["a"]
            one = message(0, click("a", 0), click("b", 1), session="s1")
            result = await steps.apply_events(
                owner_shard("s1", 2), [Part("p/0", -1, [one])], indexes=indexes, types={}, now_s=NOW
            )
            assert [(r.status, r.offset, r.refused) for r in result.events] == [("full", 0, [1])]
            assert not result.outbox
        finally:
            await client.flushdb()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DRAWN, min_size=5, max_size=25), st.sampled_from([2, 3]), st.randoms())
def test_what_is_taken_back_is_taken_back_behind_what_it_counted(
    redis_url: str, drawn: list[tuple[str, str, str, int]], shards: int, chance: random.Random
) -> None:
    """A user's messages on two partitions: deltas come in any order, and count as in one."""
    acts = acts_of(drawn)
    counting = numbers_that_count(acts)
    plain = [number for number, act in enumerate(acts) if act.undoes < 0]
    reference, everything = Reference(), Reference()
    for one, numbers in ((reference, counting), (everything, plain)):
        kept = [message_of(at, acts[number], number) for at, number in enumerate(numbers)]
        one.apply([Part("p/0", -1, kept)])

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                network = await make_network(client, shards, chance, 100)
                for number, act in enumerate(acts):
                    partition = chance.randrange(2)
                    log = network.events[partition]
                    log.append(message_of(len(log), act, number))
                    await network.apply_events(partition, owner_shard(act.user, shards), 10)
                    for _ in range(chance.randrange(4)):
                        await network.do_something()
                await network.drain()
                await assert_same_sums(network.steps, reference, everything)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def assert_same_sums(
    steps: ShardedSteps, reference: Reference, everything: Reference
) -> None:
    """What item shards count is what the reference does, of all that there has ever been."""
    stores = [shard_store(steps, "i", shard) for shard in range(steps.shards)]
    stored_items = [await contents(store) for store in stores]
    names = names_of(stored_items)
    pairs = {f"pairs:{index}": raw for index, raw in lists_of(stored_items).items()}
    tops: dict[bytes, float] = {}
    for stored in stored_items:
        tops |= dict(stored.get("top:all", []))
    assert_pairs(pairs, reference, everything, names)
    expected = {b"%d" % n: len(reference.items[name]) for n, name in names.items()}
    assert tops == {index: n for index, n in expected.items() if n}
    for index, name in names.items():
        raw = stored_items[item_shard(index, steps.shards)].get(f"takers:{index}", b"")
        owners = []
        for number in np.frombuffer(raw, np.uint32).tolist():
            store = shard_store(steps, "u", history_shard(number, steps.shards))
            owners += await store.owner_keys([number])
        assert sorted(map(str, owners)) == sorted(reference.recent_owners[name])


def test_one_shard_is_another_form() -> None:
    """The steps of shards are for several."""
    for shards in (1, 257):
        with pytest.raises(ValueError, match="2 to 256"):
            ShardedSteps(connect("redis://localhost:1/0"), Settings(), shards=shards)
