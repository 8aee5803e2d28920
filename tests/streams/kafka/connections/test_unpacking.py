"""The unpacked size of a batch is checked before it is unpacked, for every codec."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import lz4.frame
import pytest
import zstandard
from kafka.codec import snappy_encode

from models.settings import Settings
from streams.kafka.connections.unpacking import UnpacksTooLarge, bound_unpacking, check
from tests.damage import CODECS, bomb

MOST_BYTES = 2**20


@pytest.fixture(autouse=True)
def _bound() -> Iterator[None]:
    """Set a bound for this module."""
    bound_unpacking(Settings(max_unpacked_bytes=MOST_BYTES))
    yield
    bound_unpacking(Settings())


@pytest.mark.parametrize(
    ("codec", "pack"),
    [
        ("gzip", gzip.compress),
        ("lz4", lz4.frame.compress),
        ("snappy", snappy_encode),
        ("zstd", zstandard.compress),
        ("gzip", lambda raw: gzip.compress(raw[:1000]) + gzip.compress(raw[1000:])),
    ],
)
def test_a_batch_is_accepted_up_to_the_bound(codec: str, pack: object) -> None:
    """One byte more is refused, also in several members."""
    raw = b"0123456789abcdef" * (MOST_BYTES // 16)
    check(codec, pack(raw))  # type: ignore[operator]
    with pytest.raises(UnpacksTooLarge, match="RECOMMENDER_MAX_UNPACKED_BYTES"):
        check(codec, pack(raw + b"."))  # type: ignore[operator]


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_small(codec: str) -> None:
    """The tests' bomb fits into a message when packed, and exceeds the bound when unpacked."""
    assert len(bomb(codec)) < 10**6
    with pytest.raises(UnpacksTooLarge):
        check(codec, bomb(codec))
