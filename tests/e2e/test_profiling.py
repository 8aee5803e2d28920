"""profiling=off: what the API asks Redis for, and what it keeps, when nobody is to be profiled."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import redis

from models.ranking.ranker import N_PARAMETERS, ListwiseRanker
from models.settings import Settings
from models.state.clients.client import connect
from models.state.outcomes.served_lists import served
from models.state.store import Store
from ops.embedded_servers import start_redis
from tests.api_server import Api, request, serve_api, wait_for
from tests.models.serving.test_recommender import Shop
from tests.models.serving.test_sources import serve
from tests.servers import own_port

OF_USERS = {"history", "forgotten", "links", "owners", "takers", "recent", "users", "erased"}
"""Families of keys that hold something of users, see models.state.store."""

RANKING = json.dumps({"itemIds": ["pen", "lamp"], "userId": "ada", "sessionId": "phone"}).encode()


@dataclass(frozen=True)
class WatchedShop:
    """A running API on a shop of which Ada has bought something, and its Redis."""

    api: Api
    settings: Settings

    def ask(self, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """Status and body of the answer to a GET, or to a POST if there is a body."""
        method = "POST" if body else "GET"
        reply = self.api.ask(request(path, method=method, body=body), method=method)
        return reply.status, json.loads(reply.body)

    def read_by(self, path: str, body: bytes = b"") -> list[str]:
        """All commands that Redis gets while a request is answered."""
        self.wait_until_kept(self.ask("/recommend?user_id=ada")[1]["recommendationId"])
        with redis.Redis.from_url(self.settings.redis) as client, client.monitor() as monitor:
            status, answer = self.ask(path, body)
            assert (status, bool(answer["items"])) == (200, True)
            return commands_of(client, monitor)

    def sent_by(self, path: str, body: bytes) -> tuple[int, list[str]]:
        """As `read_by`, with the status, also of a question that is refused."""
        self.wait_until_kept(self.ask("/recommend?user_id=ada")[1]["recommendationId"])
        with redis.Redis.from_url(self.settings.redis) as client, client.monitor() as monitor:
            return self.ask(path, body)[0], commands_of(client, monitor)

    def wait_until_kept(self, recommendation_id: str) -> None:
        """Wait until a list is stored, and so all that were served before."""
        wait_for(lambda: self.is_kept(recommendation_id), "the list is stored")

    def is_kept(self, recommendation_id: str) -> bool:
        """True if a served list is stored."""

        async def read() -> bool:
            async with connect(self.settings.redis) as client:
                return await served(Store(client, self.settings), recommendation_id) is not None

        return asyncio.run(read())


def commands_of(client: redis.Redis, monitor: Any) -> list[str]:
    """All commands that a monitor has seen until now."""
    client.echo("answered")
    return list(iter(lambda: str(monitor.next_command()["command"]), "ECHO answered"))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedShop]:
    """A shop whose champion reads the histories of a user's neighbours."""
    started = start_redis(tmp_path_factory.mktemp("redis"))
    # Nothing is answered from the cache, and every list holds something for exploration.
    settings = Settings(redis=started.url, port=own_port(), cache_s=0, exploration_share=0.2)

    async def fill() -> None:
        async with connect(settings.redis) as client:
            filled = Shop(Store(client, settings))
            for n in range(4):
                await filled.send(f"camper{n}", "tent", "stove", "lamp", "kite")
                await filled.send(f"reader{n}", "novel", "pen", "ink")
            await filled.send("ada", "tent", "lamp", kind="purchase")
            await filled.send("", "tent", session="phone")
            weights = np.random.default_rng(0).normal(size=N_PARAMETERS)
            await serve(filled, ListwiseRanker(weights), "ranker")

    try:
        asyncio.run(fill())
        with serve_api(settings) as api:
            yield WatchedShop(api, settings)
    finally:
        started.stop()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend?user_id=ada&session_id=phone", b""),
        ("/recommend?user_id=ada&item_id=tent", b""),
        ("/recommend?session_id=phone&item_id=tent&reasons=true", b""),
        ("/recommend?user_id=ada&objective=purchases&item_id=tent", b""),
        ("/rank?", RANKING),
        ("/similar/tent?", b""),
        ("/trending?", b""),
        ("/popular?", b""),
    ],
)
def test_no_key_of_a_user_is_read(shop: WatchedShop, path: str, body: bytes) -> None:
    """Without profiling, Redis is asked for nothing of this user, nor of any other."""
    commands = shop.read_by(f"{path}&profiling=off", body)

    assert [one for one in commands if "ada" in one or "phone" in one] == []
    families = set(re.findall(r"\{shop\}:([a-z]+)", " ".join(commands)))
    assert families
    assert families & (OF_USERS | {"served"}) == set()


