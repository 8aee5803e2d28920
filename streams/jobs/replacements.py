"""Replacement of what earlier imports brought into a dataset, by an import whose mode is FULL.

What was sent or put singly stays. The rows of the import come first, and only once they are in
effect do earlier ones go that it does not have: an import that fails or is interrupted before has
lost nothing, and one that goes on finds what is left to remove in the state, or in Kafka.

Events are removed by events of their own, each behind the one that it removes in its partition;
records by tombstones. Events that histories have trimmed cannot be told apart any more: what they
have counted for fades as all does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidRecord
from models.events import Event, PutEvents, event_hash, removal
from models.metadata_records import MetadataRecord, RecordKind, parse_record
from models.state.store import Store
from models.state.users.interactions import imported_events
from models.tokens import Receipt
from streams.jobs.job import JobContext
from streams.jobs.resume import Ends, current_ends, ends_after
from streams.kafka.consuming.offsets import messages
from streams.kafka.topics import Topics

CHUNK = 500
"""Messages under way at once, and between two checkpoints."""

EVENTS_PER_MESSAGE = 10


async def replace_events(context: JobContext, store: Store, kept: Iterable[PutEvents]) -> Ends:
    """Remove imported events but those of this import; gives the ends to wait for.

    Parameters
    ----------
    store
        The state that the events are in.
    kept
        The messages of the import, of events with ids; read in a thread.
    """
    hashes = await context.run_in_thread(_hashes, kept)
    ends: Ends = context.checkpointed["ends"]
    waiting: list[PutEvents] = []
    removed = 0
    async for user, types, own, times in imported_events(store):
        gone = [
            removal(int(own[n]), types[n], float(times[n]))
            for n in np.flatnonzero(~_among(_of_user(user) | own, hashes)).tolist()
        ]
        removed += len(gone)
        waiting += _messages(user, gone, context.checkpointed["tracking_id"])
        if len(waiting) >= CHUNK:
            ends = await _send_events(context, waiting, ends)
            waiting = []
            context.report_progress("earlier rows removed", removed)
    return await _send_events(context, waiting, ends)


def replace_records(context: JobContext, kind: RecordKind, group: str) -> Ends:
    """Remove imported records of a state group but those of this import. Blocking.

    Gives the ends to wait for. A record that is put while this goes on stays: where its
    tombstone came later, it is put again.
    """
    if "removed_from" not in context.checkpointed:
        starts = current_ends(context.settings, (kind,))
        context.run_on_loop(context.checkpoint(removed_from=starts))
    starts = context.checkpointed["removed_from"]
    found = KeptRecords.read(context, kind, group, starts)
    gone = found.of_other_imports(context.checkpointed["tracking_id"])
    ends = _put(context, kind, group, [(name, None) for name in gone if name not in found.since])
    later = KeptRecords.read(context, kind, group, starts, first=starts)
    lost = [record for name in gone if (record := _overtaken(later.since.get(name, [])))]
    for record in lost:
        again = _put(context, kind, group, [(record.id, record.properties)])
        ends = {place: max(end, ends.get(place, 0)) for place, end in again.items()}
    return ends


@dataclass
class KeptRecords:
    """Records of a kind and state group in Kafka.

    Attributes
    ----------
    newest
        The newest of each id before some ends; None for a removal.
    since
        All of an id from there on, in order.
    """

    newest: dict[str, MetadataRecord | None] = field(default_factory=dict)
    since: dict[str, list[MetadataRecord | None]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        context: JobContext,
        kind: RecordKind,
        group: str,
        ends: Ends,
        *,
        first: Mapping[str, int] | None = None,
    ) -> KeptRecords:
        """Read the topic, from the offsets in `first` if there are any. Blocking."""
        topic = getattr(Topics.of(context.settings), kind)
        partitions = {int(place.partition("/")[2]): end for place, end in ends.items()}
        starts = {
            (topic, partition): 0 if first is None else first[f"{kind}/{partition}"]
            for partition in partitions
        }
        found = cls()
        for message in context.until_stopped(messages(context.settings, starts)):
            record = _record(kind, message.key or b"", message.value or b"", context.clock())
            if record is None or record.group != group:
                continue
            present = record if message.value else None
            if message.offset < partitions[message.partition]:
                found.newest[record.id] = _without_properties(present)
            else:
                found.since.setdefault(record.id, []).append(present)
        return found

    def of_imports(self) -> set[str]:
        """Ids whose newest record is of an import."""
        newest = self.newest | {name: records[-1] for name, records in self.since.items()}
        return {name for name, record in newest.items() if record and record.imported_by}

    def of_other_imports(self, own: str) -> list[str]:
        """Ids whose newest record before the ends is of another import."""
        return [
            name
            for name, record in self.newest.items()
            if record and record.imported_by not in {"", own}
        ]


def _record(kind: RecordKind, key: bytes, value: bytes, now_s: float) -> MetadataRecord | None:
    try:
        return parse_record(kind, key, value, now_s=now_s)
    except InvalidRecord:
        # An invalid record has never taken effect.
        return None


def _without_properties(record: MetadataRecord | None) -> MetadataRecord | None:
    """The record without what takes memory."""
    return record and record._replace(properties=None)


def _overtaken(records: Sequence[MetadataRecord | None]) -> MetadataRecord | None:
    """A record that was put just before its tombstone came; None if there is none.

    >>> put = MetadataRecord("shop", "i", {}, 1.8e9)
    >>> _overtaken([put, None]) == put
    True
    >>> _overtaken([None]), _overtaken([None, put, None]), _overtaken([put])
    (None, None, None)
    """
    if len(records) < 2 or records[-1] is not None:
        return None
    return records[-2] if None not in records[:-1] else None


def _put(
    context: JobContext,
    kind: RecordKind,
    group: str,
    records: Sequence[tuple[str, Mapping[str, str | bool | int | float | None] | None]],
) -> Ends:
    """Send records and removals; gives the ends after them, once they are acknowledged."""
    ends: Ends = {}
    left = iter(records)
    while chunk := list(itertools.islice(left, CHUNK)):
        tracker = context.tracker()
        put = tracker.put_items if kind == "items" else tracker.put_users
        ends = ends_after(ends, [put(group, chunk).result()])
    return ends


def _hashes(messages: Iterable[PutEvents]) -> NDArray[np.uint64]:
    """Hashes of the events' users and ids, sorted: those of ids alone are few for all users."""
    both = (
        int(_of_user(message.user_id or "")) | event_hash(event.event_id or "")
        for message in messages
        for event in message.event_list
    )
    return np.unique(np.fromiter(both, np.uint64))


