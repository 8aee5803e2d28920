"""A group of several shards: both hops, and answers that read all of its shards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.stack import Stack

SHARDS = 4
N_EVENTS = 50
OPTIONS: dict[str, Any] = {"outcomes": False, "exploration_share": 0, "examples_per_s": 0}


def send_stream(one: Stack, at_s: float) -> None:
    """A fixed random stream of users, sessions, and logins; each event is waited for."""
    chance = random.Random(7)
    for number in range(N_EVENTS):
        user = chance.choice(["", *(f"u{x}" for x in range(6))])
        session = f"s{chance.randrange(12)}"
        event = {
            "eventType": chance.choice(["click", "click", "purchase"]),
            "itemId": f"i{int(chance.paretovariate(1.1)) % 30}",
            "sentAt": at_s + number,
            "eventId": f"e{number}",
        }
        after = send(one, session, event, **({"userId": user} if user else {}))
        assert reached(one, f"session_id={session}&after={after}")


def send(one: Stack, session: str, event: dict[str, Any], **more: str) -> str:
    """Send an event; gives its token."""
    message = {"sessionId": session, "eventList": [event], **more}
    status, answer = one.ask("POST", "/events", message)
    assert status == 202, answer
    return str(answer["after"])


def reached(one: Stack, query: str) -> bool:
    """True if what an answer waited for is in effect."""
    return bool(one.recommend(query)["freshness"]["afterReached"])


def scores(one: Stack, path: str) -> dict[str, float]:
    """Scores of an answer by item id."""
    status, answer = one.ask("GET", path)
    assert status == 200, answer
    return {item["itemId"]: item["score"] for item in answer["items"]}


def begin(one: Stack, at_s: float) -> None:
    """Start a worker and an API, and have a first event in effect."""
    one.start("worker")
    one.start("api")
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    after = send(one, "first", {"itemId": "i1", "sentAt": at_s, "eventType": "click"})
    one.wait(lambda: reached(one, f"after={after}"), "in effect")


def are_alike(single: Stack, sharded: Stack, path: str) -> bool:
    """True if both give the same items with nearly the same scores.

    Counts are rounded by chance that follows from an item's index (decision 33), which differs.
    """
    return scores(sharded, path) == pytest.approx(scores(single, path), rel=0.15, abs=0.002)


def test_answers_are_those_of_one_shard(embedded_stack: Callable[..., Stack]) -> None:
    """The same events, one after the other, to a group of four shards and to one of one shard."""
    at_s = time.time() - N_EVENTS
    stacks = [embedded_stack(**OPTIONS), embedded_stack(shards=SHARDS, **OPTIONS)]
    for one in stacks:
        begin(one, at_s)
        send_stream(one, at_s)
    single, sharded = stacks
    for path in (
        "/trending",
        *(f"/similar/i{n}" for n in range(1, 4)),
        *(f"/recommend?user_id=u{n}" for n in range(6)),
        "/recommend?user_id=nobody",
    ):
        sharded.wait(lambda: are_alike(single, sharded, path), f"{path} is the same", within_s=20)  # noqa: B023
        assert scores(single, path)
    names = ("events", "purchases", "items")
    counts = [one.status().counts for one in stacks]
    assert {n: counts[1][n] for n in names} == {n: counts[0][n] for n in names}
    assert sharded.status().lag == 0
    _show_shards(sharded)
    _refuse(sharded)
    _erase(single, sharded)


def _show_shards(one: Stack) -> None:
    """The status, the API of the console and the metrics of the worker tell each shard's load."""
    status, answer = one.ask("GET", "/status")
    assert status == 200, answer
    shards = {shard["name"]: shard for shard in answer["shards"]}
    assert list(shards) == [f"{kind}0{number}" for kind in "ui" for number in range(SHARDS)]
    applied = {kind: sum(shards[n]["applied"] for n in shards if n[0] == kind) for kind in "ui"}
    assert applied["u"] == one.counts()["events"]
    assert applied["i"] > N_EVENTS
    assert all(shard["lag"] == 0 and shard["keys"] and shard["bytes"] for shard in shards.values())
    shown = one.run("status", "--partitions")
    assert "shards:           4 for users, the busiest u0" in shown.stdout
    assert "\ni03 " in shown.stdout


def _erase(single: Stack, sharded: Stack) -> None:
    """An erasure reaches the user's shard and those of the sessions; the export says the same."""
    exports = [one.ask("GET", "/users/u1/export")[1] for one in (single, sharded)]
    of_user = [
        [(event["itemId"], event["eventId"]) for event in found["histories"][0]["events"]]
        for found in exports
    ]
    assert sorted(of_user[0]) == sorted(of_user[1])
    assert of_user[0]
    found = []
    for one in (single, sharded):
        status, answer = one.ask("DELETE", "/users/u1")
        assert status == 200, answer
        found.append({name: answer[name] for name in ("events", "sessions", "links")})
        assert reached(one, f"user_id=u1&after={answer['after']}")
        assert one.recommend("user_id=u1")["freshness"]["userEventAt"] is None
    assert found[0] == found[1]


def _refuse(one: Stack) -> None:
    """What does not know shards says so."""
    refused = one.run("drill", "--configured")
    assert refused.returncode
    assert "needs a group of one shard, and RECOMMENDER_SHARDS=4" in refused.stderr
    other = one.run("status", RECOMMENDER_SHARDS="2")
    assert other.returncode == 0
    assert "is on 4 shard(s), and RECOMMENDER_SHARDS=2" in other.stderr
