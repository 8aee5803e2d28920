"""Simulated shoppers with latent tastes: sessions, clicks and purchases over the HTTP API."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from models.errors import Unavailable
from models.tokens import TopicKind, parse_token
from ops.shop_catalogue import ITEMS, RELATED, SHELF_OF, SHELVES, ShopItem, properties_of

TIMEOUT_S = 10.0
EFFECT_S = 60.0
"""Longest wait for the first events: a new worker must join its consumer group first."""

FOUND_ELSEWHERE = 0.35
"""Probability that a shopper takes an item outside the recommended list."""

BUYS = 0.12
LOGS_IN = 0.3

NAMES = (
    "ada", "ben", "chloe", "dev", "emil", "fatima", "gus", "hana", "ivo", "jana", "kai", "lena",
    "milo", "nora", "otto", "priya", "quinn", "rosa", "sami", "tess", "uma", "vito", "wren",
    "xenia", "yara", "zeno", "anna", "bela", "carl", "dora", "elif", "finn", "greta", "hugo",
    "iris", "jonas", "karla", "luis", "mara", "nils", "olga", "pablo", "rita", "sven", "tara",
    "ugo", "vera", "willa", "yusuf", "zoe",
)  # fmt: skip
"""User ids of the shoppers; the shop's page proposes the first ones to log in as."""

STAYS, GOES_ON = 0.7, 0.12
"""Probability that the next item is beside the last one, and that it is of a related category."""

MAX_RECORDS = 10
"""Records in one request of PUT /items."""


class ShopClient:
    """A small keep-alive HTTP client of the API."""

    def __init__(self, api_url: str) -> None:
        self._address = urllib.parse.urlsplit(api_url).netloc
        self._connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """The JSON answer of a GET; raises `Unavailable` if there is none."""
        known = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urllib.parse.urlencode(known)}", None)

    def send(
        self, session_id: str, user_id: str | None, events: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """The JSON answer of POST /events."""
        message = {"sessionId": session_id, "eventList": events}
        if user_id is not None:
            message["userId"] = user_id
        return self._ask("POST", "/events", json.dumps(message).encode())

    def put_items(self, items: Sequence[ShopItem], *, now_s: float) -> dict[str, Any]:
        """The JSON answer of PUT /items, 1 to 10 items as of now."""
        records = [
            {"itemId": item.item_id, "properties": properties_of(item, now_s=now_s)}
            for item in items
        ]
        return self._ask("PUT", "/items", json.dumps({"items": records}).encode())

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        try:
            self._connection.request(method, path, body)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"the API at {self._address} does not answer: {error}") from error
        if answer.status >= 400:
            raise Unavailable(
                f"{method} {path} answered {answer.status}: {content.decode(errors='replace')}"
            )
        parsed: dict[str, Any] = json.loads(content)
        return parsed


@dataclass
class Shopper:
    """A simulated user with a taste: the weight of each category.

    Attributes
    ----------
    name
        Seeds the taste, so that the same user always has the same one.
    chance
        Random numbers of this visit.
    """

    name: str
    chance: random.Random
    taste: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        liking = random.Random(self.name)
        self.taste = {category: liking.random() ** 4 for category in SHELVES}

    def finds(self, last: str | None) -> str:
        """An item found without recommendations: beside the last item, or by taste."""
        if last is not None:
            shelf, turn = SHELVES[SHELF_OF[last]], self.chance.random()
            if turn < STAYS:
                place = [item.item_id for item in shelf].index(last)
                step = self.chance.choice((-2, -1, 1, 2))
                return shelf[(place + step) % len(shelf)].item_id
            if turn < STAYS + GOES_ON:
                return self._takes_of(self.chance.choice(RELATED[SHELF_OF[last]]))
        weights = [self.taste[category] for category in SHELVES]
        return self._takes_of(self.chance.choices(list(SHELVES), weights)[0])

    def _takes_of(self, category: str) -> str:
        """An item of a category, the first ones most often."""
        shelf = SHELVES[category]
        return self.chance.choices(shelf, [1 / n for n in range(1, len(shelf) + 1)])[0].item_id

    def picks(self, shown: list[str]) -> str | None:
        """An item of a list, by taste and position; None if no item is picked."""
        for position, item in enumerate(shown):
            category = SHELF_OF.get(item)
            if category and self.chance.random() < 0.6 * self.taste[category] / (
                1 + 0.2 * position
            ):
                return item
        return None


