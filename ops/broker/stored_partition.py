"""The messages of one partition: batches in the order of their arrival, in files without a name.

No cost depends on how many messages there are: a batch is written behind the last one, and an
index of one entry for every few kilobytes says where an offset or a time is found.
"""

from __future__ import annotations

import os
import struct
import tempfile
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kafka.errors import (
    CorruptRecordError,
    InvalidProducerEpochError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumberError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
from kafka.record import MemoryRecords

SEGMENT_BYTES = 64 * 1024 * 1024
"""Size at which a file of messages is full; retention removes whole files."""

INDEX_BYTES = 4096
"""Bytes of messages between two entries of the index."""

MAX_BATCH_BYTES = 1024 * 1024 + 12
"""Largest batch of messages, as Apache Kafka's default."""

MAX_PRODUCERS = 10_000
"""Idempotent producers whose sequence numbers are remembered for each partition."""

REMEMBERED_BATCHES = 5
"""Last batches of a producer that are recognized when they are sent again, as in Apache Kafka."""

MAX_SEQUENCE = 2**31 - 1
"""Largest sequence number of a producer; 0 follows it."""

_MAGIC = 2
_HEADER = struct.Struct(">qiibIhiqqqhii")
_START = struct.Struct(">qi")
_PREFIX = struct.Struct(">qii")
_PREFIX_BYTES, _PLACED_BYTES = _START.size, _PREFIX.size


class _Header(NamedTuple):
    """The fixed part of a batch, in the order of the protocol's record batch of magic 2."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    checksum: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    n_records: int


@dataclass(slots=True)
class _Producer:
    """Epoch and last batches of an idempotent producer.

    A batch is remembered as its first and last sequence number, and the offset it was given.
    """

    epoch: int
    batches: deque[tuple[int, int, int]] = field(
        default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES)
    )


class _Segment:
    """A file of batches and its sparse index of offsets, places and largest times so far."""

    def __init__(self, folder: Path, base: int, now_ms: int) -> None:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self.descriptor = os.dup(file.fileno())
        self.base, self.size, self.indexed = base, 0, -INDEX_BYTES
        self.begun_ms, self.newest_ms = now_ms, -1
        self.offsets, self.places, self.times_ms = array("q"), array("q"), array("q")

    def append(self, batch: bytes, offset: int, max_timestamp_ms: int) -> None:
        written = 0
        while written < len(batch):
            written += os.pwrite(self.descriptor, batch[written:], self.size + written)
        if self.size - self.indexed >= INDEX_BYTES:
            self.offsets.append(offset)
            self.places.append(self.size)
            self.times_ms.append(self.newest_ms)
            self.indexed = self.size
        self.newest_ms = max(self.newest_ms, max_timestamp_ms)
        self.size += len(batch)

    def place_of(self, offset: int) -> int:
        """Place at which the batch that holds an offset begins."""
        place = self.places[max(0, bisect_right(self.offsets, offset) - 1)]
        # All batches up to the index's next entry begin in this.
        chunk, at = os.pread(self.descriptor, INDEX_BYTES + _HEADER.size, place), 0
        while place + at < self.size:
            header = _Header(*_HEADER.unpack_from(chunk, at))
            if header.base_offset + header.last_offset_delta >= offset:
                break
            at += _PREFIX_BYTES + header.length
        return place + at

    def header(self, place: int) -> _Header:
        return _Header(*_HEADER.unpack(os.pread(self.descriptor, _HEADER.size, place)))

    def read(self, place: int, n_bytes: int) -> bytes:
        """At least the whole batch that begins here; the last one may be cut."""
        n_bytes = min(max(n_bytes, _PREFIX_BYTES), self.size - place)
        chunk = os.pread(self.descriptor, n_bytes, place)
        whole = _PREFIX_BYTES + int(_START.unpack_from(chunk)[1])
        return chunk if len(chunk) >= whole else os.pread(self.descriptor, whole, place)

    def close(self) -> None:
        os.close(self.descriptor)


class StoredPartition:
    """The messages of one partition.

    Parameters
    ----------
    folder
        Where its files are made; they have no name there.
    retention_ms
        Age at which messages are removed, by whole files; -1 for never.
    segment_ms
        Age at which a file is full.

    Attributes
    ----------
    start, end
        Offset of the oldest message, and of the next one.
    """

    def __init__(self, folder: Path, *, retention_ms: int, segment_ms: int) -> None:
        self.start = self.end = 0
        self._folder = folder
        self._retention_ms, self._segment_ms = retention_ms, segment_ms
        self._segments: list[_Segment] = []
        self._producers: OrderedDict[int, _Producer] = OrderedDict()

    def append(self, batch: bytes, *, now_ms: int) -> int:
        """Add a batch as it came over the wire; gives the offset of its first message.

        A batch of an idempotent producer that is already here is not added again. A write to a
        file, some 10 µs.

        Raises
        ------
        CorruptRecordError
            It is no batch, or more than one.
        UnsupportedForMessageFormatError
            It is of a format older than Kafka 0.11.
        RecordListTooLargeError
            It is larger than `MAX_BATCH_BYTES`.
        OutOfOrderSequenceNumberError, InvalidProducerEpochError
            Of an idempotent producer, it does not follow the last one.
        OSError
            It cannot be written.
        """
        header = _checked(batch)
        earlier = self._earlier(header)
        if earlier is not None:
            return earlier
        offset = self.end
        segment = self._segments[-1] if self._segments else None
        if (
            segment is None
            or segment.size >= SEGMENT_BYTES
            or now_ms - segment.begun_ms >= self._segment_ms
        ):
            segment = _Segment(self._folder, offset, now_ms)
            self._segments.append(segment)
        placed = _PREFIX.pack(offset, header.length, 0) + batch[_PLACED_BYTES:]
        segment.append(placed, offset, header.max_timestamp)
        self.end = offset + header.last_offset_delta + 1
        self._remember(header, offset)
        return offset

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Batches from the one that holds this offset on; empty at the end.

        At most `max_bytes`, but always a whole batch.

        Raises
        ------
        OffsetOutOfRangeError
            There is no message with this offset, nor will the next one have it.
        """
        if not self.start <= offset <= self.end:
            raise OffsetOutOfRangeError
        if offset == self.end:
            return b""
        number = bisect_right(self._segments, offset, key=lambda segment: segment.base) - 1
        segment = self._segments[number]
        return segment.read(segment.place_of(offset), max_bytes)

    def first_since(self, time_ms: int) -> tuple[int, int] | None:
        """Offset and time of the first message that is no older than this; None without one."""
        for segment in self._segments:
            if segment.newest_ms < time_ms:
                continue
            number = bisect_right(segment.times_ms, time_ms - 1) - 1
            place = segment.places[max(0, number)]
            while place < segment.size:
                header = segment.header(place)
                length = _PREFIX_BYTES + header.length
                if header.max_timestamp >= time_ms:
                    batch = MemoryRecords(segment.read(place, length)[:length]).next_batch()
                    for record in batch or ():
                        if record.timestamp >= time_ms and record.offset >= self.start:
                            return record.offset, record.timestamp
                place += length
        return None

    def newest(self) -> tuple[int, int] | None:
        """Offset and time of the last message; None without one."""
        if not self._segments or self.end == self.start:
            return None
        return self.end - 1, self._segments[-1].newest_ms

    def drop_old(self, now_ms: int) -> None:
        """Remove files whose messages are all older than the retention."""
        if self._retention_ms < 0:
            return
        while self._segments and self._segments[0].newest_ms < now_ms - self._retention_ms:
            self._segments.pop(0).close()
            self.start = self._segments[0].base if self._segments else self.end

    def close(self) -> None:
        """Give up all messages."""
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _earlier(self, header: _Header) -> int | None:
        """Offset of this batch if it is already here; raises an error if it does not follow."""
        if header.producer_id < 0:
            return None
        known = self._producers.get(header.producer_id)
        if known is None:
            return None
        if header.producer_epoch < known.epoch:
            raise InvalidProducerEpochError
        if header.producer_epoch > known.epoch:
            if header.base_sequence != 0:
                raise OutOfOrderSequenceNumberError
            return None
        last = (header.base_sequence + header.last_offset_delta) & MAX_SEQUENCE
        for first_known, last_known, offset in known.batches:
            if (first_known, last_known) == (header.base_sequence, last):
                return offset
        if header.base_sequence != (known.batches[-1][1] + 1) & MAX_SEQUENCE:
            raise OutOfOrderSequenceNumberError
        return None

    def _remember(self, header: _Header, offset: int) -> None:
        if header.producer_id < 0:
            return
        known = self._producers.get(header.producer_id)
        if known is None or known.epoch != header.producer_epoch:
            known = self._producers[header.producer_id] = _Producer(header.producer_epoch)
        last = (header.base_sequence + header.last_offset_delta) & MAX_SEQUENCE
        known.batches.append((header.base_sequence, last, offset))
        self._producers.move_to_end(header.producer_id)
        if len(self._producers) > MAX_PRODUCERS:
            self._producers.popitem(last=False)


def _checked(batch: bytes) -> _Header:
    """The header of exactly one batch."""
    if len(batch) > MAX_BATCH_BYTES:
        raise RecordListTooLargeError
    if len(batch) < _HEADER.size:
        raise CorruptRecordError
    header = _Header(*_HEADER.unpack_from(batch))
    if header.magic != _MAGIC:
        raise UnsupportedForMessageFormatError
    if (
        header.length != len(batch) - _PREFIX_BYTES
        or header.n_records < 1
        or header.last_offset_delta != header.n_records - 1
    ):
        raise CorruptRecordError
    return header
