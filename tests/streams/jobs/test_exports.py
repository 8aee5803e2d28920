"""The CSV of an export, read as any other program reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from streams.jobs.exports import _write

pytestmark = pytest.mark.unit

TEXTS = ("a\rb", "a\nb", "a\r\nb", 'a"b', "a,b", "\r", "")


class Context:
    """A job's context with one object, whose rows come in one chunk."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.written = io.BytesIO()
        self.objects = SimpleNamespace(writing=self._writing)
        self._chunks = iter([rows, []])

    @contextmanager
    def _writing(self, _: str) -> Iterator[io.BytesIO]:
        yield self.written

    def until_stopped(self, chunks: Iterable[Any]) -> Iterable[Any]:
        """All of them."""
        return chunks

    def run_on_loop(self, chunk: Any) -> Any:
        """The next chunk."""
        chunk.close()
        return next(self._chunks)

    def report_progress(self, *_: object) -> None:
        """Nobody looks."""


async def no_rows() -> AsyncIterator[Mapping[str, Any]]:
    """The context has them."""
    none: list[Mapping[str, Any]] = []
    for row in none:
        yield row


def test_a_text_cannot_begin_a_row() -> None:
    """Every line end in a text is quoted: also a lone carriage return, which ends a row as well."""
    rows = [{"ITEM_ID": f"i{n}", "TITLE": text} for n, text in enumerate(TEXTS)]
    context: Any = Context(rows)
    assert _write(context, "s3://results/items.csv", ["ITEM_ID", "TITLE"], no_rows()) == len(TEXTS)
    text = io.StringIO(context.written.getvalue().decode(), newline="")
    assert list(csv.DictReader(text)) == rows
