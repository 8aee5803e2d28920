"""Faults in messages: poison, repeats, late events, large batches, transactions, erasures."""

from __future__ import annotations

import json
import random

from tests.drill.faults import fault
from tests.drill.load import CODECS, Message
from tests.drill.site import Site


@fault("letters")
def poison(site: Site, chance: random.Random) -> None:
    """Messages that cannot be decoded, are too large, have a huge key or an unknown tracking id."""
    stranger = {
        "trackingId": "nobody",
        "sessionId": "s",
        "eventList": [{"eventType": "click", "itemId": "x", "sentAt": 1_700_000_000}],
    }
    kinds: list[tuple[bytes | None, bytes | None]] = [
        (b"s", b"\xff\xfe{"),
        (b"k" * 900_000, b"not JSON"),
        (b"s", None),
        (None, b""),
        (b"s", b'{"sessionId":"s"}'),
        (b"s", b"x" * 900_000),
        (b"s", json.dumps(stranger).encode()),
        (b"s", b"[" * 50_000),
    ]
    producer = site.load.producer()
    topics = site.stack.settings.topic_prefix + "events."
    for key, value in chance.sample(kinds, 3):
        topic = topics + chance.choice(("clicks", "purchases"))
        kept = producer.send(topic, key=key, value=value).get(60)
        site.poison.add((kept.topic, kept.partition, kept.offset))
    producer.close()


@fault()
def repeated(site: Site, chance: random.Random) -> None:
    """Events that were acknowledged are sent again, over HTTP and straight to Kafka."""
    again = [site.load.sent.again(chance) for _ in range(30)]
    send(site, [message for message in again if message], chance)


@fault()
def late(site: Site, chance: random.Random) -> None:
    """Many events arrive after newer ones."""
    send(site, [site.load.script.draw(late=True) for _ in range(30)], chance)


@fault()
def burst(site: Site, chance: random.Random) -> None:
    """A burst of events in large compressed batches."""
    _produce(site, [site.load.script.draw() for _ in range(300)], chance)


@fault()
def erased(site: Site, chance: random.Random) -> None:
    """Users are erased while their events arrive, and earlier events are sent again."""
    for _ in range(2):
        user = f"gone{chance.randrange(10**9)}"
        messages = [site.load.script.of_user(user) for _ in range(8)]
        send(site, messages, chance)
        site.load.erase(user)
        send(site, messages, chance)
        site.erased.add(user)


@fault("kafka")
def transactions(site: Site, chance: random.Random) -> None:
    """Producers commit, abort and leave open transactions, and send all of it again."""
    for end in ("commit", "abort", "leave"):
        messages = [site.load.script.draw() for _ in range(10)]
        _produce_within(site, messages, chance, end)
        _produce(site, messages, chance)


def _produce_within(site: Site, messages: list[Message], chance: random.Random, end: str) -> None:
    producer = site.load.producer(
        chance.choice(CODECS),
        transactional_id=f"drill-{chance.randrange(10**9)}",
        transaction_timeout_ms=9_000,
    )
    topics = site.stack.settings.topic_prefix + "events."
    try:
        producer.init_transactions()
        producer.begin_transaction()
        for message in messages:
            value = json.dumps(message.body).encode()
            producer.send(topics + message.topic_kind, key=message.session.encode(), value=value)
        producer.flush(30)
        if end == "commit":
            producer.commit_transaction()
        elif end == "abort":
            producer.abort_transaction()
    finally:
        producer.close(timeout=1)


def send(site: Site, messages: list[Message], chance: random.Random) -> None:
    """Send messages, half of them over HTTP and half straight to Kafka."""
    for message in messages[::2]:
        site.load.post(message, chance)
    _produce(site, messages[1::2], chance)


def _produce(site: Site, messages: list[Message], chance: random.Random) -> None:
    site.load.deliver(messages, chance, codec=chance.choice(CODECS))