def session_events(shopper: Shopper, *, start_s: float) -> list[dict[str, Any]]:
    """Events of a session without recommendations: clicks and some purchases, 20 s apart."""
    events: list[dict[str, Any]] = []
    last: str | None = None
    for _ in range(shopper.chance.randint(2, 8)):
        last = shopper.finds(last)
        kind = "purchase" if shopper.chance.random() < BUYS else "click"
        events.append({"eventType": kind, "itemId": last, "sentAt": start_s + 20 * len(events)})
    return events


def warm_up(
    api_url: str, *, events: int, seed: int, now_s: float, say: Callable[[str], None]
) -> int:
    """Send the catalogue and sessions of the last hour; gives the event count, once in effect."""
    chance = random.Random(seed)
    sent, number = 0, 0
    with ShopClient(api_url) as client:
        tokens: list[str] = [
            client.put_items(ITEMS[at : at + MAX_RECORDS], now_s=now_s)["after"]
            for at in range(0, len(ITEMS), MAX_RECORDS)
        ]
        while sent < events:
            number += 1
            shopper = Shopper(NAMES[number % 40], chance)
            session = session_events(shopper, start_s=now_s - chance.uniform(300, 3600))
            answer = client.send(f"warm-{number}", shopper.name, session)
            sent += answer["accepted"]
            tokens.append(answer["after"])
        say(
            f"{len(ITEMS)} items and {sent} events of {number} simulated sessions accepted; "
            "waiting for their effect"
        )
        _wait(client, _newest(tokens))
    return sent


def _newest(tokens: Iterable[str]) -> list[str]:
    """The last token of each partition, of tokens in the order in which they were given."""
    newest: dict[tuple[TopicKind, int], str] = {}
    for token in tokens:
        newest |= {(p.kind, p.partition): token for p in parse_token(token)} if token else {}
    return sorted(set(newest.values()))


def _wait(client: ShopClient, tokens: list[str]) -> None:
    """Wait until the events of all tokens are in effect; partitions are independent."""
    deadline = time.monotonic() + EFFECT_S
    for token in tokens:
        reached = False
        while not reached:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"no effect of events within {EFFECT_S:.0f} s: is a worker running?"
                )
            answer = client.get("/recommend", user_id="nobody", num_results=1, after=token)
            reached = bool(answer["freshness"]["afterReached"])


def simulate_shopping(
    api_url: str, *, rate_per_s: float, seed: int, stop: threading.Event, clock: Callable[[], float]
) -> int:
    """Simulate sessions with recommendations until `stop` is set; gives the event count."""
    chance = random.Random(seed)
    sent = number = 0
    with ShopClient(api_url) as client:
        while not stop.is_set():
            number += 1
            shopper = Shopper(chance.choice(NAMES), chance)
            logged_in = chance.random() > LOGS_IN
            last: str | None = None
            for _ in range(chance.randint(2, 8)):
                if stop.wait(1.0 / rate_per_s):
                    break
                user_id = shopper.name if logged_in else None
                session_id = f"visit-{seed}-{number}"
                answer = client.get(
                    "/recommend", user_id=user_id, session_id=session_id, num_results=10
                )
                shown = [item["itemId"] for item in answer["items"]]
                picked = None if chance.random() < FOUND_ELSEWHERE else shopper.picks(shown)
                last = picked or shopper.finds(last)
                kind = "purchase" if chance.random() < BUYS else "click"
                event: dict[str, Any] = {"eventType": kind, "itemId": last, "sentAt": clock()}
                if picked:
                    event["recommendationId"] = answer["recommendationId"]
                client.send(session_id, user_id, [event])
                sent += 1
                logged_in = logged_in or chance.random() < LOGS_IN
    return sent
