"""Decoding of Kafka's batches, with unreadable ones reported by their offsets.

Both clients raise whatever their codecs raise, without the offset, and kafka-python loops forever
when it is polled again. See docs/decisions/0017-unreadable-batches.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from aiokafka.consumer.fetcher import FetchError, FetchResult
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher

from models.errors import Unreadable

MAX_REASON_CHARS = 200


class Batches:
    """The batches of a fetch, one after another, with the one that is being decoded.

    Parameters
    ----------
    records
        `MemoryRecords` of either client.
    """

    def __init__(self, records: Any) -> None:  # noqa: ANN401  neither client is typed
        self._records = records
        self._current: Any = None

    def has_next(self) -> bool:
        """True if there is another batch."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:  # noqa: ANN401
        """The next batch; kafka-python's is None at the end."""
        self._current = None
        self._current = self._records.next_batch()
        return self._current

    def failure(self, topic: str, partition: int, offset: int, error: BaseException) -> Unreadable:
        """The error with the offsets of the batch that failed, when reading from `offset` on."""
        first, last = offset, offset
        if hasattr(self._current, "next_offset"):
            first = max(offset, self._current.base_offset)
            last = max(first, self._current.next_offset - 1)
        return Unreadable(topic, partition, first, last, reason_of(error))


def reason_of(error: BaseException) -> str:
    r"""Reason of a failure to decode, in a bounded line.

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
            # The messages decoded so far are delivered; another poll would loop forever.
            self.drain()
            at = self.next_fetch_offset
            raise batches.failure(tp.topic, tp.partition, at, error) from error


def name_unreadable(consumer: KafkaConsumer) -> None:
    """Have a consumer raise `Unreadable` at a batch that it cannot decode.

    It does so at each poll; to go on, seek behind the batch.
    """
    consumer._fetcher.PartitionRecords = _PartitionRecords  # noqa: SLF001  no public way


def note_stable_ends(consumer: KafkaConsumer) -> dict[Any, int]:
    """Last stable offset of each partition, as of the last fetch.

    The dictionary is filled while the consumer polls, which has no public way to tell it.
    """
    fetcher, stable = consumer._fetcher, {}  # noqa: SLF001
    parse = fetcher._parse_fetched_data  # noqa: SLF001

    def noted(fetched: Any) -> Any:  # noqa: ANN401
        end = fetched.partition_data.last_stable_offset
        if end is not None and end >= 0:
            stable[fetched.topic_partition] = end
        return parse(fetched)

    fetcher._parse_fetched_data = noted  # noqa: SLF001
    return stable


class _Decoded:
    """Messages of a partition's fetch: aiokafka's `PartitionRecords`, up to an unreadable batch.

    There the iteration ends, the position stays, and `stop` is called.
    """

    def __init__(self, records: Any, stop: Callable[[Unreadable], None]) -> None:  # noqa: ANN401
        self._records = records
        self._batches = records._records = Batches(records._records)  # noqa: SLF001  not begun yet
        self._stop = stop

    @property
    def next_fetch_offset(self) -> int:
        """Next offset to read."""
        return int(self._records.next_fetch_offset)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:  # noqa: ANN401
        try:
            return next(self._records)
        except StopIteration:
            raise
        except Exception as error:
            tp, at = self._records._tp, self.next_fetch_offset  # noqa: SLF001
            self._stop(self._batches.failure(tp.topic, tp.partition, at, error))
            raise StopIteration from error


class Fetched(OrderedDict[Any, Any]):
    """Fetched records of an aiokafka consumer, where an unreadable batch stops its partition only.

    It replaces a fetcher's own dictionary. There an error of one partition would be raised to the
    reader of any, and drop the messages decoded before it.

    Parameters
    ----------
    results
        Records that the fetcher has fetched so far.
    position
        Returns the next offset to read of a partition.
    stop
        Called with an unreadable batch; has its partition not fetched again.
    """

    def __init__(
        self,
        results: Mapping[Any, Any],
        position: Callable[[Any], int],
        stop: Callable[[Unreadable], None],
    ) -> None:
        super().__init__()
        self._position, self._stop = position, stop
        for tp, result in results.items():
            self[tp] = result

    def __setitem__(self, tp: Any, result: Any) -> None:  # noqa: ANN401
        if isinstance(result, FetchError):
            at, error = self._position(tp), result._error  # noqa: SLF001
            self._stop(Unreadable(tp.topic, tp.partition, at, at, reason_of(error)))
            return
        if isinstance(result, FetchResult) and not isinstance(result._partition_records, _Decoded):  # noqa: SLF001
            result._partition_records = _Decoded(result._partition_records, self._stop)  # noqa: SLF001
        super().__setitem__(tp, result)
