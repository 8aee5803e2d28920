"""Metadata over HTTP and Kafka: in effect at once, kept, and removed with an erasure."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaProducer

from models.state.catalogue.metadata import item_properties, user_properties
from models.state.store import Store
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics
from tests.stack import Stack


def put_items(stack: Stack, **items: dict[str, Any]) -> str:
    """Put items with properties; gives the token."""
    records = [{"itemId": name, "properties": found} for name, found in items.items()]
    status, answer = stack.ask("PUT", "/items", {"items": records})
    assert (status, answer["accepted"]) == (202, len(items))
    return str(answer["after"])


def test_metadata_is_shown(running: Stack) -> None:
    """Properties of the newest record, with the counts of the item."""
    put_items(running, drum={"PRICE": 9.5, "GENRE": "loud|wood"})
    after = f"{put_items(running, drum={'PRICE': 7})}.{running.click('drum', session='drummer')}"

    status, told = running.ask("GET", f"/items/drum?after={after}")

    assert status == 200
    assert (told["itemId"], told["properties"], told["events"]) == ("drum", {"PRICE": 7}, 1)
    assert told["createdAt"] < told["updatedAt"]
    status, answer = running.ask("GET", "/items/unheard-of")
    assert (status, answer["error"]["type"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/items", b"{bad"),
        ("/items", {"items": []}),
        ("/items", {"items": [{"itemId": f"i{n}", "properties": {}} for n in range(11)]}),
        ("/items", {"items": [{"itemId": "", "properties": {}}]}),
        ("/items", {"items": [{"itemId": "i", "properties": {"A": ["b"]}}]}),
        ("/items", {"items": [{"itemId": "i", "properties": {"A": "x" * 32_000}}]}),
        ("/items", {"items": [{"itemId": "i", "properties": {}, "colour": "red"}]}),
        ("/users", {"users": [{"userId": "u", "properties": {"A": "x" * 24_000}}]}),
        ("/users", {"items": [{"itemId": "i", "properties": {}}]}),
    ],
)
def test_bad_records_are_refused(running: Stack, path: str, body: object) -> None:
    """Nothing of a call with a bad record is accepted, and the error names it."""
    status, answer = running.ask("PUT", path, body)

    assert (status, answer["error"]["type"]) == (400, "invalid_record")
    assert answer["error"]["message"]


def test_long_records_fit_into_a_call(running: Stack) -> None:
    """Ten records of the greatest length are accepted, beyond the bound of other bodies."""
    longest = {"A": "漢" * (32_000 - 8)}
    after = put_items(running, **{f"long-{n}": longest for n in range(10)})

    status, told = running.ask("GET", f"/items/long-9?after={after}")
    assert (status, told["properties"]) == (200, longest)
    assert running.ask("PUT", "/items", b" " * 4_000_000)[0] == 413


def test_what_is_sold_out_or_has_expired_is_hidden(running: Stack) -> None:
    """From the record on, in answers and for the console; variants of a product are shown once."""
    names = [f"shelf-{n}" for n in range(4)]
    for name in names:
        running.click(name, session="shelves")

    def shown(query: str = "") -> list[str]:
        _, answer = running.ask("GET", f"/popular?num_results=100{query}")
        return [item["itemId"] for item in answer["items"] if item["itemId"] in names]

    running.wait(lambda: sorted(shown()) == names, "the clicks are in the top lists")
    after = put_items(
        running,
        **{
            names[0]: {"AVAILABILITY": "out_of_stock"},
            names[1]: {"EXPIRES_AT": "2020-01-01"},
            names[2]: {"ITEM_GROUP_ID": "shelf"},
            names[3]: {"ITEM_GROUP_ID": "shelf"},
        },
    )

    assert shown(f"&after={after}") in ([names[2]], [names[3]])
    hidden = [running.ask("GET", f"/items/{name}")[1]["isHidden"] for name in names]
    assert hidden == [True, True, False, False]


def test_a_cold_item_appears_among_its_category(running: Stack) -> None:
    """An item without events is recommended with another of its category."""
    genre = {"GENRE": "camping|outdoor"}
    put_items(running, **{"cold-lamp": genre, "cold-mat": {"GENRE": "yoga"}})
    after = f"{put_items(running, **{'cold-tent': genre})}"
    running.recommend(f"after={after}")

    for path in (
        "/similar/cold-tent",
        "/recommend?item_id=cold-tent",
        "/recommend?user_id=nora",
    ):
        after = running.click("cold-tent", user="nora", session="nora-1")
        status, answer = running.ask("GET", f"{path}{'&' if '?' in path else '?'}after={after}")
        assert status == 200
        assert answer["items"][0]["itemId"] == "cold-lamp"
        assert answer["items"][0]["reasons"][0]["source"] == "category"
        assert answer["recipe"] != "trending-now"
        assert "cold-tent" not in {item["itemId"] for item in answer["items"]}


def test_an_erased_user_has_no_metadata(running: Stack) -> None:
    """It is removed from Redis and from the topic."""
    records = [{"userId": "rob", "properties": {"AGE": 36}}]
    status, answer = running.ask("PUT", "/users", {"users": records})
    assert status == 202
    running.recommend(f"after={answer['after']}")

    async def known(store: Store) -> Any:
        return await user_properties(store, "rob")

    assert running.stored(known) == {"AGE": 36}
    status, erased = running.ask("DELETE", "/users/rob")
    assert (status, erased["records"]) == (200, 1)

    assert running.stored(known) is None
    assert running.ask("DELETE", "/users/rob")[1]["records"] == 0


def test_records_survive_a_killed_worker(stack: Callable[..., Stack]) -> None:
    """After kill -9 among thousands of records, the next worker ends with the newest of each."""
    one = stack()
    with Tracker(one.settings, linger_ms=20) as tracker:
        for version in range(10):
            tracker.put_items(one.settings.group, [(f"i{n}", {"N": version}) for n in range(400)])
    producer = KafkaProducer(bootstrap_servers=one.settings.kafka)
    producer.send(Topics.of(one.settings).items, key=b"?", value=b"bad").get(30)
    producer.close()
    worker = one.start("worker")
    one.wait(lambda: one.counts().get("item_updates", 0) > 400, "records are in effect")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert one.counts()["item_updates"] < 4000
    one.start("worker")
    one.wait(lambda: one.counts()["item_updates"] == 4000, "all records are in effect")
    one.wait(lambda: one.status().lag == 0, "nothing waits")

    async def known(store: Store) -> Any:
        return await item_properties(store, [f"i{n}" for n in range(400)])

    assert one.stored(known) == [{"N": 9}] * 400
    assert one.counts()["items"] == 400
    assert "metadata  invalid" in one.run("dead-letters", "list").stdout


def test_a_deleted_item_is_in_no_answer(running: Stack) -> None:
    """Not in the next one, its properties are gone, and a new record brings it back."""
    for user in ("one", "two"):
        running.click("fife", session=f"deleting-{user}", user=f"deleting-{user}")
        after = running.click("horn", session=f"deleting-{user}", user=f"deleting-{user}")
    put_items(running, horn={"GENRE": "loud"})
    asked = "/similar/fife"
    assert "horn" in [
        one["itemId"] for one in running.ask("GET", f"{asked}?after={after}")[1]["items"]
    ]

    status, answer = running.ask("DELETE", "/items/horn")

    assert status == 202
    listed = running.ask("GET", f"{asked}?after={answer['after']}")[1]["items"]
    assert "horn" not in [one["itemId"] for one in listed]
    told = running.ask("GET", "/items/horn")[1]
    assert (told["isHidden"], "GENRE" in told["properties"], told["events"]) == (True, False, 2)
    after = put_items(running, horn={"GENRE": "loud"})
    listed = running.ask("GET", f"{asked}?after={after}")[1]["items"]
    assert "horn" in [one["itemId"] for one in listed]
    assert running.ask("DELETE", "/items/never-heard-of")[0] == 404
