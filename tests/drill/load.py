"""The load of the drill: messages drawn from a seed, sent over HTTP and straight to Kafka.

A message is sent again, with the same eventIds, until it is acknowledged. The times of a user's
events are unique, so user, time and item identify an event in any store.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from kafka import KafkaProducer
from kafka.codec import has_lz4, has_snappy, has_zstd
from kafka.errors import KafkaError

from streams.kafka.topics import Topics

POSTERS = 3
ORDERED_USERS, FREE_USERS = 240, 160
ORDERED_ITEMS, FREE_ITEMS = 40, 120
BUSY_SHARE, BUSY_USERS = 0.1, 2
"""Some users exceed the length of a history, and events beyond it are sent again, too."""

LATE_SHARE, REPEATED_SHARE = 0.05, 0.05
MOST_LATE = 2000
"""Events that are sent before a late one though they are newer, at most."""

REMEMBERED = 500
"""Acknowledged messages of which some are sent again."""

HTTP_TIMEOUT_S = 20.0
AGAIN_AFTER_S = 0.2
CODECS = [
    None,
    "gzip",
    *(
        name
        for name, has in (("snappy", has_snappy), ("lz4", has_lz4), ("zstd", has_zstd))
        if has()
    ),
]
"""Compression codecs that kafka-python can write here."""


class Message(NamedTuple):
    """A message to send, and its events' ids."""

    topic_kind: str
    session: str
    body: dict[str, Any]
    event_ids: tuple[str, ...]


class Script:
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
                    f"a{chance.randrange(ORDERED_ITEMS)}"
                    if is_ordered
                    else f"b{chance.randrange(FREE_ITEMS)}",
                    "purchase" if is_purchase else "click",
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

    def of_user(self, user: str) -> Message:
        """A message of a user and an item that are not drawn otherwise."""
        with self._lock:
            event = self._event(f"g{self._number}", "click", late=False)
            session = f"{user}-{self._chance.randrange(5)}"
            body = {"sessionId": session, "userId": user, "eventList": [event]}
            return Message("clicks", session, body, (event["eventId"],))

    def _event(self, item: str, kind: str, *, late: bool) -> dict[str, Any]:
        self._number += 1
        number = self._number
        # Late events have odd times and the others even ones: no two are of one moment.
        shift = 2 * self._chance.randrange(1, MOST_LATE) + 1 if late else 0
        at_s = self._start_s + 2 * (number + MOST_LATE) - shift
        return {"eventId": f"e{number}", "eventType": kind, "itemId": item, "sentAt": at_s}


@dataclass
class Sent:
    """Outcomes of messages, over all senders."""

    acknowledged: dict[str, Message] = field(default_factory=dict)
    lost_by_kafka: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    """Of messages over HTTP that were not accepted at once: first attempt and acceptance."""
    repeated: int = 0
    recent: list[Message] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, message: Message, chance: random.Random) -> None:
        """Take note of an acknowledgement."""
        with self.lock:
            self.acknowledged |= dict.fromkeys(message.event_ids, message)
            if len(self.recent) < REMEMBERED:
                self.recent.append(message)
            else:
                self.recent[chance.randrange(REMEMBERED)] = message

    def lose(self, event_ids: Iterable[str]) -> list[Message]:
        """Take note that Kafka has lost events; gives the acknowledged messages that had them."""
        with self.lock:
            ids = [event_id for event_id in event_ids if event_id in self.acknowledged]
            self.lost_by_kafka.update(ids)
            lost = {id(message): message for message in map(self.acknowledged.pop, ids)}
            return list(lost.values())

    def again(self, chance: random.Random) -> Message | None:
        """A message that was acknowledged before."""
        with self.lock:
            self.repeated += bool(self.recent)
            return chance.choice(self.recent) if self.recent else None


