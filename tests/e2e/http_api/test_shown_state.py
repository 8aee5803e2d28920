"""Routes that show the state: lists of items, a user, the path of events, live figures."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

from api.schemas import LiveFigures
from models.state.catalogue.item_listing import CHUNK
from streams.kafka.topics import Topics
from tests.access.api_key_fixtures import keyed_api
from tests.e2e.test_metadata import put_items
from tests.stack import Stack


def listed(stack: Stack, query: str) -> dict[str, Any]:
    """The answer of GET /items."""
    status, answer = stack.ask("GET", f"/items?{query}")
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def await_effect(stack: Stack, after: str) -> None:
    """Wait until the events or records of a token are in effect, however busy the machine is."""
    stack.wait(
        lambda: bool(stack.ask("GET", f"/events/{after}")[1]["isInEffect"]), "they are in effect"
    )


def names(answer: dict[str, Any]) -> list[str]:
    """Item ids of a list."""
    return [item["itemId"] for item in answer["items"]]


@pytest.mark.any_broker
def test_items_are_found_by_words(running: Stack) -> None:
    """Every word must be in the id or a text, in any case; numbers and names of columns do not."""
    items: dict[str, dict[str, Any]] = {
        "shown-1": {"NAME": "Blue Kettle", "PRICE": 39},
        "shown-2": {"NAME": "Red kettle"},
        "shown-3": {"NAME": "Straße", "STOCK": "kettle cover"},
    }
    await_effect(running, put_items(running, **items))

    assert sorted(names(listed(running, "query=KETTLE+shown"))) == [
        "shown-1", "shown-2", "shown-3",
    ]  # fmt: skip
    assert names(listed(running, "query=kettle+blue")) == ["shown-1"]
    assert names(listed(running, "query=STRASSE")) == ["shown-3"]
    assert names(listed(running, "query=shown+39")) == []
    assert names(listed(running, "query=shown+stock")) == []
    (only,) = listed(running, "query=shown-1")["items"]
    assert only["properties"] == {"NAME": "Blue Kettle", "PRICE": 39}
    assert only["createdAt"] == only["updatedAt"] > time.time() - 600


@pytest.mark.any_broker
def test_newest_items_come_by_creation(running: Stack) -> None:
    """The items created last, whenever they were put."""
    now_s = time.time()
    after = put_items(
        running,
        **{
            # Newer than whatever other tests have put just before.
            f"shown-new-{age}": {"CREATION_TIMESTAMP": now_s - age / 1000, "KIND": "new"}
            for age in (2, 0, 1)
        },
    )

    await_effect(running, after)
    newest = names(listed(running, "order=newest&num_results=500"))

    order = [name for name in newest if name.startswith("shown-new")]
    assert order == ["shown-new-0", "shown-new-1", "shown-new-2"]
    assert running.ask("GET", "/items?order=newest&query=a")[0] == 400


@pytest.mark.any_broker
def test_pages_hold_every_item_once(running: Stack) -> None:
    """Going from cursor to cursor gives all matching items, and ends."""
    after = ""
    for at in range(0, CHUNK + 200, 10):
        records = {f"paged-{n}": {"KIND": "paged"} for n in range(at, at + 10)}
        after = put_items(running, **records)
    await_effect(running, after)
    found, cursor, n_pages = [], "", 0
    while True:
        page = listed(running, f"query=paged-&num_results=1{cursor}")
        found += names(page)
        n_pages += 1
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"

    assert sorted(found) == sorted(f"paged-{n}" for n in range(CHUNK + 200))
    assert n_pages > 1


def test_a_user_is_shown(running: Stack) -> None:
    """Metadata and the newest events first; nothing of an unknown user."""
    running.ask("PUT", "/users", {"users": [{"userId": "shown-ada", "properties": {"AGE": 36}}]})
    running.click("shown-tent", user="shown-ada", session="shown-s")
    after = running.click("shown-stove", user="shown-ada", session="shown-s")
    running.wait(
        lambda: running.ask("GET", f"/users/shown-ada?after={after}")[1]["properties"] is not None,
        "the record is in effect",
    )

    status, told = running.ask("GET", "/users/shown-ada?num_results=1")

    assert (status, told["properties"], told["eventCount"]) == (200, {"AGE": 36}, 2)
    (event,) = told["events"]
    assert (event["itemId"], event["eventType"]) == ("shown-stove", "click")
    assert told["sessions"] == ["shown-s"]
    assert told["acceptedAt"] > time.time() - 600
    _, nobody = running.ask("GET", "/users/shown-nobody")
    assert nobody == {
        "userId": "shown-nobody", "properties": None, "eventCount": 0, "acceptedAt": None,
        "events": [], "sessions": [],
    }  # fmt: skip


def test_the_path_of_an_event_is_followed(running: Stack) -> None:
    """Where it stands, and that it is in effect; one of the future is not, and says so in time."""
    token = running.click("shown-tent")
    await_effect(running, token)
    _, path = running.ask("GET", f"/events/{token}")
    (place,) = path["positions"]
    assert token.startswith(f"c{place['partition']}-{place['offset']}-")
    assert place["topic"] == "clicks"

    status, future = running.ask("GET", "/events/c0-999999")

    assert (status, future["isInEffect"]) == (200, False)
    assert future["waitedMs"] >= 1000 * running.settings.after_timeout_s - 1
    assert running.ask("GET", "/events/no-token")[0] == 400


def test_live_figures_follow_the_events(stack: Callable[..., Stack]) -> None:
    """A message at once and each second; the bound on listeners holds; it ends with the API."""
    one = stack(live_max_listeners=1)
    worker, api = one.start("worker"), one.start("api")
    one.wait_ready()
    connection = http.client.HTTPConnection("127.0.0.1", one.settings.port, timeout=60)
    connection.request("GET", "/live")
    answer = connection.getresponse()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"

    def message() -> LiveFigures:
        """The next message; each is a line of data, and an empty one."""
        line, empty = answer.readline(), answer.readline()
        assert empty == b"\n"
        return msgspec.json.decode(line.removeprefix(b"data: "), type=LiveFigures)

    first = message()
    one.click("tent")
    while (last := message()).events == first.events:
        pass

    assert last.events == first.events + 1
    assert last.newest_event_age_s is not None
    assert one.ask("GET", "/live")[0] == 429
    for process in (worker, api):
        process.terminate()
    with contextlib.suppress(http.client.IncompleteRead):
        answer.read()
    answer.close()
    connection.close()
    api.wait(20)
    assert "graceful shutdown exceeded" not in one.log()


def test_what_shows_users_is_closed_to_public_keys(tmp_path: Path) -> None:
    """A key of a web page follows its events, and reads neither users, items nor figures."""
    with keyed_api(tmp_path) as one:
        origin = "https://shop.example"
        key = one.key("send", "read", origins=(origin,))
        headers = (f"X-Api-Key: {key}", f"Origin: {origin}")
        statuses = {
            path: one.status("GET", path, *headers)
            for path in ("/users/ada", "/items", "/items/tent", "/live", "/users/ada/export")
        }
        followed = json.loads(one.ask("GET", "/events/c0-1", *headers).body)

    assert set(statuses.values()) == {403}, statuses
    assert followed["positions"] == [{"topic": "clicks", "partition": 0, "offset": 1}]


def test_key_figures_over_time(running: Stack) -> None:
    """Events, requests and memory of all processes are in the newest points."""
    running.click("figured", user="figure")

    def shown() -> bool:
        newest = running.ask("GET", "/figures?points=2")[1]["points"]
        return any(one["eventsPerS"] and one["requestsPerS"] for one in newest)

    running.wait(shown, "the figures are written")
    status, hours = running.ask("GET", "/figures?step=hour&points=720")
    assert (status, len(hours["points"]), hours["stepS"]) == (200, 720, 3600)
    newest = hours["points"][-1]
    assert 0 < newest["freshnessP50Ms"] <= newest["freshnessP99Ms"]
    assert newest["answerP99Ms"] > 0
    assert len(running.ask("GET", "/figures?points=720")[1]["points"]) == 60


def test_dead_letters_are_read_replayed_and_discarded(running: Stack) -> None:
    """Each by its place, in any order; what was replayed and fails again is a new one."""
    one = running
    before = one.status().dead_letters
    producer = KafkaProducer(bootstrap_servers=one.settings.kafka)
    topic = Topics.of(one.settings).clicks
    for text in (b"{bad 0", b"{bad 1", b"{bad 2"):
        producer.send(topic, key=b"s", value=text)
    producer.close()

    def letters() -> dict[str, dict[str, Any]]:
        """Dead letters by their bytes."""
        status, answer = one.ask("GET", "/dead-letters")
        assert status == 200, answer
        found = {base64.b64decode(one["payload"]).decode(): one for one in answer["letters"]}
        return {text: letter for text, letter in found.items() if text.startswith("{bad")}

    one.wait(lambda: len(letters()) == 3, "all are refused")
    found = letters()
    assert {letter["reason"] for letter in found.values()} == {"invalid"}
    assert one.status().dead_letters == before + 3
    place = {name: found["{bad 1"][name] for name in ("partition", "offset")}

    assert one.ask("POST", "/dead-letters/discard", {"letters": [place]})[1] == {"discarded": 1}

    assert set(letters()) == {"{bad 0", "{bad 2"}
    assert one.status().dead_letters == before + 2
    again = {name: found["{bad 2"][name] for name in ("partition", "offset")}
    assert one.ask("POST", "/dead-letters/replay", {"letters": [again]})[1] == {
        "sent": 1,
        "kept": [],
    }
    one.wait(
        lambda: (
            set(letters()) == set(found) - {"{bad 1"}
            and letters()["{bad 2"]["offset"] != again["offset"]
        ),
        "it is refused anew",
    )
    assert one.ask("POST", "/dead-letters/discard", {"letters": [place]})[1] == {"discarded": 0}
    assert one.ask("POST", "/dead-letters/replay", {"letters": []})[0] == 400


def test_events_are_seen_as_they_come(running: Stack) -> None:
    """Those of any sender that are of the kind asked for, with a token that follows each."""
    address = urllib.parse.urlsplit(running.url).netloc
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/live/events?item_id=tailed")
    answer = connection.getresponse()
    assert json.loads(answer.readline().removeprefix(b"data: ")) == {"events": [], "leftOut": 0}

    events: list[dict[str, Any]] = []

    def are_seen() -> bool:
        running.click("other", user="tailed")
        running.click("tailed", user="tailed")
        while not (line := answer.readline()).startswith(b"data: "):
            pass
        events.extend(json.loads(line.removeprefix(b"data: "))["events"])
        return bool(events)

    # Kafka is read from a moment after the question on.
    running.wait(are_seen, "events are seen")
    connection.close()

    assert {event["itemId"] for event in events} == {"tailed"}
    assert events[0]["userId"] == "tailed"
    status, path = running.ask("GET", f"/events/{events[0]['after']}")
    assert (status, path["positions"][0]["offset"]) == (200, events[0]["offset"])


@pytest.mark.any_broker
def test_settings_and_exposure_are_shown(running: Stack) -> None:
    """Every setting with its origin and meaning; what served lists showed, as shares."""
    shown = {one["name"]: one for one in running.ask("GET", "/settings")[1]["settings"]}
    assert shown["group"]["value"] == running.settings.group
    assert shown["group"]["origin"] != "default"
    assert all(one["description"] for one in shown.values())
    running.click("shown-to-nobody")
    running.wait(lambda: bool(running.recommend("user_id=nobody")["items"]), "an item is shown")

    def told() -> dict[str, Any]:
        found: dict[str, Any] = running.ask("GET", "/exposure")[1]
        return found

    running.wait(lambda: told()["coverage"] > 0, "a list with items is kept")
    found = told()
    assert found["lists"] > 0
    assert found["coverage"] <= 1
    assert 0 < found["headShare"] <= 1


def test_the_state_of_the_stream(running: Stack) -> None:
    """Every partition with its lag, dead letters and memory, as the command has them."""
    running.click("stated")
    status, told = running.ask("GET", "/status")

    assert status == 200
    assert {one["topic"].rpartition(".")[2] for one in told["partitions"]} == {
        "clicks",
        "purchases",
        "items",
        "users",
        "served",
    }
    assert told["deadLetters"] == running.status().dead_letters
    assert told["memoryBytes"] > 0
    assert {"history", "items"} <= {one["name"] for one in told["families"]}


@pytest.mark.any_broker
def test_stages_of_an_answer_are_timed_on_request(running: Stack) -> None:
    """Each kind of list says what its stages took, if it is asked to, and else nothing."""
    running.click("timed-a", session="timed")
    await_effect(running, running.click("timed-b", session="timed"))
    ranked = {"itemIds": ["timed-a", "timed-b"], "sessionId": "timed"}
    questions: list[tuple[str, str, object, set[str]]] = [
        ("GET", "/recommend?session_id=timed&reasons=true", None, {"read", "arrange"}),
        ("GET", "/similar/timed-a?", None, {"read", "arrange"}),
        ("GET", "/trending?", None, {"arrange"}),
        ("POST", "/rank?", ranked, {"read", "features"}),
    ]
    for method, path, body, stages in questions:
        status, told = running.ask(method, f"{path}&timing=true".replace("?&", "?"), body)
        assert status == 200, told
        assert stages | {"wait", "properties"} <= set(told["stagesMs"])
        assert all(took >= 0 for took in told["stagesMs"].values())
        assert "stagesMs" not in running.ask(method, path.rstrip("?"), body)[1]
