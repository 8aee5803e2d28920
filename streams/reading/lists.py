"""The list inside a JSON document, read piece by piece: such a document may be of any size."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from models.errors import UnreadableRecording

MAX_TEXT_CHARS = 1024 * 1024
"""A single text or number in a document may not be longer."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{},:]|[^\s"\[\]{},:]++(?=[\s"\[\]{},:])', re.DOTALL)
_SPACE = re.compile(r"\s*+")
_UP_TO_BRACKET = re.compile(r'(?:[^"\[\]{}]++|"(?:[^"\\]|\\.)*+")*+', re.DOTALL)


class _Text:
    """What is left of a document; grows at its end as it is read."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self.buffer = ""
        self.at = 0

    def more(self) -> None:
        """Read on; what is before `at` is forgotten."""
        if len(self.buffer) - self.at > MAX_TEXT_CHARS:
            raise UnreadableRecording(f"a text of more than {MAX_TEXT_CHARS} characters")
        piece = next(self._pieces, None)
        if piece is None:
            raise UnreadableRecording("the JSON document ends too early")
        self.buffer, self.at = self.buffer[self.at :] + piece, 0


def list_at(pieces: Iterable[str], path: Sequence[str]) -> Iterator[str]:
    """The list at a path of keys, as JSON text in pieces, out of a document in pieces.

    What lies inside the list is passed on unread; what comes after it is not looked at.

    >>> "".join(list_at(['{"a": {"x": 1, "ro', 'ws": [{"b": "]"}, 2]}}'], ["a", "rows"]))
    '[{"b": "]"}, 2]'

    Raises
    ------
    UnreadableRecording
        When no list is there, or the document breaks off.
    """
    document = _Text(pieces)
    _find(document, path)
    start, depth = document.at, 0
    while True:
        document.at = _end(_UP_TO_BRACKET, document)
        bracket = document.buffer[document.at : document.at + 1]
        if bracket in {"", '"'}:
            # Such a quote opens a text that ends in a later piece.
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
    """Go to the bracket that opens the list."""
    wanted = [json.dumps(key, ensure_ascii=False) for key in path]
    missing = UnreadableRecording(f"no list at {'.'.join(path)} in the JSON document")
    # Under which key each open object or list lies, and what is being read; None inside a list.
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
