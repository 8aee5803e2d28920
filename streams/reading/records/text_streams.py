"""Text of any encoding, decoded in chunks or lines; undecodable bytes are marked."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.records.containers import CHUNK_BYTES, DAMAGE_ERRORS

MAX_LINE_CHARS = 1024 * 1024
HEAD_BYTES = 1024 * 1024
"""Size of a file's beginning by which its encoding and format are recognised."""

UNDECODABLE = "\udcff"
"""Mark of undecodable bytes: a lone surrogate, like those of surrogateescape."""

TOO_LONG = f"line of more than {MAX_LINE_CHARS} characters"

_MARKED = re.compile("[\0\ud800-\udfff]")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_NON_ASCII = re.compile(rb"[\x80-\xff]+")
# A letter of cp1252 beside a letter of ASCII: part of a word, not of binary data.
_WORD = re.compile(rb"[A-Za-z][\xc0-\xd6\xd8-\xf6\xf8-\xff]|[\xc0-\xd6\xd8-\xf6\xf8-\xff][A-Za-z]")

_NO_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")

codecs.register_error("mark", lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]

TextLine = str | InvalidRecord


class Encoding(NamedTuple):
    """An encoding with its evidence; "" for plain UTF-8."""

    name: str
    why: str = ""


def encoding_of(head: bytes, name: str) -> Encoding:
    """The encoding of a file: the named one, or by its first bytes.

    >>> encoding_of("für".encode("cp1252"), "").name, encoding_of("für".encode(), "").name
    ('cp1252', 'utf-8')

    Raises
    ------
    UnreadableRecording
        There is no encoding of that name.
    """
    if name:
        try:
            # A byte order mark is skipped in any case.
            return Encoding(codecs.lookup(name).name, f"{name}, by --encoding")
        except LookupError as error:
            raise UnreadableRecording(f"no encoding {name!r}: name one such as cp1252") from error
    for bom, bom_encoding in _BOMS:
        if head.startswith(bom):
            why = "" if bom_encoding == "utf-8" else f"{bom_encoding}, by its byte order mark"
            return Encoding(bom_encoding, why)
    # In UTF-16, every other byte of most alphabets is zero.
    evens, odds = head[0:4096:2].count(0), head[1:4096:2].count(0)
    half = max(1, len(head[:4096]) // 2)
    if len(head) >= 4 and max(evens, odds) > 0.4 * half and min(evens, odds) < 0.05 * half:
        name = "utf-16-le" if odds > evens else "utf-16-be"
        return Encoding(name, f"{name}, by its zero bytes")
    # JSON is UTF-8 otherwise.
    return Encoding("utf-8") if head.lstrip()[:1] in {b"[", b"{"} else _eight_bits(head)


def _eight_bits(head: bytes) -> Encoding:
    """UTF-8, or cp1252 if all other bytes than ASCII are letters in words of cp1252."""
    n_words = 0
    for found in _NON_ASCII.finditer(head):
        if found.end() == len(head):
            break
        try:
            found.group().decode()
        except UnicodeDecodeError:
            is_word = _WORD.search(head, max(0, found.start() - 1), found.end() + 1)
            if not is_word or _NO_CP1252.search(found.group()):
                return Encoding("utf-8")
            n_words += 1
        else:
            return Encoding("utf-8")
    if not n_words:
        return Encoding("utf-8")
    return Encoding("cp1252", "cp1252, because it is no UTF-8: name another with --encoding")


def decode_chunks(stream: BinaryIO, encoding: Encoding) -> Iterator[str]:
    """Decoded text of a stream in chunks, without its byte order mark.

    Raises
    ------
    UnreadableRecording
        The compressed file is damaged; the text before was given.
    """
    errors = "surrogateescape" if encoding.name == "utf-8" else "mark"
    decoder = codecs.getincrementaldecoder(encoding.name)(errors)
    is_first = True
    n_bytes = 0
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except DAMAGE_ERRORS as error:
            raise UnreadableRecording(
                f"damaged after {n_bytes} bytes of its content: {error}"
            ) from error
        n_bytes += len(chunk)
        text = decoder.decode(chunk, final=not chunk)
        if is_first and text:
            text, is_first = text.removeprefix(_BOM), False
        if text:
            yield text
        if not chunk:
            return


def lines(texts: Iterator[str], end: str) -> Iterator[tuple[int, TextLine]]:
    """Lines of a text by number from 1; a line that is too long is an error.

    Memory is bounded by the longest allowed line.
    """
    held: list[str] = []
    number, n_held = 1, 0
    for text in texts:
        *whole, last = text.split(end)
        for part in whole:
            if held:
                held.append(part)
                n_held += len(part)
                yield number, _line("".join(held), n_held)
            else:
                yield number, _line(part, len(part))
            held, n_held = [], 0
            number += 1
        n_held += len(last)
        if n_held <= MAX_LINE_CHARS + 1:
            held.append(last)
        else:
            held = [""]
    if n_held:
        yield number, _line("".join(held), n_held)


def _line(text: str, n: int) -> TextLine:
    if n > MAX_LINE_CHARS + 1:
        return InvalidRecord(TOO_LONG)
    text = text.removesuffix("\r")
    return text if len(text) <= MAX_LINE_CHARS else InvalidRecord(TOO_LONG)


def line_end(head: str) -> str:
    r"""Line end of a text: a line feed; in a text without any, a carriage return.

    >>> line_end("a\r\nb"), line_end("a\rb\r")
    ('\n', '\r')
    """
    return "\r" if "\r" in head and "\n" not in head else "\n"


def is_decoded(line: str) -> bool:
    """True if a line has no undecodable bytes and no NUL."""
    return (line.isascii() and "\0" not in line) or not _MARKED.search(line)
