"""What a source is: recognised by the beginning of its first file, and by what the user says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import InvalidRecord, UnreadableRecording
from streams.object_store import Object, Objects
from streams.reading import known
from streams.reading.asked import ReadOptions
from streams.reading.column_mapping import (
    ColumnEvidence,
    ColumnMapping,
    DatasetKind,
    choose,
    is_known,
)
from streams.reading.fields import ColumnSource, RowError, getter
from streams.reading.files import OpenFile, check_columns, open_file
from streams.reading.formats import SHAPES, FileSample, Format, Shape, recognised
from streams.reading.guesses import looks_listed, roles, traits
from streams.reading.reshaping import as_mapping, keys_of, reshaped
from streams.reading.source_files import select
from streams.reading.times import ReadTime, reading_of

ROWS_A_FILE = 2**40
"""A place is the number of a file times this, plus the number of a line or record in it."""


@dataclass(frozen=True)
class Recognised:
    """A source, and what it was recognised as.

    Attributes
    ----------
    source
        As the user names it.
    columns
        Of a row, after lists in it became rows; of JSON, those of the first records.
    is_mapping
        Whether rows are mappings, or lists in the order of the columns.
    format
        The known format, if it is one.
    said
        What was recognised and why, for people.
    """

    source: str
    files: tuple[Object, ...]
    shape: Shape
    columns: tuple[str, ...]
    is_mapping: bool
    format: Format | None
    each: str
    sample: tuple[Any, ...]
    is_named: bool
    reading: ReadTime
    asked: ReadOptions
    kind: DatasetKind
    said: tuple[str, ...]

    @property
    def unit(self) -> Literal["line", "record"]:
        """What numbers count."""
        return "record" if self.shape in {"json", "parquet", "xlsx"} else "line"

    @property
    def name(self) -> str:
        """What it is, in a word."""
        return self.format.name if self.format else self.shape

    def where(self, place: int) -> str:
        """Where a row stands, for people; with its file, if there are several."""
        file, number = divmod(place, ROWS_A_FILE)
        where = f"{self.unit} {number}"
        return where if len(self.files) == 1 else f"{self._short(file)} {where}"

    def where_in_full(self, place: int) -> str:
        """Where a row stands, with the URL of its file."""
        file, number = divmod(place, ROWS_A_FILE)
        return f"{self.files[file].url} {self.unit} {number}"

    def _short(self, file: int) -> str:
        return self.files[file].url.rsplit("/", 1)[-1]

    def get(self, column: str) -> Callable[[Any], Any]:
        """What gives a column's value of a row."""
        return getter(column, None if self.is_mapping else self.columns)

    def choose(self) -> ColumnMapping:
        """Which columns become which fields: as told, as the format says, or guessed.

        Raises
        ------
        CannotPrepare
            When a field is missing, or two columns may be it.
        """
        told = self.asked.told
        usual = dict(self.format.fields) if self.format else {}
        constants = dict(self.format.constants) if self.format else {}
        if not self.is_named and self.format is None and not self._is_told(told.fields):
            usual = roles(self.columns, self.sample, self.kind, self.reading)
        name = self.format.name if self.format else ""
        evidence = ColumnEvidence(usual, constants, self._times, name, self.each)
        return choose(self.kind, self.columns, told, evidence)

    def _is_told(self, fields: Mapping[str, str]) -> bool:
        return bool(fields.keys() & {"USER_ID", "ITEM_ID"})

    def _times(self, column: str) -> bool:
        """Whether the values of a column that are known so far are times."""
        get = self.get(column)
        return traits([get(row) for row in self.sample], self.reading).is_time

    def needed(self, choice: ColumnMapping) -> list[str]:
        """The columns that a choice uses."""
        return [self.columns[n] for n in choice.fields.values() if isinstance(n, int)]

    def sources(self, choice: ColumnMapping) -> dict[str, ColumnSource]:
        """Where each field of a choice comes from."""
        found = {}
        for name, said in choice.fields.items():
            if isinstance(said, str):
                found[name] = ColumnSource(lambda _, said=said: said)  # type: ignore[misc]
                continue
            column = self.columns[said]
            get = self.get(column)
            if name == "EVENT_TYPE" and self.format and self.format.types:
                get = _translated(get, self.format.types, column)
            found[name] = ColumnSource(get, column)
        return found


def recognise(
    objects: Objects,
    source: str,
    asked: ReadOptions,
    kind: DatasetKind = "interactions",
    *,
    folder: Path | None = None,
) -> Recognised:
    """What a source is, by the beginning of its first file.

    Raises
    ------
    UnreadableRecording
        When it is nothing that is known, or two readings fit.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """
    known.check_name(asked.format)
    reading = reading_of(asked.time_format)
    selection = select(objects, source)
    url = selection.files[0].url
    with open_file(objects, url, asked, reading, folder, lambda _: None) as file:
        named = file.columns if file.is_named else ()
        sample = FileSample(file.name, file.shape, file.separator, named, file.sample)
        told = "" if asked.format in SHAPES else asked.format
        found = recognised(known.FORMATS, sample, told, kind)
        format_, why = found or (None, "")
        columns = file.columns
        is_named = file.is_named
        if format_ and not file.is_named and format_.columns:
            if len(format_.columns) != len(columns):
                raise UnreadableRecording(
                    f"{url}: {len(columns)} columns, and {format_.name} has {len(format_.columns)}"
                )
            columns, is_named = format_.columns, True
        each = asked.each or (format_.each if format_ else _list_inside(file, asked))
        is_mapping = file.shape not in {"csv", "tsv"} or bool(each or (format_ and format_.rows))
        rows = tuple(
            row.values
            for row in reshaped(
                ((n, as_mapping(one, columns) if is_mapping else one)
                 for n, one in enumerate(file.sample)),
                format_,
                each,
            )
            if not isinstance(row.values, InvalidRecord)
        )  # fmt: skip
        if is_mapping:
            columns = keys_of(rows, each, format_, asked)
        check_columns(columns)
    what = f"{format_.name} ({format_.title}), {why}" if format_ else file.shape
    said = (what, *file.said, *((f"one row for each of {each}",) if each else ()), *selection.said)
    return Recognised(source, selection.files, file.shape, tuple(columns), is_mapping, format_,
                      each, rows, is_named, reading, asked, kind, said)  # fmt: skip


def _list_inside(file: OpenFile, asked: ReadOptions) -> str:
    """The column of objects with an id of an item, where the record itself has none."""
    if "ITEM_ID" in asked.told.fields or not file.sample or not isinstance(file.sample[0], dict):
        return ""
    columns = file.columns
    if any(is_known(column, "ITEM_ID") for column in columns):
        return ""
    found = {
        key
        for record in file.sample
        for key, value in record.items()
        if looks_listed(value) and any(is_known(inner, "ITEM_ID") for inner in value[0])
    }
    if len(found) > 1:
        raise UnreadableRecording(
            f"items may be those of {' or '.join(sorted(found))}: name the list with --each"
        )
    return found.pop() if found else ""


def _translated(
    get: Callable[[Any], Any], types: Mapping[str, str], column: str
) -> Callable[[Any], Any]:
    def translated(row: Any) -> str | None:  # noqa: ANN401
        written = get(row)
        if written is None or not str(written).strip():
            return None
        if str(written) not in types:
            raise RowError("EVENT_TYPE", "not a type of event", column, written)
        return types[str(written)]

    return translated
