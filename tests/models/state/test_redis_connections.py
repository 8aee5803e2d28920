"""Connections to a Redis with TLS, client certificates and users."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from models.errors import InvalidSetting
from models.servers.server_checks import check_redis
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.messages import Part
from models.state.operations.memory import read_families, read_memory
from models.state.shared_reads import read_group_state
from models.state.store import Store
from models.state.tenants import Tenants
from tests.models.state.reference import NOW, click, message
from tests.redis_servers import PASSWORD, SecuredRedis, secured_redis

pytestmark = pytest.mark.kafka

ACL = "~{shop}:* ~{recommender}:* &{shop}:* +@all -@dangerous +info +bgrewriteaof"
"""As docs/connections.md gives it."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """A Redis that speaks TLS only."""
    with secured_redis(tmp_path_factory.mktemp("tls"), ACL) as running:
        yield running


def secured(server: SecuredRedis, **others: Any) -> Settings:
    """Settings to reach it with."""
    files = {
        "redis_ca_file": server.ca_file,
        "redis_certificate_file": server.certificate_file,
        "redis_key_file": server.key_file,
    }
    return Settings(**{"redis": server.url, **files, **others})


async def test_state_over_tls_by_a_user_with_few_rights(server: SecuredRedis) -> None:
    """The atomic step, batched reads over the connection's own transport, pipelines, memory."""
    settings = secured(server)
    check_redis(settings)
    store = Store(client_of(settings), settings)
    try:
        part = Part("p/0", -1, [message(0, click("a", 0), user="ada")])
        results, counts = await store.apply([part], now_s=NOW)
        assert (results[0].status, counts["events"]) == ("applied", 1)
        keys = [[store.key("history:u:ada")], [store.key("none")]]
        (history,), (nothing,) = await asyncio.gather(*(store.values(one) for one in keys))
        assert history
        assert nothing is None
        assert (await read_group_state(store, ["weights"])).clock_s == NOW
        assert await store.linked_user("s", now_s=NOW) == "ada"
        await Tenants(store.redis, settings).register("t", "shop")
        assert (await read_memory(store.redis)).used_bytes > 0
        assert (await read_families(store))["history"].keys == 1
    finally:
        await store.redis.aclose()


def test_the_password_stands_beside_the_url(server: SecuredRedis) -> None:
    """As where an orchestrator mounts it alone."""
    bare = server.url.replace(f":{PASSWORD}", "")
    check_redis(secured(server, redis=bare, redis_password=PASSWORD))
    with pytest.raises(InvalidSetting, match="refuses the user or password"):
        check_redis(secured(server, redis=bare, redis_password="Pl4nted"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"redis_ca_file": "other"}, "certificate verify failed.*RECOMMENDER_REDIS_CA_FILE"),
        ({"redis_ca_file": "absent"}, "RECOMMENDER_REDIS_CA_FILE: absent cannot be read"),
        (
            {"redis_certificate_file": "", "redis_key_file": ""},
            "lets no TLS connection be made.*RECOMMENDER_REDIS_CERTIFICATE_FILE",
        ),
    ],
)
def test_what_redis_refuses(server: SecuredRedis, changed: dict[str, str], said: str) -> None:
    """One sentence names the setting, and no password."""
    changed = {k: server.other_ca_file if v == "other" else v for k, v in changed.items()}
    with pytest.raises(InvalidSetting, match=said) as raised:
        check_redis(secured(server, **changed))
    assert "Pl4nted" not in str(raised.value)
