"""A partition's messages: order, reading, repetitions, retention, and what is refused."""

from __future__ import annotations

import os
import random
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import (
    CorruptRecordError,
    InvalidProducerEpochError,
    KafkaError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumberError,
    RecordListTooLargeError,
    UnsupportedForMessageFormatError,
)
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder

from ops.broker import stored_partition
from ops.broker.stored_partition import MAX_BATCH_BYTES, MAX_SEQUENCE, StoredPartition

pytestmark = pytest.mark.unit

DAY_MS = 86_400_000


def batch(
    values: list[bytes], *, at_ms: int = 0, producer: tuple[int, int, int] = (-1, -1, -1)
) -> bytes:
    """A batch of messages as a producer sends it, of a producer, epoch and first sequence."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=producer[0],
        producer_epoch=producer[1],
        base_sequence=producer[2],
        batch_size=10**7,
    )
    for number, value in enumerate(values):
        builder.append(number, at_ms, None, value, [])
    return bytes(builder.build())


def values_in(read: bytes) -> list[tuple[int, bytes]]:
    """Offset and value of each message of whole batches."""
    records, found = MemoryRecords(read), []
    while (one := records.next_batch()) is not None:
        found += [(record.offset, record.value) for record in one]
    return found


def new_log(folder: Path, *, retention_ms: int = -1, segment_ms: int = DAY_MS) -> StoredPartition:
    """An empty log."""
    return StoredPartition(folder, retention_ms=retention_ms, segment_ms=segment_ms)


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 3000))
def test_every_message_is_read_in_order_from_every_offset(
    tmp_path_factory: pytest.TempPathFactory, seed: int, index_bytes: int, segment_bytes: int
) -> None:
    """Wherever files end and whatever is in the index: the batch that holds an offset is first."""
    chance = random.Random(seed)
    log = new_log(tmp_path_factory.getbasetemp())
    sent: list[bytes] = []
    with (
        mock.patch.object(stored_partition, "INDEX_BYTES", index_bytes),
        mock.patch.object(stored_partition, "SEGMENT_BYTES", segment_bytes),
    ):
        for _ in range(20):
            values = [chance.randbytes(chance.randrange(80)) for _ in range(chance.randint(1, 3))]
            assert log.append(batch(values), now_ms=0) == len(sent)
            sent += values
        for first in range(len(sent)):
            at, read = first, []
            while at < log.end:
                found = values_in(log.read(at, chance.randrange(400)))
                assert found[0][0] <= at < found[-1][0] + 1
                read += [one for one in found if one[0] >= at]
                at = found[-1][0] + 1
            assert read == [(at, sent[at]) for at in range(first, len(sent))]
    assert log.read(log.end, 100) == b""
    for outside in (-1, log.end + 1):
        with pytest.raises(OffsetOutOfRangeError):
            log.read(outside, 100)
    log.close()


@pytest.mark.parametrize("n_messages", [100, 10_000])
def test_reading_the_newest_message_does_not_look_at_the_others(
    tmp_path: Path, n_messages: int
) -> None:
    """Two reads of a few kilobytes, however many messages stand before it."""
    log, one = new_log(tmp_path), batch([b"value"])
    for _ in range(n_messages):
        log.append(one, now_ms=0)
    with mock.patch.object(os, "pread", wraps=os.pread) as reads:
        assert values_in(log.read(n_messages - 1, 10**6)) == [(n_messages - 1, b"value")]
    assert len(reads.call_args_list) == 2
    assert sum(call.args[1] for call in reads.call_args_list) < 10_000
    log.close()


def test_a_batch_that_is_sent_again_is_not_added_again(tmp_path: Path) -> None:
    """An idempotent producer gets the first offset, for any of its last five batches."""
    log = new_log(tmp_path)
    sent = [batch([b"a", b"b"], producer=(7, 0, 2 * number)) for number in range(5)]
    offsets = [log.append(one, now_ms=0) for one in sent]
    assert offsets == [0, 2, 4, 6, 8]
    assert [log.append(one, now_ms=0) for one in sent] == offsets
    assert log.end == 10
    with pytest.raises(OutOfOrderSequenceNumberError):
        log.append(batch([b"late"], producer=(7, 0, 12)), now_ms=0)
    log.append(batch([b"anew"], producer=(7, 1, 0)), now_ms=0)
    with pytest.raises(InvalidProducerEpochError):
        log.append(batch([b"fenced"], producer=(7, 0, 10)), now_ms=0)
    assert log.end == 11
    log.close()


def test_sequence_numbers_begin_again_after_the_largest(tmp_path: Path) -> None:
    """As in Apache Kafka, 0 follows 2**31 - 1; a producer that is new here may begin anywhere."""
    log = new_log(tmp_path)
    log.append(batch([b"a", b"b"], producer=(7, 0, MAX_SEQUENCE - 1)), now_ms=0)
    assert log.append(batch([b"c"], producer=(7, 0, 0)), now_ms=0) == 2
    log.close()


def test_messages_are_removed_by_whole_files_when_all_of_one_are_old(tmp_path: Path) -> None:
    """The oldest offset moves on, and offsets are never given twice."""
    log = new_log(tmp_path, retention_ms=1000, segment_ms=100)
    for at_ms in (0, 50, 100, 150, 200):
        log.append(batch([b"at %d" % at_ms], at_ms=at_ms), now_ms=at_ms)
    log.drop_old(1051)
    assert (log.start, log.end) == (2, 5)
    with pytest.raises(OffsetOutOfRangeError):
        log.read(1, 100)
    assert values_in(log.read(2, 100))[0] == (2, b"at 100")
    log.drop_old(10_000)
    assert (log.start, log.end) == (5, 5)
    assert log.newest() is None
    assert log.append(batch([b"new"], at_ms=10_000), now_ms=10_000) == 5
    log.close()


def test_the_first_message_since_a_time_is_found(tmp_path: Path) -> None:
    """The first that is no older, not the newest nor one by its place."""
    log = new_log(tmp_path)
    with mock.patch.object(stored_partition, "INDEX_BYTES", 100):
        for at_ms in (10, 30, 20, 40):
            log.append(batch([b"a", b"b"], at_ms=at_ms), now_ms=0)
    assert [log.first_since(at_ms) for at_ms in (0, 11, 31, 41)] == [
        (0, 10),
        (2, 30),
        (6, 40),
        None,
    ]
    assert log.newest() == (7, 40)
    log.close()


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", CorruptRecordError),
        (b"\0" * 61, UnsupportedForMessageFormatError),
        (batch([b"a"])[:-1], CorruptRecordError),
        (batch([b"a"]) + batch([b"b"]), CorruptRecordError),
        (batch([b"a"])[:57] + b"\x7f\xff\xff\xff" + batch([b"a"])[61:], CorruptRecordError),
        (batch([bytes(MAX_BATCH_BYTES)]), RecordListTooLargeError),
    ],
)
def test_what_is_not_one_batch_is_refused(
    tmp_path: Path, sent: bytes, error: type[KafkaError]
) -> None:
    """Nothing of it is kept."""
    log = new_log(tmp_path)
    with pytest.raises(error):
        log.append(sent, now_ms=0)
    assert log.end == 0
    log.close()


def test_messages_leave_no_file(tmp_path: Path) -> None:
    """Files have no name, so nothing is left whatever ends the process."""
    log = new_log(tmp_path)
    log.append(batch([b"a"]), now_ms=0)
    assert not list(tmp_path.iterdir())
    log.close()