class Load:
    """Senders that go on until they are stopped; a context manager.

    Parameters
    ----------
    port
        Of the API.
    kafka
        Bootstrap server for those who produce directly.
    per_s
        Messages a second, all senders together.
    """

    def __init__(
        self, *, seed: int, port: int, kafka: str, topics: Topics, per_s: float, start_s: int
    ) -> None:
        self.script = Script(seed, start_s)
        self.sent = Sent()
        self._seed = seed
        self._port = port
        self._kafka = kafka
        self._topics = topics
        self._pause_s = (POSTERS + 1) / per_s
        self._stopped = threading.Event()
        self._paused = threading.Event()
        self._busy = [threading.Lock() for _ in range(POSTERS + 1)]
        self._threads = [
            *(threading.Thread(target=self._post_on, args=(n,)) for n in range(POSTERS)),
            threading.Thread(target=self._produce_on),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._paused.clear()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is under way: each sender's last message is acknowledged."""
        self._paused.set()
        for busy in self._busy:
            with busy:
                pass
        try:
            yield
        finally:
            self._paused.clear()

    def _turns(self, number: int, chance: random.Random) -> Iterator[Message]:
        while not self._stopped.wait(self._pause_s * chance.uniform(0.5, 1.5)):
            # Held until the caller asks for the next one.
            with self._busy[number]:
                if self._paused.is_set():
                    continue
                again = self.sent.again(chance) if chance.random() < REPEATED_SHARE else None
                yield again or self.script.draw()

    def _post_on(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        for message in self._turns(number, chance):
            self.post(message, chance)

    def post(self, message: Message, chance: random.Random) -> None:
        """Send a message to the API until it is accepted."""
        body, attempts, began_s = json.dumps(message.body), 0, time.monotonic()
        while not self._stopped.is_set():
            status, answer = _answered(self._port, "POST", "/events", body)
            attempts += 1
            with self.sent.lock:
                self.sent.answers[str(status)] += 1
                if status == 202 and attempts > 1:
                    self.sent.away.append((began_s, time.monotonic()))
            if status == 202:
                self.sent.note(message, chance)
                return
            if 400 <= status < 500 and status != 429:
                with self.sent.lock:
                    self.sent.refused.append(f"{status} {answer} {body}"[:500])
                return
            time.sleep(AGAIN_AFTER_S)

    def erase(self, user: str) -> None:
        """Erase a user by the API, repeated until Kafka has acknowledged it."""
        while not self._stopped.is_set():
            status, answer = _answered(self._port, "DELETE", f"/users/{user}", None)
            with self.sent.lock:
                self.sent.answers[str(status)] += 1
                if 400 <= status < 500 and status != 429:
                    self.sent.refused.append(f"{status} {answer} DELETE {user}"[:500])
                    return
            if status in {200, 202}:
                return
            time.sleep(AGAIN_AFTER_S)

    def _produce_on(self) -> None:
        chance = random.Random(f"{self._seed}-direct")
        waiting: list[Message] = []
        for message in self._turns(POSTERS, chance):
            waiting.append(message)
            if len(waiting) >= 10 or chance.random() < 0.1:
                self.deliver(waiting, chance, codec=chance.choice(CODECS))
                waiting = []

    def deliver(self, messages: list[Message], chance: random.Random, *, codec: str | None) -> None:
        """Send messages straight to Kafka until it has acknowledged each."""
        waiting = messages
        while waiting and not self._stopped.is_set():
            producer = None
            try:
                producer = self.producer(codec)
                waiting = self._produced(producer, waiting, chance)
            except KafkaError as error:
                self._note_away(error)
            finally:
                _closed(producer)

    def _note_away(self, error: KafkaError) -> None:
        with self.sent.lock:
            self.sent.answers[type(error).__name__] += 1
        time.sleep(AGAIN_AFTER_S)

    def producer(self, codec: str | None = None, **more: Any) -> KafkaProducer:
        """A producer of a client that is not this project's."""
        return KafkaProducer(
            **more,
            bootstrap_servers=self._kafka,
            acks="all",
            compression_type=codec,
            linger_ms=20,
            max_request_size=2_000_000,
            delivery_timeout_ms=20_000,
            request_timeout_ms=8_000,
            max_block_ms=15_000,
        )

    def _produced(
        self, producer: KafkaProducer, messages: list[Message], chance: random.Random
    ) -> list[Message]:
        """Send messages; gives those that were not acknowledged."""
        sent = [
            producer.send(
                getattr(self._topics, message.topic_kind),
                key=message.session.encode(),
                value=json.dumps(message.body).encode(),
            )
            for message in messages
        ]
        left = []
        for future, message in zip(sent, messages, strict=True):
            try:
                future.get(30)
            except KafkaError as error:
                self._note_away(error)
                left.append(message)
            else:
                self.sent.note(message, chance)
        return left


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Time that at least one of these spans covers.

    >>> covered_s([(1.0, 3.0), (2.0, 4.0), (6.0, 7.0)])
    4.0
    """
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _answered(port: int, method: str, path: str, body: str | None) -> tuple[int, str]:
    """Status and text of the answer; 0 and the reason without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HTTP_TIMEOUT_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def _closed(producer: KafkaProducer | None) -> None:
    if producer is not None:
        with contextlib.suppress(KafkaError):
            producer.close(timeout=1)
