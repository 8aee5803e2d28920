"""The audit log: a topic of one partition, written before what it tells of is done."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from models.audit_entries import AuditEntry, encode_entry
from models.settings import Settings
from streams.kafka.connections.connection import start_producer, stop_producer, unavailable
from streams.kafka.consuming.offsets import end_offsets, messages
from streams.kafka.topics import Topics

LOG = logging.getLogger(__name__)


class AuditLog:
    """Writes entries; connects at the first one, for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics.of(settings).audit
        self._producer: KafkaProducer | None = None
        self._lock = threading.Lock()

    def write(self, entry: AuditEntry) -> None:
        """Write an entry; returns once Kafka has acknowledged it, and blocks until then.

        Raises
        ------
        Unavailable
            Kafka did not acknowledge it in time.
        """
        timeout_s = self._settings.publish_timeout_s
        with self._lock:
            if self._producer is None:
                self._producer = start_producer(
                    self._settings, [self._topic], linger_ms=0, timeout_s=timeout_s
                )
        try:
            self._producer.send(self._topic, value=encode_entry(entry)).get(timeout=timeout_s)
        except KafkaError as error:
            self.close()
            raise unavailable(self._settings, error) from error

    def close(self) -> None:
        """Disconnect; the next entry connects again."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            stop_producer(producer)


def audit_entries(settings: Settings, *, since_s: float = 0.0) -> Iterator[AuditEntry]:
    """Entries from a Unix time on, oldest first; raises `Unavailable`; blocking.

    Something else on the topic is left out with a warning.
    """
    for entry in _entries(settings, 0):
        if entry.at >= since_s:
            yield entry


def newest_entries(settings: Settings, n: int) -> list[AuditEntry]:
    """The newest entries, n at most, oldest first; raises `Unavailable`; blocking."""
    topic = Topics.of(settings).audit
    end = end_offsets(settings, [topic]).get((topic, 0), 0)
    return list(_entries(settings, max(0, end - n)))[-n:] if end else []


def _entries(settings: Settings, start: int) -> Iterator[AuditEntry]:
    """Entries from an offset on; where Kafka has removed that, from the first that it has."""
    for record in messages(settings, {(Topics.of(settings).audit, 0): start}):
        try:
            entry = msgspec.json.decode(record.value or b"", type=AuditEntry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            LOG.warning("offset %d of the audit log is no entry: %s", record.offset, error)
            continue
        yield entry


@contextlib.contextmanager
def opened_audit_log(settings: Settings) -> Iterator[AuditLog]:
    """An audit log that is closed at the end of the block."""
    log = AuditLog(settings)
    try:
        yield log
    finally:
        log.close()
