"""Copies of the state: of one moment while others write, and the same again once restored."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from models.errors import CannotStart, InvalidSetting, SnapshotRefused, Unavailable
from models.settings import Settings
from models.state.catalogue.metadata import put_items, put_users
from models.state.clients.client import connect
from models.state.copies import state_copies, state_replacements, watched_server
from models.state.copies.format_check import check_format
from models.state.copies.saved_values import SavedValue
from models.state.copies.state_copies import CopiedMoment, StateCopy
from models.state.copies.state_replacements import (
    LEARNED,
    NOT_IN_KAFKA,
    StateReplacement,
    forget_learned,
)
from models.state.groups.group_registry import GROUPS, RESTORING
from models.state.layout import STATE_FORMAT
from models.state.messages import Part, StoredEvent, StoredMessage
from models.state.outcomes.served_lists import log_served
from models.state.store import Store
from models.state.users.user_exports import EXPORTED, WITHOUT_USERS
from tests.models.state.message_fixtures import MESSAGES
from tests.models.state.reference import (
    NOW,
    Reference,
    assert_same,
    click,
    erasure,
    message,
)
from tests.servers import own_port


@pytest.fixture
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were many keys: read in many pieces, and often anew."""
    use_small_reads(monkeypatch)


def use_small_reads(patch: pytest.MonkeyPatch) -> None:
    """The same, of one example."""
    patch.setattr(watched_server, "KEYS_AT_ONCE", 2)
    patch.setattr(watched_server, "SCANNED_AT_ONCE", 3)
    patch.setattr(watched_server, "MOST_MEMBERS", 2)
    patch.setattr(state_copies, "MANY_CHANGED", 9)
    patch.setattr(state_copies, "FEW_CHANGED", 3)


def copied(settings: Settings) -> tuple[list[SavedValue], CopiedMoment]:
    """A copy of what is there."""
    with StateCopy(settings, longest_pause_s=5) as copy:
        values = [value for some in copy.values() for value in some]
        return values, copy.moment


def restored(settings: Settings, values: list[SavedValue], **options: Any) -> None:
    """Make the state that of a copy."""
    options = {"what": "restore", "replaces": False, **options}
    with StateReplacement(settings, ["other"], **options) as state:
        for at in range(0, len(values), 7):
            state.write(values[at : at + 7])
        state.finish()


def dump(client: redis.Redis) -> dict[bytes, Any]:
    """Every key with its value, and when it expires."""
    commands: Any = client.execute_command
    readers = {
        b"string": ("GET",), b"hash": ("HGETALL",), b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1, "WITHSCORES"), b"list": ("LRANGE", 0, -1),
    }  # fmt: skip
    found = {}
    for key in commands("KEYS", "*"):
        name, *rest = readers[commands("TYPE", key)]
        found[key] = commands(name, key, *rest), commands("PEXPIRETIME", key)
    return found


@pytest.fixture
def settings(redis_url: str, store: Store) -> Settings:
    """Those of the store, with its server."""
    return store.settings.model_copy(update={"redis": redis_url})


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """Another program at the same server."""
    with redis.Redis.from_url(redis_url) as made:
        yield made


async def fill(store: Store) -> None:
    """State of most kinds."""
    await store.apply(
        [Part("t/0", -1, [message(n, click("abc"[n % 3], n), user="ada") for n in range(30)])],
        now_s=NOW,
    )
    await put_items(store, [("a", {"GENRES": "red|blue", "PRICE": 1.5})], NOW)
    await put_users(store, [("ada", {"AGE": 36})], NOW)
    await log_served(store, {"r1": ["a", "b"]}, ["a"], now_s=NOW)
    await store.redis.lpush(store.key("batch:runs"), "one", "two")
    await store.redis.sadd(store.key("columns"), "device")
    await store.redis.sadd(GROUPS, "other")
    await store.redis.hset("{other}:counts", mapping={"events": 1, "format": STATE_FORMAT})


