"""Text of any origin made plain for the engine: unzipped, UTF-8, one kind of line end, marked.

Where there is no UTF-8, or what no text should have, a mark stands; lines keep their numbers.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from models.errors import UnreadableRecording

MAX_LINE_CHARS = 1024 * 1024
CHUNK_BYTES = 256 * 1024

MARK = "\0"
"""Stands in a line for what is not text; a line with it is bad."""

SEPARATOR = "\x1f"
"""Stands in no line, so that the engine can be told to split lines at it."""

_MARK_IN_JSON = "\\u0000"
_NOT_TEXT = re.compile(f"[\udc80-\udcff{SEPARATOR}]")
_GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"


class _Counted(io.RawIOBase):
    """A stream that tells how many bytes were read from it."""

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._on_bytes(len(chunk))
        return len(chunk)


def is_parquet(stream: BinaryIO) -> bool:
    """Whether the stream, which is read a little for it, begins as Parquet does."""
    return stream.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def pieces(stream: BinaryIO, on_bytes: Callable[[int], None]) -> Iterator[str]:
    """The text of a stream, plain or gzip-compressed, with line feeds only and without its BOM.

    Bytes that are not UTF-8 become lone surrogates.

    Raises
    ------
    UnreadableRecording
        When the compression is damaged.
    """
    raw = io.BufferedReader(_Counted(stream, on_bytes), CHUNK_BYTES)
    plain = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP_MAGIC else raw
    utf8 = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    try:
        while chunk := plain.read(CHUNK_BYTES):
            yield decoder.decode(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableRecording(f"damaged: {error}") from error
    yield decoder.decode(b"", final=True)


def write_lines(texts: Iterable[str], target: BinaryIO) -> None:
    """The same lines, what is not text marked, and no more than needed of one that is too long."""
    length = 0
    for text in texts:
        first, last = text.find("\n"), text.rfind("\n")
        if length > MAX_LINE_CHARS:
            target.write(_encoded(text[first:], MARK) if first >= 0 else b"")
        else:
            target.write(_encoded(text, MARK))
        length = len(text) - last - 1 if last >= 0 else length + len(text)


def write_json(texts: Iterable[str], target: BinaryIO) -> None:
    """The same JSON, what is not text marked inside its strings."""
    target.writelines(_encoded(text, _MARK_IN_JSON) for text in texts)


def _encoded(text: str, mark: str) -> bytes:
    if SEPARATOR not in text:
        with contextlib.suppress(UnicodeEncodeError):
            return text.encode()
    return _NOT_TEXT.sub(lambda _: mark, text).encode()
