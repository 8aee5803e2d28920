"""The one reader: a source recognised, and its rows, whoever asks for them.

First the beginning of the first file is looked at, and what was recognised is told. Then rows come
one at a time, each with its place; bad ones as what is wrong with them. Memory stays bounded.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from models.errors import InvalidRecord, RecommenderError, UnreadableRecording
from streams.columns import Choice, Evidence, Kind, choose, is_known, plain
from streams.objects import Object, Objects
from streams.reading import delimited, documents, known, sheets
from streams.reading.asked import Asked
from streams.reading.containers import DAMAGED, Content, opened
from streams.reading.fields import Flaw, Source, getter
from streams.reading.formats import SHAPES, Format, Sample, Shape, recognised
from streams.reading.guesses import has_header, looks_listed, roles, traits
from streams.reading.selection import select
from streams.reading.texts import HEAD_BYTES, encoding_of, line_end, lines, pieces
from streams.reading.times import Reading, reading_of

ROWS_A_FILE = 2**40
"""A place is the number of a file times this, plus the number of a line or record in it."""

SAMPLE_ROWS = 1000
MAX_COLUMNS = 1000

_BY_NAME: Mapping[str, Shape] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tab": "tsv",
    ".tsv": "tsv",
}


class Row(NamedTuple):
    """Where a row stands, and its values by the columns of the source, or what is wrong with it."""

    place: int
    values: Any


class _File(NamedTuple):
    """An open file: its records, what it calls its columns, and how it was read."""

    name: str
    shape: Shape
    columns: tuple[str, ...]
    records: Iterator[tuple[int, Any]]
    sample: tuple[Any, ...]
    separator: str = ""
    is_named: bool = True
    said: tuple[str, ...] = ()


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
    reading: Reading
    asked: Asked
    kind: Kind
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

    def choose(self) -> Choice:
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
        evidence = Evidence(usual, constants, self._times, name, self.each)
        return choose(self.kind, self.columns, told, evidence)

    def _is_told(self, fields: Mapping[str, str]) -> bool:
        return bool(fields.keys() & {"USER_ID", "ITEM_ID"})

    def _times(self, column: str) -> bool:
        """Whether the values of a column that are known so far are times."""
        get = self.get(column)
        return traits([get(row) for row in self.sample], self.reading).is_time

    def needed(self, choice: Choice) -> list[str]:
        """The columns that a choice uses."""
        return [self.columns[n] for n in choice.fields.values() if isinstance(n, int)]

    def sources(self, choice: Choice) -> dict[str, Source]:
        """Where each field of a choice comes from."""
        found = {}
        for name, said in choice.fields.items():
            if isinstance(said, str):
                found[name] = Source(lambda _, said=said: said)  # type: ignore[misc]
                continue
            column = self.columns[said]
            get = self.get(column)
            if name == "EVENT_TYPE" and self.format and self.format.types:
                get = _translated(get, self.format.types, column)
            found[name] = Source(get, column)
        return found


def recognise(
    objects: Objects,
    source: str,
    asked: Asked,
    kind: Kind = "interactions",
    *,
    folder: Path | None = None,
) -> Recognised:
    """What a source is, by the beginning of its first file.

    Raises
    ------
    UnreadableRecording
        When it is nothing that is known, or two readings fit.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.objects` says.
    """
    known.check_name(asked.format)
    reading = reading_of(asked.time_format)
    selection = select(objects, source)
    url = selection.files[0].url
    with _opened(objects, url, asked, reading, folder, lambda _: None) as file:
        named = file.columns if file.is_named else ()
        sample = Sample(file.name, file.shape, file.separator, named, file.sample)
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
            for row in _reshaped(
                ((n, _as_mapping(one, columns) if is_mapping else one)
                 for n, one in enumerate(file.sample)),
                format_,
                each,
            )
            if not isinstance(row.values, InvalidRecord)
        )  # fmt: skip
        if is_mapping:
            columns = keys_of(rows, each, format_, asked)
        _check(columns)
    what = f"{format_.name} ({format_.title}), {why}" if format_ else file.shape
    said = (what, *file.said, *((f"one row for each of {each}",) if each else ()), *selection.said)
    return Recognised(source, selection.files, file.shape, tuple(columns), is_mapping, format_,
                      each, rows, is_named, reading, asked, kind, said)  # fmt: skip


def rows(
    objects: Objects,
    found: Recognised,
    *,
    needed: Sequence[str] = (),
    after: int = 0,
    folder: Path | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Iterator[Row]:
    """The rows of a source in their order.

    Parameters
    ----------
    needed
        Columns that every file must have.
    after
        Rows up to this place are passed over.
    on_bytes
        Told how many bytes of the files were read.

    Raises
    ------
    UnreadableRecording
        When a file is damaged, or has other columns than the first; rows before it were given.
    """
    for n, file in enumerate(found.files):
        first, last = n * ROWS_A_FILE, (n + 1) * ROWS_A_FILE
        if last <= after:
            on_bytes(file.size)
            continue
        with _opened(objects, file.url, found.asked, found.reading, folder, on_bytes) as each:
            same = _same_columns(each, found, needed)
            records = ((number, same(one)) for number, one in each.records)
            for row in _reshaped(records, found.format, found.each):
                if (place := first + row.place) > after:
                    yield Row(place, row.values)


def _same_columns(file: _File, found: Recognised, needed: Sequence[str]) -> Callable[[Any], Any]:
    """What makes a record of a file one with the columns of the source."""
    if file.shape != found.shape:
        raise UnreadableRecording(f"{file.shape}, unlike the first file, which is {found.shape}")
    if file.shape in {"json", "jsonl"}:
        return lambda one: one
    own = file.columns
    if not file.is_named:
        named = found.format.columns if found.format else found.columns
        if len(named) != len(own) and not found.is_mapping:
            raise UnreadableRecording(f"{len(own)} columns, unlike the first file")
        own = tuple(named)
    if found.is_mapping:
        return lambda one: _as_mapping(one, own)
    if own == found.columns:
        return lambda one: one
    # Names are the same in any case, and whatever stands between their letters.
    alike = {plain(column): n for n, column in enumerate(own)}
    places = {column: own.index(column) if column in own else alike.get(plain(column), -1)
              for column in found.columns}  # fmt: skip
    missing = [column for column in needed if places[column] < 0]
    if missing:
        raise UnreadableRecording(
            f"no column {', '.join(missing)} among {', '.join(own)}, unlike the first file"
        )
    at = list(places.values())
    return lambda one: (
        one if isinstance(one, InvalidRecord) else [one[n] if n >= 0 else "" for n in at]
    )


def _reshaped(
    records: Iterable[tuple[int, Any]], format_: Format | None, each: str
) -> Iterator[Row]:
    """Rows out of records."""
    make = format_.rows if format_ else None
    if make is None and not each:
        for number, record in records:
            yield Row(number, record)
        return
    for number, record in records:
        if isinstance(record, InvalidRecord):
            yield Row(number, record)
            continue
        try:
            made = list(make(record)) if make else [record]
        except InvalidRecord as error:
            yield Row(number, error)
            continue
        for one in made:
            elements = getter(each, None)(one) if each else None
            if not isinstance(elements, list) or not elements:
                yield Row(number, {**one, each: None} if each else one)
                continue
            for element in elements:
                yield Row(number, {**one, each: element})


def _as_mapping(record: Any, columns: Sequence[str]) -> Any:  # noqa: ANN401  any record
    if isinstance(record, (dict, InvalidRecord)):
        return record
    return dict(zip(columns, record, strict=False))


def keys_of(
    rows: Iterable[Mapping[str, Any]], each: str, format_: Format | None, asked: Asked
) -> tuple[str, ...]:
    """The columns of rows that are mappings, in the order of their appearance."""
    keys: dict[str, None] = {}
    for row in rows:
        for key, value in row.items():
            if key == each and isinstance(value, dict):
                keys |= dict.fromkeys(f"{each}.{inner}" for inner in value)
            else:
                keys[key] = None
    named = [*asked.told.fields.values(), *asked.told.keep]
    if format_:
        named += [*format_.fields.values(), *format_.extra.values()]
    inside = [path for path in named if "." in path]
    return tuple(dict.fromkeys((*keys, *inside)))


def _list_inside(file: _File, asked: Asked) -> str:
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
            raise Flaw("EVENT_TYPE", "not a type of event", column, written)
        return types[str(written)]

    return translated


def _check(columns: Sequence[str]) -> None:
    """Raise `UnreadableRecording` unless these are names by which columns can be told apart."""
    if len(columns) > MAX_COLUMNS:
        raise UnreadableRecording(f"{len(columns)} columns: at most {MAX_COLUMNS} can be read")
    for column in columns:
        if not column or not column.isprintable():
            raise UnreadableRecording(f"no name for a column: {column!r}")
        if columns.count(column) > 1:
            raise UnreadableRecording(f"two columns are called {column!r}")


@contextlib.contextmanager
def _opened(
    objects: Objects,
    url: str,
    asked: Asked,
    reading: Reading,
    folder: Path | None,
    on_bytes: Callable[[int], None],
) -> Iterator[_File]:
    """A file, its beginning recognised; errors name it."""
    place = folder or Path(tempfile.gettempdir())
    try:
        with opened(objects, url, place, on_bytes) as content:
            if content.kind == "parquet" and content.path is not None:
                with sheets.parquet(content.path, place) as sheet:
                    yield _of_sheet("parquet", sheet, content)
            elif content.kind == "xlsx" and content.path is not None:
                yield _of_sheet("xlsx", sheets.excel(content.path), content)
            else:
                yield _of_text(content, asked, reading)
    except RecommenderError as error:
        if url in str(error):
            raise
        raise type(error)(f"{url}: {error}") from error


def _of_sheet(shape: Shape, sheet: sheets.Sheet, content: Content) -> _File:
    _check(sheet.columns)
    columns = sheet.columns
    start = 2 if shape == "xlsx" else 1
    records = (
        (number, dict(zip(columns, row, strict=False)))
        for number, row in enumerate(sheet.rows, start)
    )
    sample = list(islice(records, SAMPLE_ROWS))
    values = tuple(row for _, row in sample)
    return _File(
        content.name, shape, columns, chain(sample, records), values, said=_packed(content)
    )


def _packed(content: Content) -> tuple[str, ...]:
    return (f"packed in {content.packed}",) if content.packed else ()


def _of_text(content: Content, asked: Asked, reading: Reading) -> _File:
    head_bytes = _peeked(content)
    encoding = encoding_of(head_bytes, asked.encoding)
    texts = pieces(content.stream, encoding)
    head = "".join(_until(texts, HEAD_BYTES))
    texts = chain([head], texts)
    shape, separator = _shape(content.name, head, asked)
    said = (*_packed(content), *((encoding.why,) if encoding.why else ()))
    if shape in {"json", "jsonl"}:
        numbered = (
            documents.of_document(texts, head, asked.records)
            if shape == "json"
            else documents.of_lines(lines(texts, line_end(head)), asked.records)
        )
        sample = list(islice(numbered, SAMPLE_ROWS))
        good = tuple(one for _, one in sample if isinstance(one, dict))
        columns = tuple(dict.fromkeys(key for one in good for key in one))
        return _File(content.name, shape, columns, chain(sample, numbered), good, said=said)
    numbered_lines = lines(texts, line_end(head))
    return _delimited(content, head, numbered_lines, separator, asked, reading, said)


def _peeked(content: Content) -> bytes:
    try:
        return bytes(content.stream.peek(HEAD_BYTES))
    except DAMAGED as error:
        raise UnreadableRecording(f"damaged: {error}") from error


def _until(texts: Iterator[str], n: int) -> Iterator[str]:
    held = 0
    for text in texts:
        yield text
        held += len(text)
        if held >= n:
            return


def _shape(name: str, head: str, asked: Asked) -> tuple[Shape, str]:
    """How records stand in a text, and what separates their fields, if that is known already."""
    format_ = next((each for each in known.FORMATS if each.name == asked.format), None)
    separator = delimited.parsed_separator(asked.separator) if asked.separator else ""
    if format_ and format_.separator and not separator:
        separator = format_.separator
    if asked.format in SHAPES:
        shape: Shape = asked.format
        if shape in {"parquet", "xlsx"}:
            raise UnreadableRecording(f"text, and not {shape}")
        return shape, separator or ("\t" if shape == "tsv" else "")
    start = head.lstrip()[:1]
    by_name = next((shape for end, shape in _BY_NAME.items() if name.endswith(end)), None)
    if by_name in {"csv", "tsv"} or separator:
        return by_name if by_name == "tsv" else "csv", separator
    if by_name == "jsonl":
        return "jsonl", ""
    if start == "[":
        return "json", ""
    if start == "{":
        return ("jsonl" if _is_lines(head) else "json"), ""
    return "csv", separator


def _is_lines(head: str) -> bool:
    """Whether the first line is an object and more follow, rather than a document of its own."""
    first, _, rest = head.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def _delimited(
    content: Content,
    head: str,
    numbered: Iterator[tuple[int, Any]],
    separator: str,
    asked: Asked,
    reading: Reading,
    said: tuple[str, ...],
) -> _File:
    sample = _first_lines(head)
    if not separator:
        by_evidence = delimited.separator_of(
            content.name, sample, lambda fields: sum(map(is_known, fields))
        )
        separator = by_evidence
    first = delimited.split(sample[0], separator)
    if first is None:
        raise UnreadableRecording("the first line is no header: its quotes do not fit")
    is_told = asked.format or asked.columns or asked.separator or is_known(first[0])
    if len(first) == 1 and not content.name.endswith((".csv", ".tsv", ".tab")) and not is_told:
        raise UnreadableRecording(f"the format is not known: name one of {', '.join(known.NAMES)}")
    first = [field.strip() for field in first]
    records = delimited.records(numbered, separator, len(first))
    start = list(islice(records, SAMPLE_ROWS))
    good = [fields for _, fields in start if not isinstance(fields, InvalidRecord)]
    is_header, is_named = _named(first, good, asked, reading)
    columns = tuple(first) if is_header else tuple(f"column{n + 1}" for n in range(len(first)))
    if asked.columns:
        if len(asked.columns) != len(first):
            raise UnreadableRecording(
                f"{len(first)} columns, and --columns names {len(asked.columns)}"
            )
        columns = tuple(asked.columns)
    _check(columns)
    if is_header and start and start[0][0] == 1:
        del start[0]
        good = good[1:]
    if separator not in {",", "\t"}:
        said = (*said, f"separated by {delimited.NAMES.get(separator, separator)}")
    if not is_header:
        said = (*said, "no header")
    shape: Shape = "tsv" if separator == "\t" else "csv"
    return _File(content.name, shape, columns, chain(start, records), tuple(good), separator,
                 is_named, said)  # fmt: skip


def _first_lines(head: str) -> list[str]:
    """Some lines to look at, the first of which may be a header."""
    if not head.strip():
        raise UnreadableRecording("nothing in it")
    first, *others = head.split(line_end(head))
    if not first.strip():
        raise UnreadableRecording("the first line is empty")
    if len(first) > 2 * MAX_COLUMNS * 64:
        raise UnreadableRecording("the first line is too long for a header")
    more = [line.removesuffix("\r") for line in others[: delimited.SAMPLE_LINES] if line.strip()]
    # The last may be cut off.
    return [first.removesuffix("\r"), *(more[:-1] if len(head) >= HEAD_BYTES else more)]


def _named(
    first: Sequence[str], good: Sequence[Sequence[str]], asked: Asked, reading: Reading
) -> tuple[bool, bool]:
    """Whether the first line is a header, and whether columns have names."""
    if asked.columns:
        return [one.lower() for one in first] == [one.lower() for one in asked.columns], True
    format_ = next((each for each in known.FORMATS if each.name == asked.format), None)
    if format_ and format_.columns:
        if not format_.has_header:
            return False, False
        if tuple(first) != format_.columns and not format_.is_any_order:
            raise UnreadableRecording(
                f"it does not begin with the header {','.join(format_.columns)}"
            )
        return True, True
    is_header = has_header(first, good[1:] if good else [], reading)
    return is_header, is_header