@pytest.mark.parametrize("path", ["/recommend", "/similar/tent", "/trending", "/popular"])
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"hide": ["seen", "purchased:3600"]},
        {"filter": "EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ('purchase')"},
        {"filter": "EXCLUDE ItemID WHERE Items.COLOUR IN ('red') IF CurrentUser.AGE > 5"},
        {"boost": [{"filter": "colour:red", "factor": 2}], "pin": [{"item_id": "kite", "slot": 1}]},
    ],
    ids=["none", "hide", "events", "user", "boost"],
)
def test_no_key_of_a_user_is_read_for_a_body(
    shop: WatchedShop, path: str, rules: dict[str, Any]
) -> None:
    """Nor if the question is a body with rules; those that need a user are refused."""
    asked = {"user_id": "ada", "session_id": "phone", "profiling": "off", **rules}
    status, commands = shop.sent_by(path, json.dumps(asked).encode())
    assert status == (400 if {"hide", "filter"} & rules.keys() else 200)

    assert [one for one in commands if "ada" in one or "phone" in one] == []
    families = set(re.findall(r"\{shop\}:([a-z]+)", " ".join(commands)))
    assert families & (OF_USERS | {"served"}) == set()


def test_with_profiling_keys_of_the_user_are_read(shop: WatchedShop) -> None:
    """What the test above looks for is found where profiling is on, as it is by default."""
    for more in ("", "&profiling=on"):
        read = shop.read_by(f"/recommend?user_id=ada&session_id=phone&item_id=tent{more}")
        for part in (":history:u:ada", ":history:s:phone", ":takers:", ":history:u:camper"):
            assert any(part in one for one in read), part
        assert any(":history:u:ada" in one for one in shop.read_by(f"/rank?{more[1:]}", RANKING))


def test_the_answer_is_that_of_a_stranger(shop: WatchedShop) -> None:
    """Two users get the same items, with the same item in view; nothing is explored."""
    off = "/recommend?profiling=off&item_id=tent"
    ada, reader, nobody = (
        shop.ask(f"{off}{user}")[1] for user in ("&user_id=ada", "&user_id=reader1", "")
    )

    assert ada["items"] == reader["items"] == nobody["items"]
    assert ada["items"][0]["itemId"] != "tent"
    assert ada["freshness"]["userEventAt"] is None
    ranked, nobodys = (
        shop.ask("/rank?profiling=off", body)[1]["items"]
        for body in (RANKING, b'{"itemIds": ["pen", "lamp"]}')
    )
    assert ranked == nobodys


def test_the_answer_is_not_kept(shop: WatchedShop) -> None:
    """A click on it is attributed to nothing, for the list is not stored."""
    paths = ("/recommend?user_id=ada", "/similar/tent?", "/trending?", "/popular?")
    off = [shop.ask(f"{path}&profiling=off")[1]["recommendationId"] for path in paths]
    off.append(shop.ask("/rank?profiling=off", RANKING)[1]["recommendationId"])
    on = shop.ask("/recommend?user_id=ada")[1]["recommendationId"]

    shop.wait_until_kept(on)
    assert [shop.is_kept(one) for one in off] == [False] * len(off)


def test_what_needs_the_history_is_refused(shop: WatchedShop) -> None:
    """Purchases cannot be left out without reading them; other values of profiling are errors."""
    for query, named in (
        ("exclude_purchased=true&profiling=off", "exclude_purchased"),
        ("profiling=false", "profiling"),
    ):
        status, answer = shop.ask(f"/recommend?user_id=ada&{query}")
        assert (status, answer["error"]["type"]) == (400, "invalid_request")
        assert named in answer["error"]["message"]
