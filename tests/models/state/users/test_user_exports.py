"""The export of a user: complete over all families of keys, bounded, and empty for a stranger."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.action_groups import actions_group
from models.metadata_records import Properties
from models.served_messages import ServedList
from models.settings import Settings
from models.state.catalogue.metadata import put_items, put_users
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.outcomes.served_lists import log_served
from models.state.outcomes.served_outcomes import (
    ServedMessage,
    ServedPart,
    apply_served,
    stored_list,
)
from models.state.shards.shard_names import owner_shard
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from models.state.users import user_exports
from models.state.users.user_exports import EXPORTED, WITHOUT_USERS, export_user
from tests.models.state.reference import NOW, click, erasure, message
from tests.models.state.shards.test_sharded_steps import make_network, to_log

ROOT = Path(__file__).parents[4]
FAMILY = re.compile(r"\{group(?:/[a-z]+NN)?\}:([a-z]+)")
USED = re.compile(
    r"""(?:store|self)\.key\(f?"([a-z]+)|\{\{\{\w+\}\}\}:([a-z]+)|prefix \.\. '([a-z]+)"""
)
"""A key of a group as code makes it: in Python by a store or as text, and in Lua."""


def actions_of(store: Store) -> Store:
    """State of the actions of a store's group."""
    group = actions_group(store.settings.group)
    return Store(store.redis, store.settings.model_copy(update={"group": group}))


async def exported(store: Store, user: str, now_s: float = NOW) -> dict[str, Any]:
    """The export of a user as a client reads it."""
    pieces = [piece async for piece in export_user(store, actions_of(store), user, now_s=now_s)]
    read: dict[str, Any] = json.loads(b"".join(pieces))
    return read


async def fill(store: Store, **properties: Any) -> None:
    """Events and a record of Ada's, and others'."""
    messages = [
        message(0, click("a", 0, NOW - 30), session="phone"),
        message(1, click("b", 1, NOW - 20), user="ada", session="phone"),
        *(
            message(2 + n, click("c", 2 + n, NOW - 9 + n), user="ada", session="x")
            for n in range(9)
        ),
        message(11, click("d", 11, NOW - 8), session="ada"),
        message(12, click("b", 12, NOW - 5), user="bob", session="y"),
    ]
    await store.apply([Part("p/0", -1, messages)], now_s=NOW)
    record: Properties = {"AGE": 36, **properties}
    await put_users(store, [("ada", record), ("bob", {"AGE": 7})], NOW)
    await put_items(store, [("a", {"GENRES": "red"})], NOW)
    await log_served(store, {"r1": ["a", "b"]}, ["a"], now_s=NOW)
    lists = [
        ServedList(name, NOW - 15.0, ["b", "new"], "tt", "trending-now", "ada", placement="home",
                   experiment="e1", arm="bold", horizon_s=60)
        for name in ("r8", "r9")
    ]  # fmt: skip
    served = ServedMessage(0, "", [stored_list(one) for one in lists])
    await apply_served(store, [ServedPart("s/0", -1, [served])], now_s=NOW)


@pytest.mark.unit
def test_every_family_of_keys_is_decided() -> None:
    """A family that a module documents is exported, or it is said why not."""
    table = (ROOT / "docs" / "architecture.md").read_text().partition("## Keys in Redis")[2]
    named = re.findall(r"`(models/[\w/]+\.py)`", table.partition("\n## ")[0])
    assert {"models/state/store.py", "models/state/catalogue/metadata.py"} <= set(named)
    modules = {
        *named,
        *(str(one.relative_to(ROOT)) for one in (ROOT / "models/state").rglob("*.py")),
    }
    documented = {family for one in modules for family in FAMILY.findall((ROOT / one).read_text())}

    assert not set(EXPORTED) & set(WITHOUT_USERS)
    assert documented == set(EXPORTED) | set(WITHOUT_USERS)
    # Of the table of sizes, those of a group; `sessions` stand in `owners`.
    sizes = (ROOT / "docs" / "operations.md").read_text().partition("| family | what |")[2]
    rows = re.findall(r"^\| ((?:`[a-z]+`,? ?)+)\|", sizes.partition("\n\n")[0], re.MULTILINE)
    families = {name for row in rows for name in re.findall(r"`([a-z]+)`", row)}
    assert len(families) > 20
    of_all_groups = {"sessions", "trackers", "former", "groups", "resources"}
    assert families - of_all_groups <= set(EXPORTED) | set(WITHOUT_USERS)


@pytest.mark.unit
def test_every_family_that_code_uses_is_decided() -> None:
    """Also one that no module documents."""
    files = [
        path
        for package in ("models", "streams", "api", "cli", "ops", "drill")
        for kind in ("*.py", "*.lua")
        for path in (ROOT / package).rglob(kind)
        # Resources of Amazon Personalize are no group's.
        if not path.is_relative_to(ROOT / "models" / "personalize")
    ]
    used = {name for path in files for found in USED.findall(path.read_text()) for name in found}

    assert {"history", "erased", "forward", "figures"} <= used
    assert used - {""} <= set(EXPORTED) | set(WITHOUT_USERS)


