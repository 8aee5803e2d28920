"""An event changes the next recommendation: through HTTP, Kafka, the worker and Redis."""

from __future__ import annotations

import json
import time

from kafka import KafkaProducer

from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics
from tests.stack import Stack


def items(answer: dict[str, object]) -> list[str]:
    """The item ids of an answer."""
    listed = answer["items"]
    assert isinstance(listed, list)
    return [item["itemId"] for item in listed]


def test_click_changes_the_next_recommendation(running: Stack) -> None:
    """The items that followed in other sessions are recommended, with the click as reason."""
    last = []
    for session in range(3):
        for item in ("tent", "stove", "lamp"):
            after = running.click(item, session=f"campers-{session}")
        last.append(after)
        for item in ("umbrella", "raincoat", "boots"):
            after = running.click(item, session=f"rain-{session}")
        last.append(after)
    # The sessions are in several partitions, and each takes effect in its own time.
    after = ".".join([*last, running.click("umbrella", user="ada", session="ada-0")])
    # Co-visited items come before trending ones.
    before = items(running.recommend(f"user_id=ada&after={after}&num_results=5"))
    assert before[:2] == ["raincoat", "boots"]

    after = running.click("tent", user="ada", session="ada-1")
    answer = running.recommend(f"user_id=ada&after={after}&reasons=true&num_results=5")

    assert answer["freshness"]["afterReached"] is True
    assert answer["recipe"] == "user-personalization"
    assert items(answer) != before
    assert items(answer)[:2] == ["stove", "lamp"]
    assert answer["items"][0]["reasons"][0]["itemId"] == "tent"


def test_session_joins_the_user_at_login(running: Stack) -> None:
    """Anonymous events count for the user once an event names both."""
    running.click("pen", session="writer-0")
    written = running.click("ink", session="writer-0")
    after = f"{written}.{running.click('pen', session='anonymous-7')}"
    assert "ink" in items(running.recommend(f"session_id=anonymous-7&after={after}"))

    after = running.click("paper", user="bob", session="anonymous-7")
    answer = running.recommend(f"user_id=bob&after={after}&reasons=true")
    causes = {r.get("itemId") for item in answer["items"] for r in item["reasons"]}

    assert "pen" in causes
    status, erased = running.ask("DELETE", "/users/bob")
    assert status == 200
    assert erased.pop("after")
    assert erased.pop("receipt")["document"]
    assert erased == {"userId": "bob", "events": 2, "sessions": 1, "links": 1, "records": 0}
    assert running.recommend("user_id=bob")["recipe"] == "trending-now"


def test_purchased_items_can_be_left_out(running: Stack) -> None:
    """exclude_purchased removes items that the user has bought."""
    for session in range(2):
        for item in ("racket", "balls", "grip"):
            running.click(item, session=f"tennis-{session}")
    event = {"eventType": "purchase", "itemId": "balls", "sentAt": time.time() - 60}
    message = {"sessionId": "eve-1", "userId": "eve", "eventList": [event]}
    status, answer = running.ask("POST", "/events", message)
    assert status == 202
    running.recommend(f"user_id=eve&after={answer['after']}")
    after = running.click("racket", user="eve", session="eve-1")

    with_it = running.recommend(f"user_id=eve&after={after}")
    without = running.recommend("user_id=eve&exclude_purchased=true")

    assert "balls" in items(with_it)
    assert "balls" not in items(without)
    assert "grip" in items(without)


def test_any_producer_may_send(running: Stack) -> None:
    """The Tracker and a plain Kafka client have the same effect as HTTP."""
    with Tracker(running.settings) as tracker:
        token = tracker.track("kim", "kim-1", "kettle", "click").result().token()
    assert running.recommend(f"user_id=kim&after={token}")["freshness"]["afterReached"] is True

    event = {"eventType": "click", "itemId": "cup", "sentAt": time.time() * 1000}
    message = {"sessionId": "kim-1", "userId": "kim", "eventList": [event]}
    producer = KafkaProducer(bootstrap_servers=running.settings.kafka)
    topic = Topics.of(running.settings).clicks
    producer.send(topic, key=b"kim-1", value=json.dumps(message).encode()).get(30)
    producer.close()

    running.wait(
        lambda: "cup" in items(running.recommend("user_id=kim&item_id=kettle")),
        "a plain producer's event is in effect",
    )


def test_token_beyond_the_end_is_not_reached(running: Stack) -> None:
    """Waiting for an event that does not exist ends after the time limit."""
    answer = running.recommend("user_id=ada&after=c0-999999999")

    assert answer["freshness"]["afterReached"] is False
