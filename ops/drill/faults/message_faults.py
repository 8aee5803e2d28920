"""Faults in messages: poison, repeats, late events, large batches, transactions, erasures."""

from __future__ import annotations

import json
import random

from ops.drill.faults.fault_registry import fault
from ops.drill.load import CODECS
from ops.drill.script import DISTANT_S, Message
from ops.drill.site import NotSeen, Site


@fault("letters")
def poison(site: Site, chance: random.Random) -> str:
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
    return _poisoned(site, chance, chance.sample(kinds, 3))


def _poisoned(
    site: Site, chance: random.Random, messages: list[tuple[bytes | None, bytes | None]]
) -> str:
    """Send messages that must become dead letters."""
    producer = site.load.producer()
    topics = site.settings.topic_prefix + "events."
    try:
        for key, value in messages:
            topic = topics + chance.choice(("clicks", "purchases"))
            kept = producer.send(topic, key=key, value=value).get(60)
            site.poison.add((kept.topic, kept.partition, kept.offset))
    finally:
        producer.close(timeout=1)
    return f"Kafka took {len(messages)} messages that must become dead letters"


@fault("letters")
def skewed(site: Site, chance: random.Random) -> str:
    """Events of clients whose clocks are wrong: days or years behind, or far in the future."""
    days = (1, 30, 700)
    behind = [
        site.load.script.skewed(-86400 * chance.choice(days) - chance.randrange(3600))
        for _ in range(12)
    ]
    sent = send(site, behind, chance)
    ahead = [site.load.script.skewed(DISTANT_S) for _ in range(2)]
    letters: list[tuple[bytes | None, bytes | None]] = [
        (message.session.encode(), json.dumps(message.body).encode()) for message in ahead
    ]
    return f"{sent}; {_poisoned(site, chance, letters)}"


@fault()
def repeated(site: Site, chance: random.Random) -> str:
    """Events that were acknowledged are sent again, over HTTP and straight to Kafka."""
    again = [site.load.sent.again(chance) for _ in range(30)]
    if not any(again):
        raise NotSeen("nothing was acknowledged before")
    return send(site, [message for message in again if message], chance)


@fault()
def late(site: Site, chance: random.Random) -> str:
    """Many events arrive after newer ones."""
    return send(site, [site.load.script.draw(late=True) for _ in range(30)], chance)


@fault()
def burst(site: Site, chance: random.Random) -> str:
    """A burst of events in large compressed batches."""
    messages = [site.load.script.draw() for _ in range(300)]
    _produce(site, messages, chance)
    return f"{len(messages)} messages were acknowledged"


@fault()
def erased(site: Site, chance: random.Random) -> str:
    """Users are erased while their events arrive, and earlier events are sent again."""
    for _ in range(2):
        user = f"gone{chance.randrange(10**9)}"
        messages = [site.load.script.of_user(user) for _ in range(8)]
        send(site, messages, chance)
        site.load.erase(user)
        send(site, messages, chance)
        site.erased.add(user)
    return "2 users were erased amid 32 messages"


@fault("kafka", needs=("apache",))
def transactions(site: Site, chance: random.Random) -> str:
    """Producers commit, abort and leave open transactions, and send all of it again."""
    for end in ("commit", "abort", "leave"):
        messages = [site.load.script.draw() for _ in range(10)]
        _produce_within(site, messages, chance, end)
        _produce(site, messages, chance)
    return "one was committed, one aborted and one left open"


def _produce_within(site: Site, messages: list[Message], chance: random.Random, end: str) -> None:
    producer = site.load.producer(
        chance.choice(CODECS),
        transactional_id=f"drill-{chance.randrange(10**9)}",
        transaction_timeout_ms=9_000,
    )
    topics = site.settings.topic_prefix + "events."
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


def send(site: Site, messages: list[Message], chance: random.Random) -> str:
    """Send messages, half of them over HTTP and half straight to Kafka."""
    for message in messages[::2]:
        site.load.post(message, chance)
    _produce(site, messages[1::2], chance)
    return f"{len(messages)} messages were acknowledged"


def _produce(site: Site, messages: list[Message], chance: random.Random) -> None:
    site.load.deliver(messages, chance, codec=chance.choice(CODECS))
