"""Recognition of a source by the beginning of its first file and the user's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import InvalidRecord, UnreadableRecording
from streams.object_store import Object, Objects
from streams.reading.column_mapping import (
    ColumnEvidence,
    ColumnMapping,
    DatasetKind,
    is_known_name,
    map_columns,
)
from streams.reading.fields import ColumnSource, RowError, value_getter
from streams.reading.files import OpenFile, check_columns, open_file
from streams.reading.formats import registry
from streams.reading.formats.file_format import SHAPES, FileSample, Format, Shape, match_format
from streams.reading.guesses import column_traits, guess_columns_by_values, is_list_of_objects
from streams.reading.read_options import ReadOptions
from streams.reading.reshaping import as_mapping, columns_of_mappings, reshape
from streams.reading.source_files import select
from streams.reading.times import ReadTime, time_reader

ROWS_PER_FILE = 2**40
"""A place is the number of a file times this, plus the number of a line or record in it."""


@dataclass(frozen=True)
class RecognisedSource:
    """A source with its recognised format.

    Attributes
    ----------
    location
        The user's name of the source.
    columns
        Columns of a row, after the expansion of lists; of JSON, those of the first records.
    is_mapping
        True if rows are mappings, False if they are lists in the order of the columns.
    format
        The known format; None without one.
    notes
        The format and its evidence, encoding, separator and the like, for users.
    """

    location: str
    files: tuple[Object, ...]
    shape: Shape
    columns: tuple[str, ...]
    is_mapping: bool
    format: Format | None
    list_column: str
    sample: tuple[Any, ...]
    is_named: bool
    read_time: ReadTime
    options: ReadOptions
    kind: DatasetKind
    notes: tuple[str, ...]
    is_whole: bool = False
    """True if the sample has every good row of the source."""

    @property
    def unit(self) -> Literal["line", "record"]:
        """Unit of the numbers in places."""
        return "record" if self.shape in {"json", "parquet", "xlsx", "xml"} else "line"

    @property
    def name(self) -> str:
        """Name of the format or shape."""
        return self.format.name if self.format else self.shape

    def row_label(self, place: int) -> str:
        """Label of a row for users: its line or record, with the file if there are several."""
        file, number = divmod(place, ROWS_PER_FILE)
        where = f"{self.unit} {number}"
        return where if len(self.files) == 1 else f"{self._short(file)} {where}"

    def row_location(self, place: int) -> str:
        """URL of a row's file with its line or record."""
        file, number = divmod(place, ROWS_PER_FILE)
        return f"{self.files[file].url} {self.unit} {number}"

    def _short(self, file: int) -> str:
        return self.files[file].url.rsplit("/", 1)[-1]

    def value_getter(self, column: str) -> Callable[[Any], Any]:
        """Reader of a column of the source's rows."""
        return value_getter(column, None if self.is_mapping else self.columns)

    def map_columns(self) -> ColumnMapping:
        """Map columns to fields: by the options, the format, or their names.

        Raises
        ------
        CannotPrepare
            A field is missing, or two columns fit it.
        """
        column_options = self.options.column_options
        usual = dict(self.format.fields) if self.format else {}
        constants = dict(self.format.constants) if self.format else {}
        if not self.is_named and self.format is None and not self._is_mapped(column_options.fields):
            usual = guess_columns_by_values(self.columns, self.sample, self.kind, self.read_time)
        name = self.format.name if self.format else ""
        evidence = ColumnEvidence(usual, constants, self._times, name, self.list_column)
        return map_columns(self.kind, self.columns, column_options, evidence)

    def _is_mapped(self, fields: Mapping[str, str]) -> bool:
        return bool(fields.keys() & {"USER_ID", "ITEM_ID"})

    def _times(self, column: str) -> bool:
        """True if the sample's values of a column are times."""
        get = self.value_getter(column)
        return column_traits([get(row) for row in self.sample], self.read_time).is_time

    def needed_columns(self, mapping: ColumnMapping) -> list[str]:
        """Columns that a mapping uses."""
        return [self.columns[n] for n in mapping.fields.values() if isinstance(n, int)]

    def field_sources(self, mapping: ColumnMapping) -> dict[str, ColumnSource]:
        """Source of each field of a mapping."""
        found = {}
        for name, notes in mapping.fields.items():
            if isinstance(notes, str):
                found[name] = ColumnSource(lambda _, notes=notes: notes)  # type: ignore[misc]
                continue
            column = self.columns[notes]
            get = self.value_getter(column)
            if name == "EVENT_TYPE" and self.format and self.format.event_types:
                get = _translated(get, self.format.event_types, column)
            found[name] = ColumnSource(get, column)
        return found


def recognise(
    objects: Objects,
    source: str,
    options: ReadOptions,
    kind: DatasetKind = "interactions",
    *,
    folder: Path | None = None,
) -> RecognisedSource:
    """Recognise a source by the beginning of its first file.

    Raises
    ------
    UnreadableRecording
        Its format is unknown or ambiguous.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """
    registry.check_format_name(options.format)
    read_time = time_reader(options.time_format)
    selection = select(objects, source)
    url = selection.files[0].url
    with open_file(objects, url, options, read_time, folder, lambda _: None) as file:
        named = file.columns if file.is_named else ()
        sample = FileSample(file.name, file.shape, file.separator, named, file.sample)
        named_format = "" if options.format in SHAPES else options.format
        found = match_format(registry.FORMATS.values(), sample, named_format, kind)
        format_, why = found or (None, "")
        columns = file.columns
        is_named = file.is_named
        if format_ and not file.is_named and format_.columns:
            if len(format_.columns) != len(columns):
                raise UnreadableRecording(
                    f"{url}: {len(columns)} columns, and {format_.name} has {len(format_.columns)}"
                )
            columns, is_named = format_.columns, True
        each = options.list_column or (
            format_.list_column if format_ else _list_inside(file, options)
        )
        makes_mappings = bool(each or (format_ and format_.make_rows))
        is_mapping = makes_mappings or file.shape not in {"csv", "tsv"}
        rows = tuple(
            row.values
            for row in reshape(
                ((n, as_mapping(one, columns) if is_mapping else one)
                 for n, one in enumerate(file.sample)),
                format_,
                each,
            )
            if not isinstance(row.values, InvalidRecord)
        )  # fmt: skip
        if is_mapping:
            columns = columns_of_mappings(rows, each, format_, options)
        check_columns(columns)
    what = f"{format_.name} ({format_.title}), {why}" if format_ else file.shape
    notes = (
        what,
        *file.notes,
        *((f"one row for each of {each}",) if each else ()),
        *selection.notes,
    )
    return RecognisedSource(
        location=source,
        files=selection.files,
        shape=file.shape,
        columns=tuple(columns),
        is_mapping=is_mapping,
        format=format_,
        list_column=each,
        sample=rows,
        is_named=is_named,
        read_time=read_time,
        options=options,
        kind=kind,
        notes=notes,
        is_whole=file.is_whole and len(selection.files) == 1,
    )


def _list_inside(file: OpenFile, options: ReadOptions) -> str:
    """The column with a list of objects that have an item id, if records have none themselves."""
    if (
        "ITEM_ID" in options.column_options.fields
        or not file.sample
        or not isinstance(file.sample[0], dict)
    ):
        return ""
    columns = file.columns
    if any(is_known_name(column, "ITEM_ID") for column in columns):
        return ""
    found = {
        key
        for record in file.sample
        for key, value in record.items()
        if is_list_of_objects(value) and any(is_known_name(inner, "ITEM_ID") for inner in value[0])
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