async def test_everything_of_a_user_is_in_the_export(
    make_store: Callable[..., Store],
) -> None:
    """Wherever the state holds the user's name or number, the export has it."""
    store = make_store(history_events=10)
    await fill(store)

    found = await exported(store, "ada")

    assert (found["group"], found["userId"]) == (store.settings.group, "ada")
    assert found["exportedAt"] == NOW
    assert found["record"] == {"properties": {"AGE": 36}, "updatedAt": NOW}
    assert found["linkedSessions"] == ["phone", "x"]
    assert found["erasures"] == []
    own, session = found["histories"]
    assert (own["owner"], own["id"], own["eventCount"]) == ("user", "ada", 11)
    assert [one["itemId"] for one in own["events"]] == ["b", *"c" * 9]
    assert own["events"][0]["occurredAt"] == NOW - 20
    assert {one["eventType"] for one in own["events"]} == {"click"}
    assert (session["owner"], session["id"]) == ("session", "ada")
    assert [one["itemId"] for one in session["events"]] == ["d"]
    ids = [one["eventId"] for one in own["events"]]
    assert len(own["trimmedEventIds"]) == 1
    assert {*ids, *own["trimmedEventIds"]} >= set(own["recentEventIds"]) >= set(ids)
    assert (own["rememberedBy"], session["rememberedBy"]) == (["b", "c"], ["d"])
    (served,) = found["served"]
    assert (served["owner"], served["id"]) == ("user", "ada")
    assert [one["recommendationId"] for one in served["servedLists"]] == ["r8", "r9"]
    assert served["servedLists"][1] == {
        "recommendationId": "r9", "servedAt": NOW - 15, "placement": "home",
        "items": ["b", "new"], "taken": [],
    }  # fmt: skip
    assert [(one["experiment"], one["arm"]) for one in served["experiments"]] == [("e1", "bold")]

    with_name = set()
    for key in await store.redis.keys(store.key("*")):
        kind = (await store.redis.type(key)).decode()
        value = {
            "string": store.redis.get, "hash": store.redis.hgetall, "set": store.redis.smembers,
        }.get(kind)  # fmt: skip
        held = await (value(key) if value else store.redis.zrange(key, 0, -1))
        number = own["number"].to_bytes(4, "little") if b":takers:" in key else b"ada"
        if b"ada" in key or repr(number)[2:-1] in repr(held):
            with_name.add(re.sub(r"^\{[^}]*\}:([a-z]+).*$", r"\1", key.decode()))
    assert (
        {"history", "links", "owners", "users", "takers", "shown", "askers"}
        <= with_name
        <= set(EXPORTED)
    )


async def test_many_histories_come_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document is the same, however many histories a piece holds."""
    await fill(store)
    whole = await exported(store, "ada")
    monkeypatch.setattr(user_exports, "OWNERS_PER_READ", 1)

    pieces = [piece async for piece in export_user(store, actions_of(store), "ada", now_s=NOW)]

    assert len(pieces) == 5
    assert json.loads(b"".join(pieces)) == whole


async def test_of_a_stranger_and_of_an_erased_user(store: Store) -> None:
    """Nothing is held of one that never came; of an erased one until when it is erased."""
    await fill(store)
    nobody = await exported(store, "nobody")
    assert (nobody["record"], nobody["linkedSessions"], nobody["histories"]) == (None, [], [])

    await store.apply([Part("p/0", 12, [erasure(13, "ada", NOW + 1.0)])], now_s=NOW + 1)
    found = await exported(store, "ada", NOW + 2)

    assert (found["linkedSessions"], found["histories"], found["served"]) == ([], [], [])
    assert found["erasures"] == [
        {"owner": kind, "id": "ada", "erasedUntil": NOW + 1.0} for kind in ("user", "session")
    ]
    assert (await exported(store, "bob", NOW + 2))["histories"][0]["eventCount"] == 1


async def test_of_a_user_whose_sessions_are_on_other_shards(redis_url: str) -> None:
    """The histories, links and numbers of all shards, and nobody else's."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 3, random.Random(1), 10)
            sessions = [f"s{n}" for n in range(4)]
            assert len({owner_shard(name, 3) for name in ("ada", *sessions)}) == 3
            for number in range(13):
                event = click("abcdefghijklm"[number], number, NOW - 50 + number)
                to_log(network, "ada", sessions[number % 4], [event])
                to_log(network, f"u{number}", f"u{number}", [click("a", 100 + number)])
            to_log(network, "", "ada", [click("b", 200)])
            await network.drain()
            sharded = Settings(group="h", shards=3, outcomes=False)
            store = ShardedStore(client, sharded)
            of_actions = sharded.model_copy(update={"group": actions_group("h")})
            actions = ShardedStore(client, of_actions)

            pieces = [piece async for piece in export_user(store, actions, "ada", now_s=NOW)]

            found = json.loads(b"".join(pieces))
            assert sorted(found["linkedSessions"]) == sessions
            own, session = found["histories"]
            assert (own["owner"], own["id"], own["eventCount"]) == ("user", "ada", 13)
            assert [one["itemId"] for one in own["events"]] == list("defghijklm")
            assert sorted(own["rememberedBy"]) == list("defghijklm")
            assert len(own["trimmedEventIds"]) == 3
            ids = {one["eventId"] for one in own["events"]} | {*own["trimmedEventIds"]}
            assert set(own["recentEventIds"]) == ids
            assert (session["owner"], session["id"]) == ("session", "ada")
        finally:
            await client.flushdb()
