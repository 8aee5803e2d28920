"""Simulated shoppers and the demo's click, against a fake API that records events."""

from __future__ import annotations

import itertools
import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from models.errors import Unavailable
from models.metadata_records import validate_properties
from ops.demo import DemoProof, as_text, show_click
from ops.shop_catalogue import ITEMS, RELATED, SHELF_OF, SHELVES, properties_of
from ops.simulated_shoppers import Shopper, session_events, simulate_shopping, warm_up

NOW_S = 1_795_381_719.0


class Shop(ThreadingHTTPServer):
    """A fake API: a user's events are in effect at the n-th request after them.

    Attributes
    ----------
    delay
        Questions of a user that still get the old list after an event.
    """

    daemon_threads = True
    delay = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.messages: list[dict[str, Any]] = []
        self.items: list[dict[str, Any]] = []
        self.afters: list[str] = []
        self.clients: set[Any] = set()
        self.asked_since: dict[str, int] = {}
        self.enough = threading.Event()
        self.wanted = 0

    @property
    def url(self) -> str:
        """Address of the fake API."""
        return f"http://127.0.0.1:{self.server_port}"

    def accept(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer of POST /events, of two partitions in turn."""
        self.messages.append(message)
        if message.get("userId"):
            self.asked_since.setdefault(message["userId"], 0)
        if self.wanted and len(self.messages) >= self.wanted:
            self.enough.set()
        n = len(self.messages)
        return {"accepted": len(message["eventList"]), "eventIds": [], "after": f"c{n % 2}-{n}"}

    def put(self, records: dict[str, Any]) -> dict[str, Any]:
        """The answer of PUT /items, of one partition."""
        self.items += records["items"]
        return {"accepted": len(records["items"]), "after": f"i0-{len(self.items)}"}

    def answer(self, query: str) -> dict[str, Any]:
        """The answer of GET /recommend."""
        self.afters += re.findall(r"after=([^&]+)", query)
        user = re.search(r"user_id=([^&]+)", query)
        items, event_at = ["capo", "bike-lock", "yoga-mat"], None
        if user and user[1] in self.asked_since:
            self.asked_since[user[1]] += 1
            if self.asked_since[user[1]] > self.delay:
                items, event_at = ["guitar-tuner", "yoga-mat"], NOW_S
        reason = {"source": "event", "itemId": "capo", "eventType": "click"}
        return {
            "recommendationId": "r1",
            "items": [{"itemId": item, "reasons": [reason]} for item in items],
            "freshness": {"afterReached": True, "userEventAt": event_at},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shop
    disable_nagle_algorithm: ClassVar[bool] = True

    def do_GET(self) -> None:
        self._send(200, self.server.answer(self.path))

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._send(202, self.server.accept(message))

    def do_PUT(self) -> None:
        records = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._send(202, self.server.put(records))

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _send(self, status: int, content: object) -> None:
        self.server.clients.add(self.client_address)
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def api() -> Iterator[Shop]:
    """A running shop."""
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def warmed(api: Shop, *, seed: int) -> list[dict[str, Any]]:
    """Messages of a warm-up."""
    api.messages.clear()
    api.items.clear()
    warm_up(api.url, events=100, seed=seed, now_s=NOW_S, say=print)
    return list(api.messages)


def visited(api: Shop, *, seed: int, messages: int) -> list[dict[str, Any]]:
    """First messages of simulated shopping."""
    api.messages.clear()
    api.asked_since.clear()
    api.enough.clear()
    api.wanted = messages
    simulate_shopping(api.url, rate_per_s=10_000, seed=seed, stop=api.enough, clock=lambda: NOW_S)
    return api.messages[:messages]


def test_catalogue_is_a_shop() -> None:
    """At least 200 items in 12 categories, each with a slug, a name, a price and a description."""
    assert len(SHELVES) >= 12
    assert len({item.item_id for item in ITEMS}) == len(ITEMS) >= 200
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", item.item_id) for item in ITEMS)
    assert len({item.name for item in ITEMS}) == len({item.description for item in ITEMS})
    assert all(item.price > 0 and len(item.picture.split()) == 2 for item in ITEMS)
    assert {name for names in RELATED.values() for name in names} <= set(SHELVES) == set(RELATED)
    assert all(
        validate_properties("items", i.item_id, properties_of(i, now_s=NOW_S)) for i in ITEMS
    )


def test_taste_stays_with_the_name() -> None:
    """A returning shopper has the same taste, others have different ones."""
    first, again = Shopper("ann", random.Random(1)), Shopper("ann", random.Random(2))

    assert first.taste == again.taste
    assert first.taste != Shopper("bob", random.Random(1)).taste


def test_sessions_have_structure() -> None:
    """An item follows one of its category far more often than by chance (a thirteenth)."""
    chance = random.Random(3)
    pairs = [
        (SHELF_OF[a["itemId"]], SHELF_OF[b["itemId"]])
        for number in range(200)
        for session in [session_events(Shopper(f"s{number}", chance), start_s=0)]
        for a, b in itertools.pairwise(session)
    ]

    assert sum(a == b for a, b in pairs) / len(pairs) > 0.6


def test_picks_by_position_and_taste() -> None:
    """The first position is picked more often than the eighth, unknown items never."""
    shopper = Shopper("ann", random.Random(4))
    favourite = max(shopper.taste, key=shopper.taste.__getitem__)
    shelf = [item.item_id for item in SHELVES[favourite]]
    picks = [shopper.picks(shelf) for _ in range(500)]

    assert picks.count(shelf[0]) > 2 * picks.count(shelf[-1])
    assert {shopper.picks(["not-of-this-shop"]) for _ in range(50)} == {None}


def test_warm_up_is_the_same_for_a_seed(api: Shop) -> None:
    """The same seed gives the same warm-up, another seed another."""
    first = warmed(api, seed=1)

    assert warmed(api, seed=1) == first
    assert warmed(api, seed=2) != first


def test_warm_up_sends_sessions_of_the_last_hour(api: Shop) -> None:
    """Each message is one session of 1 to 10 events that happened within the hour before."""
    messages = warmed(api, seed=1)
    events = [event for message in messages for event in message["eventList"]]

    assert len(events) >= 100
    assert all(1 <= len(message["eventList"]) <= 10 for message in messages)
    assert len({message["sessionId"] for message in messages}) == len(messages)
    assert all(NOW_S - 3600 <= event["sentAt"] <= NOW_S for event in events)
    assert {event["eventType"] for event in events} == {"click", "purchase"}


def test_warm_up_waits_for_every_partition(api: Shop) -> None:
    """It puts the catalogue, and waits for each partition's newest token over one connection."""
    n = len(warmed(api, seed=1))

    assert [item["itemId"] for item in api.items] == [item.item_id for item in ITEMS]
    waited = [f"c{n % 2}-{n}", f"c{(n - 1) % 2}-{n - 1}", f"i0-{len(ITEMS)}"]
    assert sorted(api.afters) == sorted(waited)
    assert len(api.clients) == 1


def test_shoppers_log_in_during_a_visit(api: Shop) -> None:
    """Some sessions are anonymous first and linked later; a seed repeats them."""
    messages = visited(api, seed=5, messages=200)
    known: dict[str, list[bool]] = {}
    for message in messages:
        known.setdefault(message["sessionId"], []).append("userId" in message)

    assert any(not visit[0] and visit[-1] for visit in known.values())
    assert all(visit == sorted(visit) for visit in known.values())
    assert visited(api, seed=5, messages=200) == messages


def test_shoppers_react_to_the_list(api: Shop) -> None:
    """Some events name the answer that they follow, and an item of its list."""
    events = [m["eventList"][0] for m in visited(api, seed=6, messages=200)]
    followed = [event for event in events if "recommendationId" in event]

    assert 0 < len(followed) < len(events)
    assert {event["itemId"] for event in followed} <= {
        "capo", "bike-lock", "yoga-mat", "guitar-tuner",
    }  # fmt: skip


def test_no_api_is_unavailable() -> None:
    """Without a server, the error is `Unavailable`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match="does not answer"):
            warm_up(url, events=1, seed=1, now_s=NOW_S, say=print)


def test_proof_waits_for_the_change(api: Shop) -> None:
    """The list after the click is the first with the click in effect, with its reasons."""
    api.delay = 3

    shown = show_click(api.url)

    assert shown.before == ["capo", "bike-lock", "yoga-mat"]
    assert shown.click == "capo"
    assert shown.after == ["guitar-tuner", "yoga-mat"]
    assert shown.changed
    assert shown.accepted_to_visible_ms > 0
    assert [reason["itemId"] for reason in shown.reasons] == ["capo"]
    assert api.asked_since[shown.user_id] == 4


def test_text_has_both_lists_side_by_side() -> None:
    """Lists of different lengths, with the milliseconds and the reason."""
    reasons: list[dict[str, Any]] = [
        {"source": "event", "itemId": "capo"},
        {"source": "trending", "itemId": None},
    ]
    shown = DemoProof("u", ["capo", "tent"], "capo", ["tuner"], 12.5, True, reasons)

    assert as_text(shown).splitlines() == [
        "before the click        after the click on capo, 12.5 ms after it was accepted",
        "  1 capo                  1 tuner",
        "  2 tent",
        "tuner is there because of capo",
    ]
