"""The registry of formats: files that are known, how they are told, and what their columns mean.

To add a format, write a `Format` and put it into `FORMATS`; that is all. A format only says what
columns mean: opening files, compression, encodings, separators, quotes, times, empty values and
checks are the reader's, the same for all. Most formats are names alone:

    Format("retailrocket", "RetailRocket events.csv",
           columns=("timestamp", "visitorid", "event", "itemid", "transactionid"),
           fields={"USER_ID": "visitorid", "ITEM_ID": "itemid", "TIMESTAMP": "timestamp",
                   "EVENT_TYPE": "event"})

- `columns`: the header that tells the format, in this order (`is_any_order`: those and others in
  any order; of JSON, Parquet and Excel always so). Files that have no header (`has_header=False`)
  are told by `file_names`, and `columns` names their columns.
- `fields`: the column of each field. Of JSON, a path of keys: `context.user.id`.
- `constants`: fields with the same text in every row, such as the type of event.
- `types`: event types as the file writes them, and as they are to be called; others are bad rows.
- `each`: the column that holds a list, of which each element is a row of its own: an order of three
  items is three rows with the order's user and time. Keys of an element are `<each>.<key>`. A
  record whose list is empty or missing is one row without them.
- `rows`: for what cannot be said so: what makes rows (mappings) of a record (a mapping by column).
  Runs before `each`. Give columns that it adds new names, and name them in `fields`. Raise
  `InvalidRecord` for a record that is none.
- `fits`: for what cannot be told by columns: evidence in a `FileSample`, in words; empty if
  it is another format. Formats are shown with it ("otto: a session with its events"). Where two
  formats fit, the user is asked.

Values may be of any type that JSON or Parquet have; the reader makes them text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from models.errors import UnreadableRecording
from streams.reading.column_mapping import DatasetKind
from streams.reading.fields import value_getter

Shape = Literal["csv", "json", "jsonl", "parquet", "tsv", "xlsx"]
"""How records stand in a file; `csv` is text with any separator, `json` a list of records."""

SHAPES: tuple[Shape, ...] = ("csv", "json", "jsonl", "parquet", "tsv", "xlsx")

MakeRows = Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]


class FileSample(NamedTuple):
    """What a format is told by.

    Attributes
    ----------
    name
        Of the file, in small letters, without what tells its compression.
    columns
        As the file names them; of JSON, the keys of its first records; empty if it names none.
    rows
        The first good records: lists of fields, or mappings (JSON, Parquet, Excel).
    """

    name: str
    shape: Shape
    separator: str
    columns: Sequence[str]
    rows: Sequence[Any]

    def has(self, *paths: str) -> bool:
        """Whether the first record, a mapping, has something at all of these paths."""
        return bool(
            self.rows
            and isinstance(self.rows[0], Mapping)
            and all(value_getter(path, None)(self.rows[0]) is not None for path in paths)
        )


@dataclass(frozen=True)
class Format:
    """A format; what each attribute means stands at the beginning of this module.

    Attributes
    ----------
    title
        Where such files come from, for people.
    has_users
        Whether USER_ID is somebody that is known, or an anonymous session.
    extra
        Further columns for `replay` alone: SESSION_ID, EVENT_ID, PROPERTIES, and ANONYMOUS, which
        says of a row that its USER_ID is a session's.
    optional
        Fields that a replayed event may lack.
    """

    name: str
    title: str
    columns: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    list_column: str = ""
    rows: MakeRows | None = None
    fits: Callable[[FileSample], str] | None = None
    file_names: tuple[str, ...] = ()
    separator: str = ""
    has_header: bool = True
    is_any_order: bool = False
    has_users: bool = True
    dataset: DatasetKind = "interactions"
    extra: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def evidence(self, sample: FileSample) -> str:
        """Why a file is of this format, for people; empty if it is not."""
        if self.fits is not None:
            return self.fits(sample)
        if not self.has_header:
            width = len(sample.rows[0]) if sample.rows else 0
            is_so = sample.name.endswith(self.file_names) and width == len(self.columns)
            return "by the file's name" if is_so and not sample.columns else ""
        if self.is_any_order or sample.shape not in {"csv", "tsv"}:
            is_so = bool(self.columns) and set(self.columns) <= set(sample.columns)
        else:
            is_so = bool(self.columns) and tuple(sample.columns) == self.columns
        return "by its columns" if is_so else ""


def match_format(
    formats: Sequence[Format], sample: FileSample, name: str, kind: DatasetKind
) -> tuple[Format, str] | None:
    """The format of a file, and why it is taken for that; `None` where it is none of these.

    Raises
    ------
    UnreadableRecording
        Where two formats fit, or one of another kind of dataset.
    """
    if name:
        fitting = [(each, "as told") for each in formats if each.name == name]
    else:
        fitting = [(each, why) for each in formats if (why := each.evidence(sample))]
    found = [(each, why) for each, why in fitting if each.dataset == kind]
    if len(found) > 1:
        named = " or ".join(f"{each.name} ({each.title})" for each, _ in found)
        raise UnreadableRecording(f"may be {named}: name it with --format")
    if fitting and not found:
        other, _ = fitting[0]
        raise UnreadableRecording(f"{other.name} ({other.title}): {other.dataset}, and not {kind}")
    return found[0] if found else None