@properties(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(MESSAGES, st.integers(0, 25), st.integers(0, 3))
def test_a_copy_is_the_state_of_one_moment(
    redis_url: str,
    drawn: list[tuple[str, str, list[StoredEvent] | float]],
    before: int,
    at_once: int,
) -> None:
    """Made while steps go on, it is what the reference says at its watermark; so it goes on."""
    log: list[StoredMessage] = []
    for user, session, events in drawn:
        if isinstance(events, float):
            log.append(erasure(len(log), user, events))
        else:
            log.append(message(len(log), *events, user=user, session=session))
    settings = Settings(group="h", cache_s=0, redis=redis_url, history_events=10)
    start = before % (len(log) + 1)

    async def check(client: Any) -> None:
        store, n_applied = Store(client, settings), 0

        async def step(size: int) -> None:
            nonlocal n_applied
            messages = log[n_applied : n_applied + size]
            if messages:
                await store.apply([Part("p/0", n_applied - 1, messages)], now_s=NOW)
                n_applied += len(messages)

        await step(start)
        values = []
        with StateCopy(settings, longest_pause_s=5) as copy:
            for some in copy.values():
                values += some
                await step(at_once)
            at = copy.moment.watermarks.get("p/0", -1)
        assert start - 1 <= at < len(log)
        await step(len(log))
        until_then, whole = Reference(10), Reference(10)
        until_then.apply([Part("p/0", -1, log[: at + 1])])
        whole.apply([Part("p/0", -1, log)])

        await client.flushdb()
        await asyncio.to_thread(restored, settings, values)
        await assert_same(store, until_then)
        n_applied = at + 1
        await step(len(log))
        await assert_same(store, whole)

    async def run() -> None:
        async with connect(redis_url) as client:
            try:
                await check(client)
            finally:
                await client.flushdb()

    with pytest.MonkeyPatch.context() as patch:
        use_small_reads(patch)
        asyncio.run(run())


@pytest.mark.usefixtures("small_reads")
async def test_every_kind_of_key_comes_back(
    store: Store, settings: Settings, client: redis.Redis
) -> None:
    """To the last bit, with its expiry; other programs' keys are neither copied nor touched."""
    await fill(store)
    client.mset({"mine": "1", "{mine}:x": "2"})
    before = dump(client)
    families = {key.partition(b"}:")[2].partition(b":")[0].decode() for key in before}
    assert {"history", "pairs", "top", "links", "columns", "batch", "served"} <= families

    values, moment = await asyncio.to_thread(copied, settings)
    assert moment.groups == sorted([settings.group, "other"])
    assert moment.watermarks == {"t/0": 29}
    assert dump(client) == before
    client.unlink(*(key for key in before if key[:5] not in {b"mine", b"{mine"}))
    await asyncio.to_thread(restored, settings, values)

    assert dump(client) == before
    await asyncio.to_thread(check_format, settings)


async def test_no_step_is_in_half(store: Store, settings: Settings, client: redis.Redis) -> None:
    """While another program changes keys together as fast as it can, a copy has them equal."""
    names = [store.key(f"items{n}") for n in range(50)]
    step = client.register_script("for _, key in ipairs(KEYS) do redis.call('INCR', key) end")
    step(names)
    is_over = threading.Event()

    def write() -> None:
        with redis.Redis.from_url(settings.redis) as other:
            while not is_over.is_set():
                step(names, client=other)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        first, _ = await asyncio.to_thread(copied, settings)
        second, _ = await asyncio.to_thread(copied, settings)
    finally:
        is_over.set()
        thread.join()
    held = [{one.key: one.members for one in values} for values in (first, second)]
    numbers = [{int(value[0]) for value in one.values()} for one in held]
    assert [len(one) for one in held] == [50, 50]
    assert [len(one) for one in numbers] == [1, 1]
    assert numbers[0] != numbers[1], "nothing was written meanwhile"


async def test_a_pause_that_would_be_too_long(store: Store, settings: Settings) -> None:
    """Nothing is copied, and writes do not wait."""
    await fill(store)
    # Shorter than one answer of any server takes.
    with StateCopy(settings, longest_pause_s=1e-6) as copy:
        found = copy.values()
        next(found)
        await put_items(store, [(f"i{n}", {"PRICE": n}) for n in range(500)], NOW)
        with pytest.raises(SnapshotRefused, match="--longest-pause"):
            list(found)
        with pytest.raises(RuntimeError):
            _ = copy.moment
    await put_items(store, [("z", {})], NOW)


async def test_a_server_that_is_emptied_meanwhile(store: Store, settings: Settings) -> None:
    """What was read before is no state of any moment."""
    await fill(store)
    with StateCopy(settings, longest_pause_s=5) as copy:
        found = copy.values()
        next(found)
        await store.redis.flushdb()
        with pytest.raises(SnapshotRefused, match="emptied"):
            list(found)


async def test_there_is_state_already(
    store: Store, settings: Settings, client: redis.Redis
) -> None:
    """It stays, unless it is to be replaced; then nothing of it is left."""
    await fill(store)
    values, _ = await asyncio.to_thread(copied, settings)
    await put_items(store, [("later", {})], NOW)
    before = dump(client)
    with pytest.raises(SnapshotRefused, match="--replace"):
        await asyncio.to_thread(restored, settings, values)
    assert dump(client) == before
    await asyncio.to_thread(restored, settings, values, replaces=True)
    assert await store.item_indexes(["a", "later"]) == [1, 0]


async def test_others_write_during_a_restore(
    store: Store, settings: Settings, client: redis.Redis
) -> None:
    """It is given up, by a sentence, and leaves nothing that would be taken for state."""
    await fill(store)
    values, _ = await asyncio.to_thread(copied, settings)
    await store.redis.flushdb()

    def restore() -> None:
        with StateReplacement(settings, ["other"], what="restore", replaces=False) as state:
            state.write(values)
            client.incr("{mine}:x")
            state.write(values)
            client.hset(store.key("counts"), "events", "7")
            state.finish()

    with pytest.raises(SnapshotRefused, match="stop all processes"):
        await asyncio.to_thread(restore)
    assert client.keys("*") == [b"{mine}:x"]


async def test_a_restore_that_is_broken_off(store: Store, settings: Settings) -> None:
    """While it lasts, and after a kill, no process starts; another restore mends it."""
    await fill(store)
    values, _ = await asyncio.to_thread(copied, settings)
    state = StateReplacement(settings, [], what="restore of x", replaces=True)
    state.write(values)
    # As if it were killed: nothing is tidied.
    with pytest.raises(CannotStart, match="restore of x is under way or was broken off"):
        await asyncio.to_thread(check_format, settings)
    with pytest.raises(SnapshotRefused, match="--replace"):
        await asyncio.to_thread(restored, settings, values)
    await asyncio.to_thread(restored, settings, values, replaces=True)
    await asyncio.to_thread(check_format, settings)
    assert RESTORING.encode() not in await store.redis.keys("*")


@pytest.mark.parametrize("key", ["mine", "{mine}:x", RESTORING])
async def test_a_copy_writes_nothing_else(
    settings: Settings, client: redis.Redis, key: str
) -> None:
    """Whatever keys it names."""
    values = [SavedValue(key.encode(), "string", -1, [b"7"])]
    with pytest.raises(SnapshotRefused, match="of no group"):
        await asyncio.to_thread(restored, settings, values)
    assert client.keys("*") == []


async def test_what_is_learned_is_forgotten(
    store: Store, settings: Settings, client: redis.Redis
) -> None:
    """And nothing else; events then count as new."""
    await fill(store)
    client.set("{recommender}:keys", "1")
    log = [message(n, click("abc"[n % 3], n), user="ada") for n in range(30)]
    names = [store.key(name) for name in ("pairs:1", "history:u:ada", "takers:1", "recent")]
    before = client.mget(names)
    n_keys = len(client.keys("*"))
    told: list[int] = []

    n = await asyncio.to_thread(forget_learned, settings, what="rebuild", progress=told.append)

    kept: list[Any] = client.keys("*")
    left = {key.decode() for key in kept}
    own = {store.key("batch:runs"), store.key("columns")}
    assert left == {*own, GROUPS, "{recommender}:keys"}
    assert told[-1] == n == n_keys - len(left)
    await asyncio.to_thread(check_format, settings)
    await store.apply([Part("t/0", -1, log)], now_s=NOW)
    assert None not in before
    assert client.mget(names) == before


async def test_forgetting_while_others_write(
    store: Store, settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, and what is left is not taken for state."""
    await fill(store)
    family, told = state_replacements._family, list[int]()
    monkeypatch.setattr(
        state_replacements,
        "_family",
        lambda key: (client.incr(store.key("stats:99")), family(key))[1],
    )
    with pytest.raises(SnapshotRefused, match="stop all processes"):
        await asyncio.to_thread(forget_learned, settings, what="rebuild", progress=told.append)
    with pytest.raises(CannotStart):
        await asyncio.to_thread(check_format, settings)


@pytest.mark.unit
def test_every_family_is_decided() -> None:
    """What is learned from Kafka, and what stays."""
    assert not LEARNED & set(NOT_IN_KAFKA)
    assert LEARNED | set(NOT_IN_KAFKA) == set(EXPORTED) | set(WITHOUT_USERS)


def test_a_server_that_is_away() -> None:
    """It is told as such."""
    settings = Settings(redis=f"redis://127.0.0.1:{own_port()}")
    with pytest.raises(Unavailable):
        StateCopy(settings, longest_pause_s=1)


async def test_a_user_without_the_rights(
    settings: Settings, store: Store, client: redis.Redis
) -> None:
    """Is told where they stand, and writes do not wait."""
    await fill(store)
    admin: Any = client.execute_command
    admin("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-client|pause")
    try:
        url = settings.redis.replace("redis://", "redis://few:pw@")
        few = settings.model_copy(update={"redis": url})
        with pytest.raises(InvalidSetting, match=r"docs/connections\.md"):
            await asyncio.to_thread(copied, few)
    finally:
        admin("ACL", "DELUSER", "few")
