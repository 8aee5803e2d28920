"""Audit: the state in Redis against a naive application of the events in Kafka."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from kafka import KafkaConsumer, TopicPartition

from models.events import event_hash
from models.serving.cache import StateCache
from models.state import layout
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from streams.kafka.topics import Topics
from tests.drill.tails import Record, Tail, event_ids
from tests.models.state.pair_records import unpack_pairs
from tests.models.state.reference import (
    NOW,
    Reference,
    decayed,
    history_of,
    pairs_of,
    wrong_channels,
)
from tests.stack import Stack

MOST_SHOWN = 50
WEIGHTS = {"click": 1.0, "purchase": 3.0}
POSITIONS_S = 120.0

ERASED, ERASED_ITEMS = "gone", "g"
"""Prefix of the ids of users who are erased, and of their items."""

DROPPED = ("duplicates", "erased")
"""Counters of events that take no effect, and count whenever they are read."""

Position = tuple[str, int, int]


class Account(NamedTuple):
    """Record of a drill's actions.

    Attributes
    ----------
    acknowledged
        Ids of events that Kafka has acknowledged and has not lost since.
    poison, lost_poison
        Positions of messages that must become dead letters, and of those that Kafka lost.
    erased
        Erased users.
    tails
        Lost tails of Kafka's log, in order of time.
    """

    acknowledged: set[str]
    poison: set[Position]
    lost_poison: set[Position]
    erased: set[str]
    tails: Sequence[Tail]


class Seen(NamedTuple):
    """Identity of an event among those of its owner."""

    owner: str
    time: int
    item: str


@dataclass
class Log:
    """The event topics, read from their beginning."""

    messages: dict[tuple[str, int], list[StoredMessage]]
    positions: dict[str, list[Position]] = field(default_factory=lambda: defaultdict(list))
    names: dict[Seen, str] = field(default_factory=dict)
    undecodable: set[Position] = field(default_factory=set)
    has_lost_tails: bool = False
    """True if messages were re-read to find where Kafka has different ones: see `DROPPED`."""
    n_erasable: int = 0
    """Events of users who are erased: in which order with the erasure is not known."""


@dataclass
class Findings:
    """Differences; all empty if nothing was lost or doubled."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unacknowledged_loss: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """True without differences."""
        return not (self.lost or self.doubled or self.unacknowledged_loss or self.other)


def read_topics(kafka: str, names: Sequence[str]) -> list[Record]:
    """Every message of the topics up to their present ends, partition by partition in order."""
    consumer = KafkaConsumer(
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        max_partition_fetch_bytes=4_000_000,
        isolation_level="read_committed",
    )
    try:
        partitions = [
            TopicPartition(name, number)
            for name in names
            for number in sorted(consumer.partitions_for_topic(name) or ())
        ]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        consumer.seek_to_beginning(*partitions)
        found: list[Record] = []
        while any(consumer.position(tp) < end for tp, end in ends.items()):
            for polled in consumer.poll(timeout_ms=500).values():
                found += [Record(r.topic, r.partition, r.offset, r.value or b"") for r in polled]
        return sorted(found)
    finally:
        consumer.close()


def log_of(records: Iterable[Record], tails: Sequence[Tail]) -> Log:
    """The events of the records, and before them lost ones that are in effect."""
    log = Log(defaultdict(list), has_lost_tails=bool(tails))
    ordered = [(*record.position, 0, record.offset, record) for record in records]
    for number, tail in enumerate(tails):
        # At the offset of the first that is lost, before the one that has this offset now.
        before = number - len(tails)
        ordered += [(*tail.place, tail.first, before, one.offset, one) for one in tail.kept]
    for *_, turn, _, record in sorted(ordered):
        _add(log, record, is_in_kafka=turn == 0)
    return log


def _add(log: Log, record: Record, *, is_in_kafka: bool) -> None:
    try:
        body = json.loads(record.value)
        if "erase" in body:
            return
        events = body["eventList"]
        session, user = body["sessionId"], body.get("userId") or ""
        is_ours = body.get("trackingId") in (None, "shop")
    except (ValueError, KeyError, TypeError, RecursionError):
        events, is_ours = [], False
    if not is_ours:
        if is_in_kafka:
            log.undecodable.add(record.position)
        return
    if is_in_kafka:
        for event in events:
            log.positions[event["eventId"]].append(record.position)
    if user.startswith(ERASED):
        log.n_erasable += len(events)
        return
    for event in events:
        seen = Seen(user or session, int(event["sentAt"]), event["itemId"])
        log.names[seen] = event["eventId"]
    messages = log.messages[record.topic, record.partition]
    stored = [_stored(event) for event in events]
    messages.append(StoredMessage(len(messages), user, session, shard_of(session), 0.0, stored))


def _stored(event: dict[str, Any]) -> StoredEvent:
    kind = event["eventType"]
    return StoredEvent(
        event["itemId"],
        int(event["sentAt"]),
        kind,
        math.log2(WEIGHTS[kind]),
        kind == "purchase",
        event_hash(event["eventId"]),
    )


def reference_of(log: Log, limit: int) -> Reference:
    """The state that the log leads to, one partition after the other."""
    reference = Reference(limit)
    for (topic, partition), messages in log.messages.items():
        reference.apply([Part(f"{topic}/{partition}", -1, messages)])
    return reference


async def compare(
    store: Store, log: Log, acknowledged: set[str], erased: Iterable[str]
) -> Findings:
    """Differences between store and log, and acknowledged events that the log lacks."""
    reference = reference_of(log, store.settings.history_events)
    findings = Findings()
    findings.unacknowledged_loss = sorted(acknowledged - log.positions.keys())[:MOST_SHOWN]
    names = sorted(reference.items)
    indexes = await store.item_indexes(names)
    name_of = dict(zip(indexes, names, strict=True))
    await _compare_histories(store, log, reference, name_of, findings)
    await _compare_items(store, reference, names, indexes, findings)
    await _compare_pairs(store, reference, name_of, findings)
    await _compare_erased(store, erased, findings)
    counts = await store.counts()
    expected = {**reference.counts, "items": len(reference.items)}
    for name, count in expected.items():
        is_open = log.has_lost_tails and name in DROPPED
        most = math.inf if is_open else count + log.n_erasable
        if not count <= counts.get(name, 0) <= most:
            findings.other.append(f"counter {name}: {counts.get(name, 0):g}, not {count}")
    return findings


async def _compare_erased(store: Store, erased: Iterable[str], findings: Findings) -> None:
    """Erased users have no data left, and events on their items are counted once."""
    for user in erased:
        held = await store.user_data_counts(user, now_s=NOW)
        found = sum(held.values())
        for number in range(5):
            found += await store.redis.exists(store.key(f"history:s:{user}-{number}"))
        if found:
            findings.other.append(f"{user} was erased, and there is: {held}")
    known = await store.redis.hgetall(store.key("items"))
    items = {
        name: int(index) for name, index in known.items() if name.startswith(ERASED_ITEMS.encode())
    }
    if items:
        stats = await StateCache(store).stats(np.array(list(items.values()), np.int64), NOW)
        for name, count in zip(items, stats["events"].tolist(), strict=True):
            if count > 1:
                findings.doubled.append(f"item {name.decode()} of somebody erased: {count} times")


async def _compare_histories(
    store: Store, log: Log, reference: Reference, name_of: dict[int, str], findings: Findings
) -> None:
    for owner, seen in reference.histories.items():
        found = await history_of(store, owner)
        there = Counter(
            (time, name_of.get(item, "?"))
            for time, item in zip(found.times.tolist(), found.items.tolist(), strict=True)
        )
        wanted = Counter((time, item) for time, item, _ in seen)
        findings.lost += _described(owner, wanted - there, log)
        findings.doubled += _described(owner, there - wanted, log)
        if found.count != reference.owner_counts[owner]:
            expected = reference.owner_counts[owner]
            findings.other.append(f"history {owner}: counted {found.count}, not {expected}")


def _described(owner: str, events: Counter[tuple[int, str]], log: Log) -> list[str]:
    """Each event with its id and where Kafka has it."""
    described = []
    for time, item in events:
        user = owner.partition(":")[2]
        for name in (user, user.removeprefix("u-")):
            event_id = log.names.get(Seen(name, time, item))
            if event_id is not None:
                break
        where = ", ".join("/".join(map(str, p)) for p in log.positions.get(event_id or "", []))
        described.append(f"{event_id} of {owner}, item {item}, at {where or 'no place in Kafka'}")
    return described


async def _compare_items(
    store: Store, reference: Reference, names: list[str], indexes: list[int], findings: Findings
) -> None:
    stats = await StateCache(store).stats(np.array(indexes, np.int64), NOW)
    for name, row in zip(names, stats, strict=True):
        parts = reference.items[name]
        times = [time for _, time in parts]
        expected = (len(parts), reference.item_purchases[name], min(times), max(times))
        found = tuple(row[["events", "purchases", "first", "last"]].tolist())
        if found != expected:
            findings.other.append(f"item {name}: events, purchases, first, last {found}, "
                                  f"not {expected}")  # fmt: skip
        half_lives_s = layout.POPULARITY_HALF_LIVES_S.values()
        for log2, half_life_s in zip(row["log2"].tolist(), half_lives_s, strict=True):
            now = float(max(times))
            wanted = math.log2(decayed(parts, now, half_life_s))
            popularity = log2 - (now - layout.EPOCH) / half_life_s
            if abs(popularity - wanted) > 1e-6:
                findings.other.append(f"item {name}: popularity 2^{popularity}, not 2^{wanted}")


async def _compare_pairs(
    store: Store, reference: Reference, name_of: dict[int, str], findings: Findings
) -> None:
    """Item pairs of users with ordered events; those of others depend on the partitions' order."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for index, name in name_of.items():
        if not name.startswith("a"):
            continue
        raw = await store.redis.get(store.key(f"pairs:{index}"))
        for item, own in (unpack_pairs(raw) if raw else {}).items():
            found[name, name_of.get(item, "?")] = own
    expected = {pair: parts for pair, parts in pairs_of(reference).items() if pair[0][0] == "a"}
    for pair in sorted(found.keys() ^ expected.keys()):
        findings.other.append(f"pair {pair}: {'lost' if pair in expected else 'unknown'}")
    for pair in sorted(found.keys() & expected.keys()):
        for channel, (log2, wanted) in wrong_channels(found[pair], expected[pair]).items():
            findings.other.append(f"pair {pair}, {channel}: {log2}, not {wanted}")


