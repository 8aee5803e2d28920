"""JSON records, one at a time: of a list, of a list inside a document, or one a line.

A document may have any size. `NaN`, as pandas writes a missing number, is read as a text and so is
a missing value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.records.text_streams import TextLine, is_decoded

MAX_RECORD_CHARS = 1024 * 1024
"""Longest record of a JSON list."""

NOT_TEXT = "not UTF-8 text"
NOT_JSON = "not JSON"
NOT_A_RECORD = "not a JSON object"

JsonRecord = dict[str, Any] | InvalidRecord

_decoder = json.JSONDecoder(parse_constant=str)
_GAP = re.compile(r"[\s,]*+")
_FIRST_LIST = re.compile(r'\s*\{\s*"(\w{1,64})"\s*:\s*\[')


def records_of_lines(
    lines: Iterator[tuple[int, TextLine]], keys: Sequence[str]
) -> Iterator[tuple[int, JsonRecord]]:
    """The record of each line; with keys, the records of the list at their path."""
    for number, line in lines:
        if isinstance(line, InvalidRecord):
            yield number, line
        elif not line or line.isspace():
            continue
        elif not is_decoded(line):
            yield number, InvalidRecord(NOT_TEXT)
        else:
            try:
                value = _decoder.decode(line)
            except (ValueError, RecursionError):
                yield number, InvalidRecord(NOT_JSON)
                continue
            yield from ((number, record) for record in _records(value, keys))


def records_of_document(
    texts: Iterator[str], head: str, keys: Sequence[str]
) -> Iterator[tuple[int, JsonRecord]]:
    """Records of a JSON list, or of the list at a path of keys, by number from 1.

    Raises
    ------
    UnreadableRecording
        There is no list, or it breaks off.
    """
    if head.lstrip().startswith("["):
        for number, value in enumerate(_elements(texts), 1):
            if isinstance(value, InvalidRecord):
                yield number, value
            else:
                yield from ((number, record) for record in _records(value, keys))
        return
    if not keys:
        raise UnreadableRecording(
            "no list of records: name the list inside it with --records, as in data.rows"
        )
    for number, value in enumerate(_elements(list_at_path(texts, keys)), 1):
        if isinstance(value, InvalidRecord):
            yield number, value
        else:
            yield from ((number, record) for record in _records(value, ()))


def _records(value: Any, keys: Sequence[str]) -> Iterator[JsonRecord]:  # noqa: ANN401  any JSON
    """A value as a record, or, with keys, the records of the list at their path in it."""
    inside = value
    for key in keys:
        inside = inside.get(key) if isinstance(inside, dict) else None
    if not keys:
        inside = [value]
    elif not isinstance(inside, list):
        reason = f"no list at {'.'.join(keys)}" if isinstance(value, dict) else NOT_A_RECORD
        inside = [InvalidRecord(reason)]
    for each in inside:
        is_record = isinstance(each, (dict, InvalidRecord))
        yield each if is_record else InvalidRecord(NOT_A_RECORD)


def first_list(head: str) -> str:
    """The key with which a JSON document begins, if its value is a list; "" otherwise.

    >>> first_list('{"products": [{"id": 1}]}'), first_list('{"at": 5, "products": []}')
    ('products', '')
    """
    found = _FIRST_LIST.match(head)
    return found[1] if found else ""


def _elements(texts: Iterable[str]) -> Iterator[Any]:
    """Elements of a JSON list; those with undecodable bytes are bad records."""
    parts = iter(texts)
    buffer, at, n = "", 0, 0
    is_open = False
    wrong: Exception | None = None
    while True:
        at = _GAP.match(buffer, at).end()  # type: ignore[union-attr]
        if not is_open and at < len(buffer):
            at, is_open = at + 1, True  # the bracket
            continue
        if at < len(buffer) and buffer[at] == "]":
            rest = buffer[at + 1 :] + "".join(parts)
            if rest.strip():
                raise UnreadableRecording(f"malformed JSON after record {n}: more than one value")
            return
        try:
            value, end = _decoder.raw_decode(buffer, at)
            # A number may continue in the next chunk.
            is_whole = end < len(buffer)
        except (ValueError, RecursionError) as error:
            wrong = error
            is_whole = False
        if is_whole:
            n += 1
            yield value if is_decoded(buffer[at:end]) else InvalidRecord(NOT_TEXT)
            at = end
            continue
        chunk = next(parts, None)
        if chunk is None or len(buffer) - at > MAX_RECORD_CHARS:
            why = wrong or "it ends too early"
            if chunk is not None:
                why = f"no end within {MAX_RECORD_CHARS} characters"
            raise UnreadableRecording(f"malformed JSON after record {n}: {why}")
        buffer, at = buffer[at:] + chunk, 0


MAX_TEXT_CHARS = 1024 * 1024
"""Longest string or number in a document."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},:]|[^\s"\[\]{},:]++(?=[\s"\[\]{},:])', re.DOTALL)
_SPACE = re.compile(r"\s*+")
_UP_TO_BRACKET = re.compile(r'(?:[^"\[\]{}]++|"(?:[^"\\]|\\.)*+")*+', re.DOTALL)


class _Text:
    """The unread rest of a document, extended as it is read."""

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks = iter(chunks)
        self.buffer = ""
        self.at = 0

    def more(self) -> None:
        """Read another chunk; drops the text before `at`."""
        if len(self.buffer) - self.at > MAX_TEXT_CHARS:
            raise UnreadableRecording(f"a text of more than {MAX_TEXT_CHARS} characters")
        chunk = next(self._chunks, None)
        if chunk is None:
            raise UnreadableRecording("the JSON document ends too early")
        self.buffer, self.at = self.buffer[self.at :] + chunk, 0


def list_at_path(chunks: Iterable[str], path: Sequence[str]) -> Iterator[str]:
    """JSON text of the list at a path of keys, in chunks, from a document in chunks.

    The content of the list is passed on unparsed; the document is not read beyond it.

    >>> "".join(list_at_path(['{"a": {"x": 1, "ro', 'ws": [{"b": "]"}, 2]}}'], ["a", "rows"]))
    '[{"b": "]"}, 2]'

    Raises
    ------
    UnreadableRecording
        There is no list, or the document breaks off.
    """
    document = _Text(chunks)
    _find(document, path)
    start, depth = document.at, 0
    while True:
        document.at = _end(_UP_TO_BRACKET, document)
        bracket = document.buffer[document.at : document.at + 1]
        if bracket in {"", '"'}:
            # A quote here opens a string that ends in a later chunk.
            yield document.buffer[start : document.at]
            document.more()
            start = 0
            continue
        document.at += 1
        depth += 1 if bracket in {"[", "{"} else -1
        if not depth:
            yield document.buffer[start : document.at]
            return


def _find(document: _Text, path: Sequence[str]) -> None:
    """Advance to the bracket that opens the list."""
    wanted = [json.dumps(key, ensure_ascii=False) for key in path]
    missing = UnreadableRecording(f"no list at {'.'.join(path)} in the JSON document")
    # Keys of the open objects and lists, and the key being read; None inside a list.
    outer: list[str | None] = []
    key: str | None = None
    last = ""
    while True:
        part = _next(document)
        if part not in {":", ","} and [*outer, key][1:] == wanted:
            if part != "[":
                raise missing
            document.at -= 1
            return
        if part in {"{", "["}:
            outer.append(key)
            key = None
        elif part in {"}", "]"}:
            key = outer.pop() if outer else None
        elif part == ":":
            key = last
        elif part == ",":
            key = None
        if not outer:
            raise missing
        last = part


def _next(document: _Text) -> str:
    while True:
        document.at = _end(_SPACE, document)
        found = _TOKEN.match(document.buffer, document.at)
        if found:
            document.at = found.end()
            return found.group()
        document.more()


def _end(pattern: re.Pattern[str], document: _Text) -> int:
    found = pattern.match(document.buffer, document.at)
    return found.end() if found else document.at
