"""Kafka's batches on their way to messages: what cannot be decoded is named by its place.

Both clients fail with whatever their codecs raise, without saying where, and kafka-python goes
round for ever when it is asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher

from models.errors import Unreadable

MAX_REASON_CHARS = 200

SECOND_FORMAT = 2
"""From this version on, the head of a batch tells its last offset without being decoded."""


class Batches:
    """The batches of a fetch, one after another, and which of them is being decoded.

    Parameters
    ----------
    records
        `MemoryRecords` of either client.
    """

    def __init__(self, records: Any) -> None:  # noqa: ANN401  neither client is typed
        self._records = records
        self._current: Any = None

    def has_next(self) -> bool:
        """Whether there is another batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:  # noqa: ANN401
        """The next batch; kafka-python's is None at the end."""
        self._current = None
        self._current = self._records.next_batch()
        return self._current

    def failure(self, topic: str, partition: int, offset: int, error: BaseException) -> Unreadable:
        """The error that says where decoding failed, reading on at `offset`."""
        first, last = offset, offset
        batch = self._current
        if batch is not None and getattr(batch, "magic", SECOND_FORMAT) >= SECOND_FORMAT:
            first = max(offset, batch.base_offset)
            last = max(first, batch.next_offset - 1)
        return Unreadable(topic, partition, first, last, reason_of(error))


def reason_of(error: BaseException) -> str:
    r"""Why something could not be decoded, in a bounded line.

    >>> reason_of(ValueError("first line\nsecond line"))
    'ValueError: first line'
    """
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}"[:MAX_REASON_CHARS].removesuffix(": ")


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:  # noqa: ANN401
        batches = Batches(records)
        try:
            yield from super()._unpack_records(tp, batches, *deserializers)
        except Exception as error:
            # What was decoded before is handed out; asked for more, it would not end.
            self.drain()
            at = self.next_fetch_offset
            raise batches.failure(tp.topic, tp.partition, at, error) from error


def name_unreadable(consumer: KafkaConsumer) -> None:
    """Have a consumer raise `Unreadable` where it comes to what it cannot decode.

    It does so again each time it is polled; who wants to go on seeks behind it.
    """
    consumer._fetcher.PartitionRecords = _PartitionRecords  # noqa: SLF001  no public way
