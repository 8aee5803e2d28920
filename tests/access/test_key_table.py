"""Keys in an API process: how fast a change takes effect, and what holds while Redis is away."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.access import key_table
from api.access.key_table import FRESH_S, STALE_S, KeyTable
from models.api_keys import NewKey, new_key
from models.errors import LimitExceeded
from models.state.clients.client import RedisClient, connect
from models.state.groups import key_store
from ops.embedded_servers import start_redis

NOW_S = 1_790_000_000.0


class Clock:
    """A clock that a test moves."""

    now_s = 100.0

    def __call__(self) -> float:
        """Seconds by this clock."""
        return self.now_s


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[RedisClient]:
    """A client of an empty Redis."""
    async with connect(redis_url) as made:
        await made.flushdb()
        yield made


async def added(client: RedisClient, *, created_s: float = NOW_S, **options: object) -> NewKey:
    """A new key that is stored."""
    made = new_key("k", ["read"], ["shop"], now_s=created_s, **options)  # type: ignore[arg-type]
    await key_store.add_key(client, made.key, now_s=created_s)
    return made


def found(table: KeyTable, made: NewKey) -> bool:
    """True if a key is accepted."""
    return table.find(made.text.encode()) is not None


async def test_an_idle_process_reads_the_keys_before_its_first_answer(client: RedisClient) -> None:
    """A key that was revoked meanwhile is refused at once."""
    clock = Clock()
    table = KeyTable(client, now_s=lambda: NOW_S, clock=clock)
    made = await added(client)
    await table.refresh()
    assert found(table, made)

    await key_store.remove_key(client, made.key.id)
    clock.now_s += STALE_S
    assert not table.is_good
    await table.refresh()

    assert not found(table, made)


async def test_a_busy_process_waits_for_nothing(client: RedisClient) -> None:
    """Keys are read behind its back, and the change is there with the next request."""
    clock = Clock()
    table = KeyTable(client, now_s=lambda: NOW_S, clock=clock)
    made = await added(client)
    await table.refresh()
    await key_store.remove_key(client, made.key.id)

    clock.now_s += FRESH_S
    assert not table.is_good
    await table.refresh()
    assert found(table, made)
    await table.read_again()

    assert not found(table, made)


async def test_known_keys_stay_while_redis_is_away(tmp_path: Path) -> None:
    """What was known is accepted, without a wait for each request; what is not known is refused."""
    server = start_redis(tmp_path)
    async with connect(server.url) as client:
        clock = Clock()
        table = KeyTable(client, now_s=lambda: NOW_S, clock=clock)
        made = await added(client)
        await table.refresh()
        server.stop()
        clock.now_s += 100 * STALE_S
        await table.refresh()
        await table.refresh()

        assert found(table, made)
        assert not found(table, new_key("k", ["read"], ["shop"], now_s=NOW_S))


async def test_a_process_without_redis_knows_no_key(tmp_path: Path) -> None:
    """It says that it has not read them, instead of calling every key wrong."""
    server = start_redis(tmp_path)
    server.stop()
    async with connect(server.url) as client:
        table = KeyTable(client, clock=Clock())
        await table.refresh()

        assert not table.is_read


async def test_wrong_keys_cost_no_memory(client: RedisClient) -> None:
    """Only texts that were verified are kept, one for each key."""
    table = KeyTable(client, now_s=lambda: NOW_S, clock=Clock())
    made = await added(client)
    await table.refresh()
    for _ in range(3):
        assert found(table, made)
    for n in range(1000):
        wrong = made.text[:-4] + f"{n:04}"
        assert wrong == made.text or table.find(wrong.encode()) is None

    assert len(table._verified) == 1


async def test_secrets_are_compared_by_hash_in_constant_time(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong secret meets the whole hash of the right one, and never the secret itself."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    table = KeyTable(client, now_s=lambda: NOW_S, clock=Clock())
    made = await added(client)
    await table.refresh()
    monkeypatch.setattr(key_table, "compare_digest", compare)
    wrong = made.text[:-1] + ("a" if made.text[-1] != "a" else "b")

    assert table.find(wrong.encode()) is None
    assert found(table, made)
    right = hashlib.sha256(made.text.encode()).digest()
    assert compared == [(right, hashlib.sha256(wrong.encode()).digest()), (right, right)]


async def test_a_session_ends_with_its_key(client: RedisClient) -> None:
    """It also ends at its time, and the oldest go when there are too many."""
    made = await added(client)
    parent = made.key.id
    first, *_, last = [
        await added(client, created_s=NOW_S + n, expires_s=NOW_S + 60, parent=parent)
        for n in range(key_store.MAX_SESSIONS + 1)
    ]
    at_s = [NOW_S]
    table = KeyTable(client, now_s=lambda: at_s[0], clock=Clock())
    await table.refresh()
    assert (found(table, first), found(table, last)) == (False, True)
    at_s[0] = NOW_S + 60
    assert not found(table, last)
    at_s[0] = NOW_S

    await key_store.remove_key(client, parent)
    assert await key_store.stored_keys(client) == []
    with pytest.raises(LimitExceeded):
        await added(client, expires_s=NOW_S + 60, parent=parent)


async def test_there_are_so_many_keys_at_most(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further one is refused."""
    monkeypatch.setattr(key_store, "MAX_KEYS", 2)
    for _ in range(2):
        await added(client)

    with pytest.raises(LimitExceeded, match="2 keys"):
        await added(client)


async def test_processes_share_a_quota(client: RedisClient) -> None:
    """Each counts by itself, and knows the others' requests after the next reading."""
    made = await added(client, requests_per_day=10)
    clocks = [Clock(), Clock()]
    tables = [KeyTable(client, now_s=lambda: NOW_S, clock=clock) for clock in clocks]
    passed = [0, 0]
    for _ in range(3):
        for n, table in enumerate(tables):
            await table.read_again()
            known = table.find(made.text.encode())
            assert known is not None
            assert known.limit is not None
            for _ in range(3):
                passed[n] += known.limit.wait_s(clocks[n].now_s, NOW_S) == 0
            clocks[n].now_s += 1

    # What came within one reading of both is beyond it.
    assert sum(passed) == 13
    known = tables[0].find(made.text.encode())
    assert known is not None
    assert known.limit is not None
    assert known.limit.wait_s(clocks[0].now_s, NOW_S + 86400) == 0
