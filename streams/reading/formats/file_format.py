"""The extension point for file formats: `Format` is its contract, `registry` the registration.

A format says what the columns of a file mean. Opening files, compression, encodings, separators,
quotes, times, empty values and checks of rows are the same for all formats and no part of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from models.errors import UnreadableRecording
from streams.reading.column_mapping import DatasetKind
from streams.reading.fields import value_getter

Shape = Literal["csv", "json", "jsonl", "parquet", "tsv", "xlsx", "xml"]
"""Container of records: `csv` is text with any separator, `json` a list of records."""

SHAPES: tuple[Shape, ...] = ("csv", "json", "jsonl", "parquet", "tsv", "xlsx", "xml")

MakeRows = Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]

PARTS = "parts"
"""Key of a record of several rows that holds all of them: see `Format.part_of`."""


class FileSample(NamedTuple):
    """The beginning of a file, from which formats are recognised.

    Attributes
    ----------
    name
        File name in lower case, without the suffix of its compression.
    columns
        Column names of the file; of JSON, the keys of its first records; empty without names.
    rows
        The first good records: lists of fields (csv, tsv), or mappings.
    """

    name: str
    shape: Shape
    separator: str
    columns: Sequence[str]
    rows: Sequence[Any]

    def has_paths(self, *paths: str) -> bool:
        """True if the first record is a mapping with a value at each of these paths."""
        return bool(
            self.rows
            and isinstance(self.rows[0], Mapping)
            and all(value_getter(path, None)(self.rows[0]) is not None for path in paths)
        )


@dataclass(frozen=True)
class Format:
    """A file format: how it is recognised, and the columns of each field.

    Most formats need names alone. To add one, pass it to `registry.register`; that is all:
    `replay`, `evaluate`, `prepare`, imports and deletions then recognise and read such files.

    Attributes
    ----------
    name
        Value of `--format`; unique among the registered formats and `SHAPES`.
    title
        Origin of such files, as in "MovieLens ratings.csv"; shown to users.
    columns
        The header, in this order. A file of another shape than csv and tsv, or of a format with
        `is_any_order`, may have them in any order and others beside them. For files without a
        header (`has_header=False`), the names that its columns get.
    fields
        Column of each field of the dataset (`USER_ID`, `ITEM_ID`, `TIMESTAMP`, `EVENT_TYPE`, …).
        In records of JSON a path of keys: `context.user.id`.
    constants
        Fields with the same text in every row, such as the type of event.
    event_types
        Event types as written in the file, with the names that they get. Rows with other types
        are bad rows. Without any, types keep their names.
    list_column
        Column with a list. Each element becomes a row with the other columns of its record: an
        order of three items is three rows with the user and time of the order. Keys of an element
        are `<list_column>.<key>`. A record with an empty or missing list is one row without them.
    make_rows
        For records that names cannot describe: a generator of rows for one record, both mappings
        by column. Called once a record, before `list_column` is expanded; may be given any record,
        and keeps no state between calls. Added columns need names that no file of the format has;
        name them in `fields`. Raises `InvalidRecord`, whose text is the reason of the bad row, for
        a record without events.
    part_of
        For records of several rows: the key of a row. `make_rows` is called with the first of
        neighbouring rows with one key, which has all of them, up to `reshaping.MAX_PARTS`, in its
        member `PARTS`. A row with the key None stands alone.
    list_in_document
        Name of the list of records in a JSON document that begins with it; without `--records`.
    recognise
        For formats that their columns do not identify: evidence that a sample is of the format, in
        words ("sessions with their events"), or "" if it is not. Called once a source, with samples
        of any format and shape, possibly empty. It replaces the recognition by `columns`. If two
        formats recognise a sample, the user is asked to choose with `--format`.
    file_names
        Suffixes of the file names by which a format without a header is recognised.
    separator
        Field separator of files without a header; "" to detect it.
    has_header
        False if such files have no line of column names.
    is_any_order
        True if a csv file may have its columns in any order, and others beside them.
    has_users
        False if `USER_ID` is an anonymous session.
    dataset
        The kind of dataset that the files hold; asked for another kind, they are refused.
    replay_fields
        Columns of further fields of a replayed event: `SESSION_ID`, `EVENT_ID`, `PROPERTIES`, and
        `ANONYMOUS`, true for a row whose `USER_ID` is a session.
    optional_fields
        Otherwise required fields that a replayed event may lack.

    Notes
    -----
    Values may have any type of JSON or Parquet; the reader converts them to text.

    Examples
    --------
    >>> Format("shop", "the shop's log", columns=("who", "what", "at"),
    ...        fields={"USER_ID": "who", "ITEM_ID": "what", "TIMESTAMP": "at"},
    ...        constants={"EVENT_TYPE": "click"}).evidence(
    ...     FileSample("log.csv", "csv", ",", ("who", "what", "at"), ()))
    'by its columns'
    """

    name: str
    title: str
    columns: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    event_types: Mapping[str, str] = field(default_factory=dict)
    list_column: str = ""
    make_rows: MakeRows | None = None
    part_of: Callable[[Mapping[str, Any]], object] | None = None
    list_in_document: str = ""
    recognise: Callable[[FileSample], str] | None = None
    file_names: tuple[str, ...] = ()
    separator: str = ""
    has_header: bool = True
    is_any_order: bool = False
    has_users: bool = True
    dataset: DatasetKind = "interactions"
    replay_fields: Mapping[str, str] = field(default_factory=dict)
    optional_fields: frozenset[str] = frozenset()

    def evidence(self, sample: FileSample) -> str:
        """Evidence that a file is of this format, in words; "" if it is not."""
        if self.recognise is not None:
            return self.recognise(sample)
        if not self.has_header:
            width = len(sample.rows[0]) if sample.rows else 0
            is_match = sample.name.endswith(self.file_names) and width == len(self.columns)
            return "by the file's name" if is_match and not sample.columns else ""
        if self.is_any_order or sample.shape not in {"csv", "tsv"}:
            is_match = bool(self.columns) and set(self.columns) <= set(sample.columns)
        else:
            is_match = bool(self.columns) and tuple(sample.columns) == self.columns
        return "by its columns" if is_match else ""


def match_format(
    formats: Iterable[Format], sample: FileSample, name: str, kind: DatasetKind
) -> tuple[Format, str] | None:
    """The format of a file with its evidence; None if no format matches.

    Parameters
    ----------
    name
        The format that the user names; "" to recognise it.

    Raises
    ------
    UnreadableRecording
        Two formats match, or one of another kind of dataset.
    """
    if name:
        matching = [(each, "by --format") for each in formats if each.name == name]
    else:
        matching = [(each, why) for each in formats if (why := each.evidence(sample))]
    found = [(each, why) for each, why in matching if each.dataset == kind]
    if len(found) > 1:
        named = " or ".join(f"{each.name} ({each.title})" for each, _ in found)
        raise UnreadableRecording(f"may be {named}: name it with --format")
    if matching and not found:
        other, _ = matching[0]
        raise UnreadableRecording(f"{other.name} ({other.title}): {other.dataset}, and not {kind}")
    return found[0] if found else None
