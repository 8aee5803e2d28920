"""Resuming an interrupted sender: the events it has sent, and the wait for their effect."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from models.errors import InvalidEvent
from models.events import parse, tracking_id_of
from models.settings import Settings
from models.state.store import Store
from models.tokens import Receipt, TopicKind
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.offsets import PartitionEnd, end_offsets, first_waiting, messages
from streams.kafka.topics import Topics, topic_ids

WAIT_S = 0.05
"""Interval between two reads of the watermarks while a sender waits."""

READS_PER_CHECK = 20
"""Reads of the watermarks between two checks that there is a message left to wait for."""

Ends = dict[str, int]
"""Offset after the last message, by topic kind and partition: `clicks/0`."""


def current_ends(settings: Settings, kinds: Iterable[TopicKind]) -> Ends:
    """Ends of the topics of these kinds; blocking."""
    topics = Topics.of(settings)
    kind_of = {getattr(topics, kind): kind for kind in kinds}
    found = end_offsets(settings, list(kind_of))
    return {f"{kind_of[topic]}/{partition}": end for (topic, partition), end in found.items()}


def ends_after(ends: Mapping[str, int], receipts: Iterable[Receipt]) -> Ends:
    """The ends after these receipts.

    >>> from models.tokens import Published
    >>> ends_after({"clicks/0": 5}, [Receipt((Published("events.clicks", 0, 7, "clicks"),))])
    {'clicks/0': 8}
    """
    found = dict(ends)
    for receipt in receipts:
        for one in receipt.published:
            place = f"{one.kind}/{one.partition}"
            found[place] = max(found.get(place, 0), one.offset + 1)
    return found


def event_ids_since(settings: Settings, ends: Mapping[str, int], tracking_id: str) -> set[str]:
    """Ids of the events with a tracking id that lie beyond these ends; blocking.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    topics = Topics.of(settings)
    starts = {}
    for place, end in ends.items():
        kind, _, partition = place.partition("/")
        starts[getattr(topics, kind), int(partition)] = end
    found: set[str] = set()
    for record in messages(settings, starts):
        found |= _event_ids(record, tracking_id)
    return found


def _event_ids(record: Any, tracking_id: str) -> set[str]:  # noqa: ANN401  kafka-python is not typed
    raw = record.value or b""
    if tracking_id_of(raw) != tracking_id:
        return set()
    try:
        message = parse(raw, now_s=record.timestamp / 1000)
    except InvalidEvent:
        # From another sender: this service sends valid events only.
        return set()
    return {event.event_id for event in message.event_list if event.event_id}


async def wait_until_in_effect(settings: Settings, store: Store, ends: Mapping[str, int]) -> None:
    """Wait, without a limit, until all messages before these ends have taken effect.

    Parameters
    ----------
    store
        Store of the settings' group, whose watermarks count for every group.
    """
    topics = Topics.of(settings)
    kinds = sorted({place.partition("/")[0] for place in ends})
    ids = await asyncio.to_thread(topic_ids, settings, [getattr(topics, kind) for kind in kinds])
    left: dict[Partition, int] = {}
    for place, end in ends.items():
        kind, _, partition = place.partition("/")
        left[getattr(topics, kind), int(partition)] = end
    for reads in itertools.count():
        marks = await store.watermarks([f"{ids[topic]}/{n}" for topic, n in left])
        nexts = {tp: mark + 1 for tp, mark in zip(left, marks, strict=True) if mark + 1 < left[tp]}
        if nexts and reads % READS_PER_CHECK == READS_PER_CHECK - 1:
            # The last offsets may be transaction markers, which no watermark reaches.
            stops = {tp: PartitionEnd(left[tp], left[tp]) for tp in nexts}
            found = await asyncio.to_thread(first_waiting, settings, nexts, stops)
            nexts = {tp: nexts[tp] for tp in found}
        if not nexts:
            return
        left = {tp: left[tp] for tp in nexts}
        await asyncio.sleep(WAIT_S)
