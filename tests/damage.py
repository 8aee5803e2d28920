"""Batches that no client can decode, put into a topic as a broken or a newer producer would."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import lz4.frame
import zstandard
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


@functools.cache
def bomb(codec: str) -> bytes:
    """Output of a codec, less than a megabyte, that unpacks to far more than anybody takes."""
    if codec == "snappy":
        return b"\xff\xff\xff\xff\x0f" + b"junk"  # by its own word 4 GiB
    pack: Any
    n_pieces = 96
    if codec == "gzip":
        pack = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    elif codec == "zstd":
        pack, n_pieces = zstandard.ZstdCompressor().compressobj(), 2000
    else:
        pack = lz4.frame.LZ4FrameCompressor()
    begin = pack.begin() if codec == "lz4" else b""
    parts = [begin, *(pack.compress(bytes(2**20)) for _ in range(n_pieces)), pack.flush()]
    return b"".join(parts)


@contextmanager
def _as_bomb(codec: str) -> Iterator[None]:
    with mock.patch.object(default_records, f"{codec}_encode", return_value=bomb(codec)):
        yield


BOMBS = tuple(f"{codec}-bomb" for codec in CODECS)

KINDS = ("checksum", *CODECS, *BOMBS)
"""What may be wrong: the checksum, the output of a codec, or how much that unpacks to."""


def damaged(settings: Settings, topic: str, partition: int, *, kind: str, messages: int = 1) -> int:
    """Produce one batch of so many messages that nobody can read; gives its first offset.

    The embedded broker takes it; Apache Kafka looks into what it gets, and refuses it.
    """
    codec = kind.removesuffix("-bomb") if kind != "checksum" else None
    spoilt = _as_bomb if kind in BOMBS else _as_junk
    # What a codec makes no smaller is sent as it is.
    rest = b"." * (900_000 // messages) if kind in BOMBS else b""
    with spoilt(codec) if codec else _with_a_wrong_checksum():
        producer = KafkaProducer(
            bootstrap_servers=settings.kafka,
            compression_type=codec,
            linger_ms=200,
            batch_size=10**6,
            enable_idempotence=False,
        )
        sent = [
            producer.send(topic, key=b"key", value=b"never read %d" % n + rest, partition=partition)
            for n in range(messages)
        ]
        offsets: list[int] = [one.get(30).offset for one in sent]
        producer.close()
    assert offsets == list(range(offsets[0], offsets[0] + messages)), offsets
    return offsets[0]