def _of_user(user_id: str) -> np.uint64:
    """24 bits of the hash of a user, in front of the 40 of an event's id."""
    return np.uint64(event_hash(user_id) % 2**24 << 40)


def _among(hashes: NDArray[np.uint64], kept: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for each hash that is among the sorted ones.

    >>> _among(np.array([2, 9], np.uint64), np.array([1, 2], np.uint64)).tolist()
    [True, False]
    """
    if not len(kept):
        return np.zeros(len(hashes), np.bool_)
    places = np.minimum(np.searchsorted(kept, hashes), len(kept) - 1)
    found: NDArray[np.bool_] = kept[places] == hashes
    return found


def _messages(user: str, events: Sequence[Event], tracking_id: str) -> Iterator[PutEvents]:
    for start in range(0, len(events), EVENTS_PER_MESSAGE):
        own = list(events[start : start + EVENTS_PER_MESSAGE])
        yield PutEvents(user, own, tracking_id=tracking_id, user_id=user)


async def _send_events(context: JobContext, sent: Sequence[PutEvents], ends: Ends) -> Ends:
    """Send messages and store a checkpoint; gives the ends after them."""
    if not sent:
        return ends
    ends = ends_after(ends, await context.run_in_thread(_sent, context, sent))
    await context.checkpoint(ends=ends)
    return ends


def _sent(context: JobContext, sent: Sequence[PutEvents]) -> list[Receipt]:
    tracker = context.tracker()
    futures = [tracker.put_events(message) for message in sent]
    wait(futures)
    return [future.result() for future in futures]
