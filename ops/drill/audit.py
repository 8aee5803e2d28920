"""Audit: what Kafka has against what is in effect, and against what was acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from models.settings import Settings
from models.state.histories import item_indexes
from models.state.store import Store
from ops.drill.comparison import Findings, compare
from ops.drill.event_log import Place, log_of
from ops.drill.lost_tails import Tail
from ops.drill.reads import Record, event_ids, read_topics, stored
from streams.kafka.topics import Topics


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
    poison: set[Place]
    lost_poison: set[Place]
    erased: set[str]
    tails: Sequence[Tail]


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
        (history,) = await store.histories([owner])
        if wanted & set(zip(history.times.tolist(), item_indexes(history).tolist(), strict=True)):
            return True
    return False


def audit(settings: Settings, account: Account) -> Findings:
    """Compare all that can be compared; nothing may be under way."""
    topics = Topics.of(settings)
    records = read_topics(settings, [topics.clicks, topics.purchases])
    stored(settings, lambda store: note_late(store, records, account.tails))
    log = log_of(records, account.tails, settings)
    findings = Findings(n_messages=len(records))
    findings.unacknowledged_loss = sorted(account.acknowledged - log.positions.keys())
    compare(settings, log, account.erased, findings)
    buried = set()
    for record in read_topics(settings, [topics.dead_letters]):
        source = json.loads(record.value)["source"]
        buried.add((source["topic"], source["partition"], source["offset"]))
    of_nothing = buried - log.undecodable - account.lost_poison
    findings.lost += [f"no dead letter of {place}" for place in sorted(account.poison - buried)]
    findings.other += [f"dead letter of {place}" for place in sorted(of_nothing)]
    findings.other += [f"not sent: {place}" for place in sorted(log.undecodable - account.poison)]
    return findings
