"""Erased users stay erased, over stops, rebalances and an older Redis; later events count once."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.serving.cached.cache import StateCache
from models.state.store import Store
from models.state.users.erasure_receipts import ErasureDocument, ErasureReceipt, is_signed_by
from models.state.users.user_data import user_data_counts
from tests.e2e.faults.test_resilience import applied_by, restore
from tests.servers import own_port
from tests.stack import Stack

KEY = "r3ceipts-are-signed"
NOTHING = {"events": 0, "sessions": 0, "links": 0, "records": 0}


def visit(user: str, n_events: int) -> list[dict[str, Any]]:
    """Messages of a user, anonymous or not, that a client may send again unchanged."""
    began_s = time.time() - 60
    return [
        {
            "sessionId": f"{user}-{n % 2}",
            "eventList": [
                {
                    "eventType": "click",
                    "itemId": f"i-{user}",
                    "eventId": f"{user}/{n}",
                    "sentAt": began_s + n,
                }
            ],
            # An anonymous user who logs in with the third event.
            **({"userId": user} if n >= 2 else {}),
        }
        for n in range(n_events)
    ]


def send(stack: Stack, messages: Sequence[dict[str, Any]]) -> str:
    """Send messages; gives the last token."""
    answers = [stack.ask("POST", "/events", message) for message in messages]
    assert {status for status, _ in answers} == {202}, answers
    return str(answers[-1][1]["after"])


def held(stack: Stack, user: str) -> dict[str, int]:
    """Counts of a user's data."""
    return stack.stored(lambda store: user_data_counts(store, user, now_s=time.time()))


def counted(stack: Stack, *users: str) -> list[int]:
    """Counted events of each user's item."""

    async def read(store: Store) -> list[int]:
        indexes = await store.item_indexes([f"i-{user}" for user in users])
        stats = await StateCache(store).stats(np.array(indexes, np.int64), time.time())
        return [int(one["events"]) for one in stats]

    return stack.stored(read)


def wait_for_lag_zero(stack: Stack) -> None:
    """Wait until all messages in Kafka are in effect."""
    stack.wait(lambda: stack.status().lag == 0, "nothing waits")


def gone(stack: Stack, user: str) -> None:
    """True if no key holds data of a user, whose name no digest may hold by chance."""
    assert held(stack, user) == NOTHING

    async def keys(store: Store) -> list[bytes]:
        found: list[bytes] = await store.redis.keys(store.key(f"*{user}*"))
        return found

    assert stack.stored(keys) == []


def test_erased_while_no_worker_is_there(stack: Callable[..., Stack]) -> None:
    """Data in effect is erased, and waiting events before the erasure take no effect."""
    one = stack(after_timeout_s=1, receipt_key=KEY)
    worker = one.start("worker")
    one.start("api")
    one.wait_ready()
    sent = visit("anna", 8)
    send(one, sent[:5])
    send(one, visit("bob", 4))
    wait_for_lag_zero(one)
    assert held(one, "anna")["events"] == 5
    worker.terminate()
    assert worker.wait(30) == 0
    send(one, sent[5:])
    status, answer = one.ask("DELETE", "/users/anna")
    assert (status, answer["events"]) == (202, 5)
    receipt = msgspec.convert(answer["receipt"], ErasureReceipt)
    assert is_signed_by(KEY, receipt)
    document = msgspec.json.decode(receipt.document, type=ErasureDocument)
    assert (document.user_id, document.is_in_effect) == ("anna", False)
    assert document.removed[0].count == 5
    send(one, sent)

    one.start("worker")
    wait_for_lag_zero(one)
    gone(one, "anna")
    send(one, sent)
    wait_for_lag_zero(one)
    gone(one, "anna")
    # If partitions are read in another order, waiting events may have counted before the erasure.
    n_counted = counted(one, "anna", "bob")
    assert (5 <= n_counted[0] <= 8, n_counted[1]) == (True, 4)
    assert one.counts()["events"] == sum(n_counted) + 1
    again = visit("anna", 9)[-1]
    again["eventList"][0]["sentAt"] = time.time()
    send(one, [again])
    wait_for_lag_zero(one)
    assert held(one, "anna")["events"] == 1
    assert counted(one, "anna", "bob") == [n_counted[0] + 1, 4]


def test_erased_before_redis_came_back_older(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The erasure is applied again with all lost effects, also if that happens twice."""
    one = stack(after_timeout_s=30)
    one.start("worker")
    one.start("api")
    one.wait_ready()
    sent = visit("anna", 6)
    send(one, sent)
    wait_for_lag_zero(one)
    synced_at = time.monotonic() + 2  # the append-only file is synced each second
    one.wait(lambda: time.monotonic() > synced_at, "it is on disk")
    older = tmp_path / "older"
    shutil.copytree(one.servers.redis.data, older)
    assert one.ask("DELETE", "/users/anna")[0] == 200
    send(one, visit("bob", 4))
    wait_for_lag_zero(one)
    gone(one, "anna")

    for _ in range(2):
        restore(one.servers.redis, older)
        one.wait(lambda: one.ask("POST", "/events", sent[-1])[0] == 202, "a retry is accepted")
        one.wait(lambda: held(one, "bob")["events"] == 4, "what was lost is back")
        send(one, sent)
        wait_for_lag_zero(one)
        gone(one, "anna")
        assert counted(one, "anna", "bob") == [6, 4]
        assert one.counts()["events"] == 11
    assert one.log().count("Redis has lost effects") >= 1


def test_erased_while_another_worker_joins(stack: Callable[..., Stack]) -> None:
    """Before, during and after a rebalance; repeated events of erased users never count."""
    one = stack(after_timeout_s=30)
    ports = own_port(), own_port()
    first = one.start("worker", RECOMMENDER_METRICS_PORT=str(ports[0]))
    one.start("api")
    one.wait_ready()
    users = [f"anna{n}-" for n in range(60)]
    visits = {user: visit(user, 4) for user in users}
    for messages in visits.values():
        send(one, messages)
    wait_for_lag_zero(one)
    one.start("worker", RECOMMENDER_METRICS_PORT=str(ports[1]))
    numbers = itertools.count()
    others, erased, n_after = 0, 0, 0
    while n_after < 5:
        user = users[erased]
        status, _ = one.ask("DELETE", f"/users/{user}")
        assert status in {200, 202}
        send(one, visits[user])
        erased += 1
        # Until both work, and a few more.
        pause_until = time.monotonic() + 0.5
        while time.monotonic() < pause_until:
            send(one, visit(f"bob{next(numbers)}", 1))
            others += 1
        n_after += applied_by(ports[1]) > 0
        assert erased < len(users)
    first.terminate()
    assert first.wait(60) == 0
    for user in users[:erased]:
        send(one, visits[user])
    wait_for_lag_zero(one)

    for user in users[:erased]:
        gone(one, user)
    assert held(one, users[erased])["events"] == 4
    assert set(counted(one, *users)) == {4}
    assert one.counts()["events"] == 4 * len(users) + others + 1