async def note_late(store: Store, records: Iterable[Record], tails: Sequence[Tail]) -> None:
    """Note lost messages that took effect after the loss.

    Kafka's client in a worker may wait for Kafka before it hands on what it has fetched.
    """
    sent_again = {event_id for record in records for event_id in event_ids(record)}
    for tail in tails:
        tail.late = {
            record.offset
            for record in tail.records
            if record.offset > tail.in_effect
            and not sent_again.intersection(event_ids(record))
            and await _is_in_effect(store, record)
        }


async def _is_in_effect(store: Store, record: Record) -> bool:
    """True if the owner of a message's events has one of them."""
    if not event_ids(record):
        return False
    body = json.loads(record.value)
    user, session = body.get("userId"), body["sessionId"]
    names = [event["itemId"] for event in body["eventList"]]
    indexes = await store.item_indexes(names)
    wanted = {
        (int(event["sentAt"]), index)
        for event, index in zip(body["eventList"], indexes, strict=True)
    }
    # The last: a session without a user may have got one since, and the user its events.
    for owner in (f"u:{user}", f"s:{session}", f"u:u-{session}"):
        history = await history_of(store, owner)
        if wanted & set(zip(history.times.tolist(), history.items.tolist(), strict=True)):
            return True
    return False


def audit(stack: Stack, kafka: str, account: Account) -> Findings:
    """Compare all that can be compared; nothing may be under way."""
    topics = Topics.of(stack.settings)
    records = read_topics(kafka, [topics.clicks, topics.purchases])
    stack.stored(lambda store: note_late(store, records, account.tails))
    log = log_of(records, account.tails)
    findings = stack.stored(lambda store: compare(store, log, account.acknowledged, account.erased))
    buried = set()
    for record in read_topics(kafka, [topics.dead_letters]):
        source = json.loads(record.value)["source"]
        buried.add((source["topic"], source["partition"], source["offset"]))
    of_nothing = buried - log.undecodable - account.lost_poison
    findings.other += [f"no dead letter of {place}" for place in sorted(account.poison - buried)]
    findings.other += [f"dead letter of {place}" for place in sorted(of_nothing)]
    findings.other += [f"not sent: {place}" for place in sorted(log.undecodable - account.poison)]
    return findings
