"""The load of the drill: messages that are sent over HTTP and straight to Kafka.

A message is sent again, with the same eventIds, until it is acknowledged.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from kafka import KafkaProducer
from kafka.codec import has_lz4, has_snappy, has_zstd
from kafka.errors import KafkaError

from models.settings import Settings
from ops.drill.observations import Observations, Probe
from ops.drill.script import EventScript, Message
from ops.ports import HOST
from streams.kafka.connections.connection import servers
from streams.kafka.connections.security import kafka_python_options
from streams.kafka.topics import Topics

POSTERS = 3
REPEATED_SHARE = 0.05

REMEMBERED = 500
"""Acknowledged messages of which some are sent again."""

HTTP_TIMEOUT_S = 20.0
AGAIN_AFTER_S = 0.2
OUTAGE = {503, 504}
"""Statuses by which the API says that it cannot answer now; others of its own fault are faults."""

PROBERS = 2
"""One waits in vain where Kafka has lost its event; the other goes on."""

PROBE_EVERY_S = 0.5
ASK_EVERY_S = 0.02
VISIBLE_WITHIN_S = 90.0
END_WITHIN_S, INTERRUPTED_WITHIN_S = 20.0, 2.0
"""Senders that are waiting for a server that is away have ended by then, at the latest."""

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


@dataclass
class Sent:
    """Outcomes of messages, over all senders.

    Attributes
    ----------
    refused
        Answers that say that a request is wrong, or that the API is.
    """

    acknowledged: dict[str, Message] = field(default_factory=dict)
    lost_by_kafka: set[str] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
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
    settings
        Of the API and of Kafka, for those who produce directly.
    per_s
        Messages a second, all senders together.
    start_s
        Unix seconds at which the times of events begin.
    """

    def __init__(self, *, seed: int, settings: Settings, per_s: float, start_s: int) -> None:
        self.script = EventScript(seed, start_s)
        self.sent = Sent()
        self.observed = Observations()
        self._seed = seed
        self._settings = settings
        self._topics = Topics.of(settings)
        self._pause_s = (POSTERS + 1) / per_s
        self._stopped = threading.Event()
        self._paused = threading.Event()
        self._busy = [threading.Lock() for _ in range(POSTERS + 1 + PROBERS)]
        self._threads = [
            *(threading.Thread(target=self._post_on, args=(n,), daemon=True)
              for n in range(POSTERS)),
            threading.Thread(target=self._produce_on, daemon=True),
            *(threading.Thread(target=self._probe_on, args=(n,), daemon=True)
              for n in range(PROBERS)),
        ]  # fmt: skip

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        until_s = time.monotonic() + (END_WITHIN_S if kind is None else INTERRUPTED_WITHIN_S)
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped.set()
        self._paused.clear()

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

    def _turns(
        self, number: int, chance: random.Random, pause_s: float, repeated: float = 0.0
    ) -> Iterator[Message]:
        while not self._stopped.wait(pause_s * chance.uniform(0.5, 1.5)):
            # Held until the caller asks for the next one.
            with self._busy[number]:
                if self._paused.is_set():
                    continue
                again = self.sent.again(chance) if chance.random() < repeated else None
                yield again or self.script.draw()

    def _post_on(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        for message in self._turns(number, chance, self._pause_s, REPEATED_SHARE):
            self.post(message, chance)

    def _probe_on(self, number: int) -> None:
        chance = random.Random(f"{self._seed}-probe{number}")
        for message in self._turns(POSTERS + 1 + number, chance, PROBE_EVERY_S):
            self.probe(message)

    def probe(self, message: Message | None = None, *, within_s: float = VISIBLE_WITHIN_S) -> bool:
        """Send a message over HTTP, and ask for recommendations until it is in effect.

        Returns whether it was within a time.
        """
        began_s = time.monotonic()
        drawn = message or self.script.draw()
        token = self.post(drawn, random.Random(began_s), within_s=within_s)
        if token is None:
            return False
        accepted_s = time.monotonic()
        while not self._stopped.is_set() and time.monotonic() < accepted_s + within_s:
            asked_s = time.monotonic()
            path = f"/recommend?after={quote(token)}&num_results=5"
            status, answer = self._ask("GET", path, None)
            now_s = time.monotonic()
            if status != 200:
                self.observed.note_unanswered(asked_s, now_s + AGAIN_AFTER_S)
                time.sleep(AGAIN_AFTER_S)
            elif json.loads(answer)["freshness"]["afterReached"]:
                self.observed.note(Probe(began_s, accepted_s, now_s))
                return True
            else:
                time.sleep(ASK_EVERY_S)
        return False

    def post(
        self, message: Message, chance: random.Random, *, within_s: float = math.inf
    ) -> str | None:
        """Send a message to the API until it is accepted; gives its token, `None` without one."""
        body, attempts, began_s = json.dumps(message.body), 0, time.monotonic()
        while not self._stopped.is_set() and time.monotonic() < began_s + within_s:
            status, answer = self._ask("POST", "/events", body)
            attempts += 1
            if status == 202:
                if attempts > 1:
                    self.observed.note_unaccepted(began_s, time.monotonic())
                self.sent.note(message, chance)
                return str(json.loads(answer)["after"])
            if 400 <= status < 500 and status != 429:
                with self.sent.lock:
                    self.sent.refused.append(f"{status} {answer} {body}"[:500])
                return None
            time.sleep(AGAIN_AFTER_S)
        return None

    def erase(self, user: str) -> None:
        """Erase a user by the API, repeated until Kafka has acknowledged it."""
        while not self._stopped.is_set():
            status, answer = self._ask("DELETE", f"/users/{user}", None)
            if 400 <= status < 500 and status != 429:
                with self.sent.lock:
                    self.sent.refused.append(f"{status} {answer} DELETE {user}"[:500])
                return
            if status in {200, 202}:
                return
            time.sleep(AGAIN_AFTER_S)

    def _produce_on(self) -> None:
        chance = random.Random(f"{self._seed}-direct")
        waiting: list[Message] = []
        for message in self._turns(POSTERS, chance, self._pause_s, REPEATED_SHARE):
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

    def _ask(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        """Status and text of the answer; 0 and the reason without one."""
        connection = http.client.HTTPConnection(HOST, self._settings.port, timeout=HTTP_TIMEOUT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answered = connection.getresponse()
            status, text = answered.status, answered.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            status, text = 0, repr(error)
        finally:
            connection.close()
        with self.sent.lock:
            self.sent.answers[f"{method} {status}"] += 1
            if status >= 500 and status not in OUTAGE:
                self.sent.refused.append(f"{status} {text} {method} {path}"[:500])
        return status, text

    def _note_away(self, error: KafkaError) -> None:
        with self.sent.lock:
            self.sent.answers[type(error).__name__] += 1
        time.sleep(AGAIN_AFTER_S)

    def producer(self, codec: str | None = None, **more: Any) -> KafkaProducer:  # noqa: ANN401
        """A producer of a client that is not this project's."""
        return KafkaProducer(
            **more,
            **kafka_python_options(self._settings),
            bootstrap_servers=servers(self._settings),
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


def _closed(producer: KafkaProducer | None) -> None:
    if producer is not None:
        with contextlib.suppress(KafkaError):
            producer.close(timeout=1)
