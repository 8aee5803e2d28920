"""Requests about messages: produce, fetch, and offsets by time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from kafka.errors import (
    KafkaError,
    KafkaStorageError,
    NoError,
    TransactionalIdAuthorizationFailedError,
)
from kafka.protocol.consumer import FetchResponse, ListOffsetsResponse
from kafka.protocol.producer import ProduceResponse

from ops.broker.stored_partition import StoredPartition
from ops.broker.topic_catalog import TopicCatalog

LATEST, EARLIEST, NEWEST = -1, -2, -3
"""Times that ask ListOffsets for the end, the oldest message, and that of the largest time."""

MAX_WAIT_S = 60.0
"""Longest wait of a fetch for new messages."""

MAX_FETCH_BYTES = 64 * 1024 * 1024
"""Most bytes of messages in one answer."""

Response = Any
"""A message of kafka-python's."""

Waits = asyncio.Future[Any]


class _Wait:
    """A fetch that waits for a message in any of its partitions, or for its time to end."""

    def __init__(self, logs: set[StoredPartition]) -> None:
        self.logs = logs
        self.done: Waits = asyncio.get_running_loop().create_future()

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class MessageRequests:
    """Answers to requests about messages, and the fetches that wait for some."""

    def __init__(self, catalog: TopicCatalog) -> None:
        self._catalog = catalog
        self._waits: set[_Wait] = set()

    def produce(self, request: Any, version: int) -> Response | None:  # noqa: ANN401
        """Add batches, and wake the fetches that wait for them."""
        of = ProduceResponse.TopicProduceResponse
        now_ms = round(1000 * time.time())
        responses, grown = [], set()
        for topic in request.topic_data:
            parts = []
            for part in topic.partition_data:
                error, offset, start = NoError.errno, -1, -1
                try:
                    log = self._catalog.partition(topic.name, part.index)
                    if request.transactional_id is not None:
                        raise TransactionalIdAuthorizationFailedError
                    offset = log.append(bytes(part.records or b""), now_ms=now_ms)
                    start = log.start
                    grown.add(log)
                except (KafkaError, OSError) as failure:
                    error = _code(failure)
                parts.append(
                    of.PartitionProduceResponse(
                        index=part.index,
                        error_code=error,
                        base_offset=offset,
                        log_append_time_ms=-1,
                        log_start_offset=start,
                        record_errors=[],
                        error_message=None,
                    )
                )
            responses.append(of(name=topic.name, partition_responses=parts))
        for wait in self._waits:
            if not grown.isdisjoint(wait.logs):
                wait.end()
        return ProduceResponse(version=version, responses=responses) if request.acks else None

    def fetch(self, request: Any, version: int) -> Response | Waits:  # noqa: ANN401
        """Messages; if there are none, the future of the answer when some arrive or time is up.

        Partitions without news are only in answers that have no news at all.
        """
        answer = self._fetched(request, version, waited=request.max_wait_ms <= 0)
        if answer is not None:
            return answer
        logs = {
            self._catalog.partition(topic.topic, part.partition)
            for topic in request.topics
            for part in topic.partitions
        }
        loop = asyncio.get_running_loop()
        wait, answered = _Wait(logs), loop.create_future()
        self._waits.add(wait)
        timer = loop.call_later(min(request.max_wait_ms / 1000, MAX_WAIT_S), wait.end)

        def finish(_: Waits) -> None:
            timer.cancel()
            self._waits.discard(wait)
            if answered.done():
                return
            try:
                answered.set_result(self._fetched(request, version, waited=True))
            except Exception as error:  # noqa: BLE001  the connection's matter, as without a wait
                answered.set_exception(error)

        wait.done.add_done_callback(finish)
        answered.add_done_callback(lambda _: wait.done.cancel())
        return answered

    def end_waits(self) -> None:
        """Answer every fetch that waits, as when a topic is removed."""
        for wait in self._waits:
            wait.end()

    def list_offsets(self, request: Any, version: int) -> Response:  # noqa: ANN401
        """Offsets by time."""
        of = ListOffsetsResponse.ListOffsetsTopicResponse
        topics = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                error, offset, time_ms = NoError.errno, -1, -1
                try:
                    log = self._catalog.partition(topic.name, part.partition_index)
                    offset, time_ms = _offset_at(log, part.timestamp)
                except (KafkaError, OSError) as failure:
                    error = _code(failure)
                parts.append(
                    of.ListOffsetsPartitionResponse(
                        partition_index=part.partition_index,
                        error_code=error,
                        timestamp=time_ms,
                        offset=offset,
                        leader_epoch=0,
                    )
                )
            topics.append(of(name=topic.name, partitions=parts))
        return ListOffsetsResponse(version=version, topics=topics)

    def _fetched(self, request: Any, version: int, *, waited: bool) -> Response | None:  # noqa: ANN401
        """The answer; None without news, if there is still time to wait."""
        of = FetchResponse.FetchableTopicResponse
        left = min(request.max_bytes, MAX_FETCH_BYTES)
        news, everything = [], []
        for topic in request.topics:
            new_parts: list[Response] = []
            parts: list[Response] = []
            for part in topic.partitions:
                error, records, end, start = NoError.errno, b"", -1, -1
                try:
                    log = self._catalog.partition(topic.topic, part.partition)
                    end, start = log.end, log.start
                    if part.fetch_offset != end and left > 0:
                        records = log.read(part.fetch_offset, min(left, part.partition_max_bytes))
                        left -= len(records)
                except (KafkaError, OSError) as failure:
                    error = _code(failure)
                if not (records or error or waited):
                    continue
                of_part = of.PartitionData(
                    partition_index=part.partition,
                    error_code=error,
                    high_watermark=end,
                    last_stable_offset=end,
                    log_start_offset=start,
                    aborted_transactions=None,
                    records=records,
                )
                (new_parts if records or error else parts).append(of_part)
            if new_parts:
                news.append(of(topic=topic.topic, partitions=new_parts))
            everything.append(of(topic=topic.topic, partitions=parts))
        if news:
            return FetchResponse(version=version, responses=news)
        return FetchResponse(version=version, responses=everything) if waited else None


def _offset_at(log: StoredPartition, time_ms: int) -> tuple[int, int]:
    """Offset and time that ListOffsets asks for; -1 and -1 if there is no such message."""
    if time_ms == LATEST:
        return log.end, -1
    if time_ms == EARLIEST:
        return log.start, -1
    found = log.newest() if time_ms == NEWEST else log.first_since(time_ms)
    return found or (-1, -1)


def _code(failure: KafkaError | OSError) -> int:
    """Kafka's code for what failed in a partition; an error of the disk is one of storage."""
    code: int = failure.errno if isinstance(failure, KafkaError) else KafkaStorageError.errno
    return code
