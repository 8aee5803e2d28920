"""The messages of a drill: drawn from a seed, in the order in which they are asked for.

The times of a user's events are unique, so user, time and item identify an event in any store.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any, NamedTuple

ORDERED_USERS, FREE_USERS = 240, 160
ORDERED_ITEM = "a"
"""Prefix of the items of users with ordered events."""

ORDERED_ITEMS, FREE_ITEMS = 40, 120
BUSY_SHARE, BUSY_USERS = 0.1, 2
"""Some users exceed the length of a history, and events beyond it are sent again, too."""

LATE_SHARE = 0.05
MOST_LATE = 2000
"""Events that are sent before a late one though they are newer, at most."""


DISTANT_S = 10 * 365 * 86400
"""So far ahead, an event is refused."""


DISLIKED_SHARE = 0.05
"""Share of dislikes among the events that are no purchases: in effect in their histories alone."""


class Message(NamedTuple):
    """A message to send, and its events' ids."""

    topic_kind: str
    session: str
    body: dict[str, Any]
    event_ids: tuple[str, ...]


class EventScript:
    """Messages in the order in which they are drawn from a seed.

    Users of two kinds: `ordered` ones click in one session, so that the order of all they do is
    that of one partition, and all that follows from order can be compared; they are anonymous
    first. `free` ones click and buy in sessions of many partitions. Their items are different.
    """

    def __init__(self, seed: int, start_s: int) -> None:
        self._chance = random.Random(seed)
        self._start_s = start_s
        self._number = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def draw(self, *, late: bool = False) -> Message:
        """The next message; of late events on request, otherwise of few."""
        with self._lock:
            chance = self._chance
            is_ordered = chance.random() < 0.5
            is_purchase = not is_ordered and chance.random() < 0.2
            if is_ordered:
                name = session = f"ordered{chance.randrange(ORDERED_USERS)}"
            else:
                is_busy = chance.random() < BUSY_SHARE
                name = f"free{chance.randrange(BUSY_USERS if is_busy else FREE_USERS)}"
                session = f"{name}-{chance.randrange(5)}"
            events = [
                self._event(
                    f"{ORDERED_ITEM}{chance.randrange(ORDERED_ITEMS)}"
                    if is_ordered
                    else f"b{chance.randrange(FREE_ITEMS)}",
                    "purchase" if is_purchase else self._kind(),
                    late=late or chance.random() < LATE_SHARE,
                )
                for _ in range(chance.choice((1, 1, 1, 2, 3)))
            ]
            body: dict[str, Any] = {"sessionId": session, "eventList": events}
            self._seen[name] += 1
            if not is_ordered or self._seen[name] > 2:
                body["userId"] = f"u-{name}"
            kind = "purchases" if is_purchase else "clicks"
            return Message(kind, session, body, tuple(event["eventId"] for event in events))

    def skewed(self, by_s: int) -> Message:
        """A message of a client whose clock is wrong, of a user that is not drawn otherwise."""
        with self._lock:
            name = f"skewed{self._number}"
            event = self._event(f"b{self._chance.randrange(FREE_ITEMS)}", "click", late=False)
            event["sentAt"] = max(2, event["sentAt"] + by_s)
            body = {"sessionId": name, "userId": f"u-{name}", "eventList": [event]}
            return Message("clicks", name, body, (event["eventId"],))

    def of_user(self, user: str) -> Message:
        """A message of a user and an item that are not drawn otherwise."""
        with self._lock:
            event = self._event(f"g{self._number}", "click", late=False)
            session = f"{user}-{self._chance.randrange(5)}"
            body = {"sessionId": session, "userId": user, "eventList": [event]}
            return Message("clicks", session, body, (event["eventId"],))

    def _kind(self) -> str:
        return "dislike" if self._chance.random() < DISLIKED_SHARE else "click"

    def _event(self, item: str, kind: str, *, late: bool) -> dict[str, Any]:
        self._number += 1
        number = self._number
        # Late events have odd times and the others even ones: no two are of one moment.
        shift = 2 * self._chance.randrange(1, MOST_LATE) + 1 if late else 0
        at_s = self._start_s + 2 * (number + MOST_LATE) - shift
        return {"eventId": f"e{number}", "eventType": kind, "itemId": item, "sentAt": at_s}
