"""Copies of the state on a cluster, behind Sentinels, and with TLS and few rights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from models.errors import InvalidSetting
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.copies.format_check import check_format
from models.state.copies.saved_values import SavedValue
from models.state.copies.state_copies import StateCopy
from models.state.copies.state_replacements import StateReplacement, forget_learned
from models.state.messages import Part
from models.state.store import Store
from models.state.tenants import Tenants
from tests.models.state.reference import NOW, click, message
from tests.models.state.test_redis_connections import ACL, secured
from tests.redis_servers import redis_cluster, secured_redis, watched_redis

pytestmark = [
    pytest.mark.kafka,
    # As in the end-to-end tests of a cluster.
    pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning"),
]

FOR_SNAPSHOTS = "+client|pause +client|unpause &__redis__:invalidate"
"""As docs/connections.md gives it."""


async def _fill(settings: Settings) -> None:
    store = Store(client_of(settings), settings)
    try:
        events = [message(n, click("abc"[n % 3], n), user="ada") for n in range(20)]
        await store.apply([Part("p/0", -1, events)], now_s=NOW)
        await Tenants(store.redis, settings).register("t", settings.group)
    finally:
        await store.close()


async def _state(settings: Settings) -> tuple[object, ...]:
    store = Store(client_of(settings), settings)
    try:
        (history,) = await store.histories(["u:ada"])
        group = await Tenants(store.redis, settings).group_of("t")
        return history.items.tolist(), await store.counts(), await store.watermarks(["p/0"]), group
    finally:
        await store.close()


def _copied_and_back(settings: Settings) -> None:
    """Save, replace by what was saved, forget what was learned: each as on a single server."""
    asyncio.run(_fill(settings))
    before = asyncio.run(_state(settings))
    values: list[SavedValue] = []
    with StateCopy(settings, longest_pause_s=5) as copy:
        for some in copy.values():
            values += some
    assert copy.moment.watermarks == {"p/0": 19}
    kept = {value.key.decode() for value in values}
    assert {f"{{{settings.group}}}:history:u:ada", "{recommender}:trackers"} <= kept

    with StateReplacement(settings, [], what="restore", replaces=True) as state:
        assert asyncio.run(_state(settings))[1] == {}
        state.write(values)
        state.finish()
    assert asyncio.run(_state(settings)) == before
    check_format(settings)
    assert forget_learned(settings, what="rebuild", progress=lambda _: None) > 5
    check_format(settings)
    history, counts, watermarks, group = asyncio.run(_state(settings))
    assert (history, counts, watermarks) == ([], {}, [-1])
    assert group == settings.group


def test_on_a_cluster(tmp_path: Path) -> None:
    """The group's keys and the registry's are on two nodes; both wait in the pause."""
    with redis_cluster(tmp_path) as cluster:
        group, node = "g0", cluster.primary_of("{recommender}:")
        while cluster.primary_of(f"{{{group}}}:") is node:
            group = f"g{int(group[1:]) + 1}"
        _copied_and_back(Settings(redis=cluster.url, redis_cluster=True, group=group))


def test_behind_sentinels(tmp_path: Path) -> None:
    """The primary that they name."""
    with watched_redis(tmp_path) as watched:
        settings = Settings(
            redis=watched.url,
            redis_sentinel_master="shop-state",
            redis_sentinel_password="Pl4nted-in-Redis",
        )
        _copied_and_back(settings)


def test_with_tls_and_few_rights(tmp_path: Path) -> None:
    """Those of the documents suffice; without them they are named."""
    with secured_redis(tmp_path / "more", f"{ACL} {FOR_SNAPSHOTS}") as server:
        _copied_and_back(secured(server))
    with secured_redis(tmp_path / "few", ACL) as server:
        settings = secured(server)
        asyncio.run(_fill(settings))
        with (
            StateCopy(settings, longest_pause_s=5) as copy,
            pytest.raises(InvalidSetting, match=r"docs/connections\.md"),
        ):
            list(copy.values())
