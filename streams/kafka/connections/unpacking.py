"""Bound on the unpacked size of a compressed batch, for both clients and every codec.

A batch of a megabyte may hold many gigabytes of zeros, and the clients' codecs unpack all of it
before the first message is seen. So a batch that could be too large is first unpacked piece by
piece, without keeping the pieces. Neither client has a public hook: the decoding functions that
they call are replaced. See docs/decisions/0018-bounded-unpacking.md.
"""

from __future__ import annotations

import functools
import importlib
import zlib
from collections.abc import Callable, Iterator

import lz4.frame
import zstandard

from models.errors import RecommenderError
from models.settings import Settings

PIECE_BYTES = 1024 * 1024

MODULES = (
    "kafka.record.default_records",
    "kafka.record.legacy_records",
    "aiokafka.record._crecords.default_records",
    "aiokafka.record._crecords.legacy_records",
    "aiokafka.record.default_records",
    "aiokafka.record.legacy_records",
)
"""Modules in which the clients look up their codecs."""

XERIAL_MAGIC, XERIAL_HEAD_BYTES, LENGTH_BYTES = b"\x82SNAPPY\x00", 16, 4


class UnpacksTooLarge(RecommenderError):
    """A batch unpacks to more bytes than this process accepts."""


class _Limit:
    most_bytes = int(Settings.model_fields["max_unpacked_bytes"].default)


def bound_unpacking(settings: Settings) -> None:
    """Set this process's bound to the settings' `max_unpacked_bytes`."""
    _Limit.most_bytes = settings.max_unpacked_bytes


def _of_gzip(packed: bytes) -> Iterator[int]:
    while packed:
        one = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not one.eof:
            piece = one.decompress(packed, PIECE_BYTES)
            packed = one.unconsumed_tail
            yield len(piece)
            if not piece and not packed:
                return
        packed = one.unused_data.lstrip(b"\0")


def _of_lz4(packed: bytes) -> Iterator[int]:
    one = lz4.frame.LZ4FrameDecompressor()
    while not one.eof:
        piece = one.decompress(packed, PIECE_BYTES)
        packed = b""
        yield len(piece)
        if not piece and one.needs_input:
            return


def _of_zstd(packed: bytes) -> Iterator[int]:
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        while piece := reader.read(PIECE_BYTES):
            yield len(piece)


def _of_snappy(packed: bytes) -> Iterator[int]:
    """Sizes that the blocks declare: the codec allocates and fills no more."""
    if not packed.startswith(XERIAL_MAGIC):
        yield _varint(packed)
        return
    at = XERIAL_HEAD_BYTES
    while at + LENGTH_BYTES <= len(packed):
        size = int.from_bytes(packed[at : at + LENGTH_BYTES], "big")
        at += LENGTH_BYTES
        yield _varint(packed[at : at + size])
        at += size


def _varint(packed: bytes) -> int:
    found = 0
    for place, byte in enumerate(packed[:5]):
        found |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return found


SIZES: dict[str, tuple[Callable[[bytes], Iterator[int]], float]] = {
    "gzip": (_of_gzip, 1040),
    "lz4": (_of_lz4, 256),
    "snappy": (_of_snappy, float("inf")),
    "zstd": (_of_zstd, float("inf")),
}
"""By codec: the sizes of a batch's unpacked pieces, and its highest compression ratio."""


def check(codec: str, packed: bytes) -> None:
    """Raise `UnpacksTooLarge` if a batch unpacks to more than this process accepts."""
    sizes, max_ratio = SIZES[codec]
    if len(packed) * max_ratio <= _Limit.most_bytes:
        return
    total = 0
    for size in sizes(packed):
        total += size
        if total > _Limit.most_bytes:
            raise UnpacksTooLarge(
                f"a batch of {len(packed)} bytes unpacks to more than {_Limit.most_bytes}"
                " (RECOMMENDER_MAX_UNPACKED_BYTES)"
            )


def _bounded(codec: str, decode: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    @functools.wraps(decode)
    def checked(payload: bytes) -> bytes:
        check(codec, bytes(payload))
        return decode(payload)

    return checked


def _replace_decoders() -> None:
    for name in MODULES:
        module = importlib.import_module(name)
        for codec in SIZES:
            decode = getattr(module, f"{codec}_decode", None)
            if decode is not None and not hasattr(decode, "__wrapped__"):
                setattr(module, f"{codec}_decode", _bounded(codec, decode))


_replace_decoders()
