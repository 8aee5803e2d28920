"""Batches that no client can decode, put into a topic as a broken or a newer producer would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from kafka import KafkaProducer
from kafka.record import default_records

from models.settings import Settings

CODECS = ("gzip", "snappy", "lz4", "zstd")


@contextmanager
def _as_junk(codec: str) -> Iterator[None]:
    with mock.patch.object(default_records, f"{codec}_encode", return_value=b"\x00 junk \xff"):
        yield


@contextmanager
def _with_a_wrong_checksum() -> Iterator[None]:
    with mock.patch.object(default_records, "calc_crc32c", return_value=1):
        yield


KINDS = ("checksum", *CODECS)
"""What may be wrong: the checksum, or what was to be the output of a codec."""


def damaged(settings: Settings, topic: str, partition: int, *, kind: str, messages: int = 1) -> int:
    """Produce one batch of so many messages that nobody can read; gives its first offset.

    The embedded broker takes it; Apache Kafka looks into what it gets, and refuses it.
    """
    codec = kind if kind in CODECS else None
    with _as_junk(codec) if codec else _with_a_wrong_checksum():
        producer = KafkaProducer(
            bootstrap_servers=settings.kafka,
            compression_type=codec,
            linger_ms=200,
            enable_idempotence=False,
        )
        sent = [
            producer.send(topic, key=b"key", value=b"never read %d" % n, partition=partition)
            for n in range(messages)
        ]
        offsets: list[int] = [one.get(30).offset for one in sent]
        producer.close()
    assert offsets == list(range(offsets[0], offsets[0] + messages)), offsets
    return offsets[0]
