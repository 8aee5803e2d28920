"""Erased users and the forwarder: waiting events are not sent, and no log names the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from models.state.operations.forwarding_ledger import tracker_waiting
from models.state.store import Store
from streams.kafka.dead_letters import letters as dead_letters
from streams.kafka.producing.tracker import Tracker
from tests.stack import Stack
from tests.streams.forwarding.forwarding_fixtures import environment
from tests.streams.forwarding.personalize_stub import PersonalizeStub

USER = "ada-4f1d7c"


@pytest.fixture
def aws() -> Iterator[PersonalizeStub]:
    """A fake Amazon Personalize."""
    with PersonalizeStub() as stub:
        yield stub


def send(
    stack: Stack, event_id: str, *, user: str | None, session: str, sent_at: float | None = None
) -> str:
    """Send a click; gives its token."""
    event = {
        "eventType": "click", "itemId": "i", "eventId": event_id, "sentAt": sent_at or time.time(),
    }  # fmt: skip
    message = {"sessionId": session, "eventList": [event]} | ({"userId": user} if user else {})
    status, answer = stack.ask("POST", "/events", message)
    assert status == 202, answer
    return str(answer["after"])


def waiting(stack: Stack) -> int:
    """Events that a forwarder has read and that AWS has not answered."""

    async def read(store: Store) -> int:
        found = await tracker_waiting(store.redis, stack.settings.group)
        return sum(one.events for one in found.values())

    return stack.stored(read)


def erase(stack: Stack) -> None:
    """Erase the user, in effect on return."""
    status, answer = stack.ask("DELETE", f"/users/{USER}")
    assert (status, answer["userId"]) == (200, USER)


def test_waiting_events_of_an_erased_user_are_not_sent(
    embedded_stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """Neither once AWS is back, nor by retries; other events are sent."""
    one = embedded_stack(after_timeout_s=30)
    aws.behaviour = "unavailable"
    for command in ("worker", "api"):
        one.start(command)
    one.wait_ready()
    began_s = time.time()
    send(one, "a1", user=None, session="s1")
    send(one, "a2", user=USER, session="s1")
    after = send(one, "a3", user=USER, session="s2")
    send(one, "b1", user="bob", session="s3")
    one.start("forward", **environment(aws))
    one.wait(lambda: waiting(one) == 5, "all wait in the forwarder's hands")
    one.recommend(f"user_id={USER}&after={after}")
    erase(one)
    aws.behaviour = "answer"
    one.wait(lambda: "b1" in aws.taken_ids(), "the others' are sent")
    # A retry of an accepted event, and one of a refused event.
    send(one, "a2", user=USER, session="s1", sent_at=began_s)
    send(one, "a4", user=USER, session="s9", sent_at=began_s)
    send(one, "a5", user=USER, session="s9")
    one.wait(lambda: "a5" in aws.taken_ids(), "what is new is sent")
    one.wait(lambda: one.status().forward["waiting"] == 0, "nothing waits")

    assert {"a1", "a2", "a3", "a4"}.isdisjoint(aws.taken_ids())
    counts = one.status().forward
    assert (counts["withheld"], counts["forwarded"]) == (5, 3)

    async def values(store: Store) -> list[dict[bytes, bytes]]:
        keys = await store.redis.keys(store.key("forward:*"))
        return [await store.redis.hgetall(key) for key in keys]

    assert USER not in str(one.stored(values))
    assert list(dead_letters(one.settings, again=True)) == []


def test_an_erasure_holds_without_worker_and_redis(
    embedded_stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """The forwarder reads it from the log."""
    one = embedded_stack(partitions=1)
    aws.behaviour = "unavailable"
    one.start("forward", **environment(aws))
    one.start("api")
    one.wait(lambda: one.ask("GET", "/healthz")[0] == 200, "the API answers")
    send(one, "a1", user=USER, session="s1")
    send(one, "a2", user=None, session=USER)
    with Tracker(one.settings) as tracker:
        tracker.erase(one.settings.group, [USER]).result(30)
    send(one, "b1", user="bob", session="s2")
    one.wait(lambda: bool(aws.requests), "it is tried to send them")
    one.wait(lambda: one.status().forward["waiting"] != 0 and waiting(one) == 1, "one still waits")
    with one.servers.redis.away():
        aws.behaviour = "answer"
        one.wait(lambda: "b1" in aws.taken_ids(), "it is sent")
    one.wait(lambda: one.status().forward["waiting"] == 0, "nothing waits")
    assert aws.taken_ids() == ["b1"]


def test_no_log_names_a_user(embedded_stack: Callable[..., Stack], aws: PersonalizeStub) -> None:
    """At no level, in no process, nor in texts of AWS in the ledger or a dead letter."""
    one = embedded_stack(partitions=2, log_level="debug", after_timeout_s=30)
    aws.refuse = lambda event: f"Value '{USER}' at 'userId'" if event["eventId"] == "a2" else None
    one.start("worker")
    one.start("api")
    one.start("forward", **environment(aws))
    one.wait_ready()
    send(one, "a1", user=USER, session="s1")
    after = send(one, "a2", user=USER, session="s1")
    one.recommend(f"user_id={USER}&after={after}")
    one.ask("GET", f"/users/{USER}")
    bad = {"sessionId": "s1", "userId": USER, "eventList": [{"eventType": "click", "sentAt": "x"}]}
    assert one.ask("POST", "/events", bad)[0] == 400
    one.wait(lambda: one.status().dead_letters == 1, "AWS has refused one")
    erase(one)
    send(one, "a3", user=USER, session="s1", sent_at=time.time() - 60)
    one.wait(lambda: one.status().forward["waiting"] == 0, "nothing waits")
    [(letter, _)] = dead_letters(one.settings)
    assert letter.detail == "InvalidInputException: Value '<userId>' at 'userId'"
    assert one.status().forward["last_error"] == letter.detail
    one.stop_all()

    said = {path.name: path.read_text(errors="replace") for path in one.logs.iterdir()}
    assert len(said) == 3
    assert all("DEBUG" in text for text in said.values())
    found = [line for text in said.values() for line in text.splitlines() if USER in line]
    assert found == []
