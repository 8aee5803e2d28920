"""Items in files of any format: rows as records, with the types of their columns.

Rows of delimited text, Excel and XML have texts alone. A column of theirs holds numbers where every
value of the whole file is one, and truth values likewise; so the file is read once for its types,
and once for its records. JSON and Parquet say themselves what a value is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from models.errors import InvalidRecord
from models.metadata_records import EXPIRY, Properties, normalized, validate_properties
from streams.object_store import Objects
from streams.reading.column_mapping import ColumnMapping
from streams.reading.fields import (
    IDS,
    TIMES,
    ColumnSource,
    RowChecker,
    RowError,
    text_or_none,
)
from streams.reading.read_options import ReadOptions
from streams.reading.reader import read_rows, with_all_columns
from streams.reading.recognition import recognise

OF_TEXTS = frozenset({"csv", "tsv", "xlsx", "xml"})
"""Shapes whose values are texts, whatever they mean."""

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_TRUTHS = {"true": True, "false": False}

MAX_DIGITS = 15
"""Digits of a number that a floating-point number keeps."""


class ItemRow(NamedTuple):
    """Place of a row, with the id and properties of its item or the error of a bad row."""

    place: int
    record: tuple[str, Properties] | InvalidRecord


class ItemFile:
    """The items of a source.

    Parameters
    ----------
    latest_s
        Times of creation after this are in the future: bad rows.

    Raises
    ------
    UnreadableRecording, CannotPrepare
        Its format is unknown or ambiguous, or it has no column of ids.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """

    def __init__(
        self, objects: Objects, location: str, options: ReadOptions, *, latest_s: float
    ) -> None:
        found = recognise(objects, location, options, "items")
        self.source = with_all_columns(objects, found, has_condition=False, folder=None)
        self.mapping: ColumnMapping = self.source.map_columns()
        self.n_bytes = sum(file.size for file in self.source.files)
        self._objects = objects
        sources = self.source.field_sources(self.mapping)
        checked = {name: sources.pop(name) for name in (*IDS, *TIMES) if name in sources}
        self._check = RowChecker(checked, self.source.read_time, latest_s=latest_s)
        self._sources = sources
        self._types = ColumnTypes() if self.source.shape in OF_TEXTS else None

    @property
    def description(self) -> str:
        """The recognised format with its evidence, in one line for users."""
        return f"{self.source.location}: {'; '.join(self.source.notes)}"

    def learn_types(self, row: Properties) -> None:
        """Take what a row, as `rows` gives it, says of the types of columns."""
        if self._types is not None:
            self._types.observe(row)

    def typed(self, properties: Properties) -> Properties:
        """The properties with the values of columns that hold numbers or truth values as such."""
        return properties if self._types is None else self._types.typed(properties)

    def sample(self, n: int) -> list[tuple[str, Properties]]:
        """The first good items, n at most, with the types that the sample's values have."""
        found = []
        for values in self.source.sample:
            try:
                found.append(self._record(values))
            except InvalidRecord:
                continue
        for _, properties in found:
            self.learn_types(properties)
        return [(item_id, self.typed(properties)) for item_id, properties in found[:n]]

    def rows(self, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[ItemRow]:
        """All rows in order, their values as texts where the file has no types."""
        needed = self.source.needed_columns(self.mapping)
        for place, values in read_rows(
            self._objects, self.source, needed=needed, on_bytes=on_bytes
        ):
            try:
                if isinstance(values, InvalidRecord):
                    raise values
                yield ItemRow(place, self._record(values))
            except InvalidRecord as error:
                yield ItemRow(place, error)

    def _record(self, row: Any) -> tuple[str, Properties]:  # noqa: ANN401  a list or a mapping
        checked = self._check(row).values
        item_id = str(checked.pop("ITEM_ID"))
        values = {name: self._value(name, source, row) for name, source in self._sources.items()}
        found = {name: value for name, value in {**checked, **values}.items() if value is not None}
        return item_id, validate_properties("items", item_id, found)

    def _value(self, name: str, source: ColumnSource, row: Any) -> Any:  # noqa: ANN401
        value = source.get(row)
        if isinstance(value, bool):
            return value
        if isinstance(value, Decimal) and (number := _exact(value)) is not None:
            value = number
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if normalized(name) == EXPIRY and (text := text_or_none(value)) is not None:
            moment = self.source.read_time(text)
            if moment is None:
                raise RowError(name, "not a time", source.column, text)
            return moment.s
        if isinstance(value, (int, float)):
            # Excel writes whole numbers with a fraction.
            is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
            return int(value) if is_whole and self.source.shape in OF_TEXTS else value
        text = text_or_none(value)
        return None if text is None else text.strip()


class ColumnTypes:
    """Types of columns of texts: of numbers or truth values, where all texts are.

    Numbers with zeros before them, or of more digits than are exact, are texts: numbers of parts
    and codes.

    >>> types = ColumnTypes()
    >>> for row in ({"PRICE": "9.50", "CODE": "007"}, {"PRICE": "12", "CODE": "8"}):
    ...     types.observe(row)
    >>> types.typed({"PRICE": "12", "CODE": "8"})
    {'PRICE': 12, 'CODE': '8'}
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._numbers: set[str] = set()
        self._truths: set[str] = set()

    def observe(self, properties: Properties) -> None:
        """Take the values of a record."""
        for name, value in properties.items():
            if not isinstance(value, str):
                continue
            if name not in self._seen:
                self._seen.add(name)
                self._numbers.add(name)
                self._truths.add(name)
            if name in self._numbers and not _is_number(value):
                self._numbers.discard(name)
            if name in self._truths and value.lower() not in _TRUTHS:
                self._truths.discard(name)

    def typed(self, properties: Properties) -> Properties:
        """The properties with numbers and truth values."""
        return {name: self._typed(name, value) for name, value in properties.items()}

    def _typed(self, name: str, value: Any) -> Any:  # noqa: ANN401  a property
        if not isinstance(value, str):
            return value
        if name in self._numbers and _is_number(value):
            return int(value) if value.lstrip("-").isdigit() else float(value)
        return _TRUTHS.get(value.lower(), value) if name in self._truths else value


def _exact(value: Decimal) -> int | float | None:
    """A decimal number as JSON has numbers; None if it has more digits than are exact.

    >>> _exact(Decimal("9.50")), _exact(Decimal("7")), _exact(Decimal("0.123456789012345678"))
    (9.5, 7, None)
    """
    number = float(value)
    if not math.isfinite(number) or Decimal(repr(number)) != value:
        return None
    return int(value) if number.is_integer() else number


def _is_number(text: str) -> bool:
    if not _NUMBER.fullmatch(text):
        return False
    return sum(letter.isdigit() for letter in text) <= MAX_DIGITS and math.isfinite(float(text))
