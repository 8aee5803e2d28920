"""JSON records: of a list, of a list inside a document, or one a line; of any size, one at a time.

What pandas writes for no number, `NaN`, is a text, and so nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.lists import list_at
from streams.reading.texts import TextLine, is_text

MAX_RECORD_CHARS = 1024 * 1024
"""A record of a JSON list may not be longer."""

NOT_TEXT = "not UTF-8 text"
NOT_JSON = "not JSON"
NOT_A_RECORD = "not a JSON object"

JsonRecord = dict[str, Any] | InvalidRecord

_decoder = json.JSONDecoder(parse_constant=str)
_GAP = re.compile(r"[\s,]*+")


def of_lines(
    lines: Iterator[tuple[int, TextLine]], keys: Sequence[str]
) -> Iterator[tuple[int, JsonRecord]]:
    """The record of each line, or, with keys, those of the list inside it."""
    for number, line in lines:
        if isinstance(line, InvalidRecord):
            yield number, line
        elif not line or line.isspace():
            continue
        elif not is_text(line):
            yield number, InvalidRecord(NOT_TEXT)
        else:
            try:
                value = _decoder.decode(line)
            except (ValueError, RecursionError):
                yield number, InvalidRecord(NOT_JSON)
                continue
            yield from ((number, record) for record in _records(value, keys))


def of_document(
    texts: Iterator[str], head: str, keys: Sequence[str]
) -> Iterator[tuple[int, JsonRecord]]:
    """The records of a list, or of the list that keys lead to, by number, the first being 1.

    Raises
    ------
    UnreadableRecording
        When there is no list, or it breaks off.
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
    for number, value in enumerate(_elements(list_at(texts, keys)), 1):
        if isinstance(value, InvalidRecord):
            yield number, value
        else:
            yield from ((number, record) for record in _records(value, ()))


def _records(value: Any, keys: Sequence[str]) -> Iterator[JsonRecord]:  # noqa: ANN401  any JSON
    """The records that a value is, or, with keys, has inside."""
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


def _elements(texts: Iterable[str]) -> Iterator[Any]:
    """The elements of a list in JSON, each as a value; those that are no text are bad."""
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
            # A number may go on in the next piece.
            is_whole = end < len(buffer)
        except (ValueError, RecursionError) as error:
            wrong = error
            is_whole = False
        if is_whole:
            n += 1
            yield value if is_text(buffer[at:end]) else InvalidRecord(NOT_TEXT)
            at = end
            continue
        piece = next(parts, None)
        if piece is None or len(buffer) - at > MAX_RECORD_CHARS:
            why = wrong or "it ends too early"
            if piece is not None:
                why = f"no end within {MAX_RECORD_CHARS} characters"
            raise UnreadableRecording(f"malformed JSON after record {n}: {why}")
        buffer, at = buffer[at:] + piece, 0
