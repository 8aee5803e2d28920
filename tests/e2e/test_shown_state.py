"""Routes that show the state: lists of items, a user, the path of events, live figures."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from api.schemas import LiveFigures
from models.state.item_listing import CHUNK
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
    assert told["acceptedAt"] > time.time() - 600
    _, nobody = running.ask("GET", "/users/shown-nobody")
    assert nobody == {
        "userId": "shown-nobody", "properties": None, "eventCount": 0, "acceptedAt": None,
        "events": [],
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
