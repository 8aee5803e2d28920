"""An opened file: its encoding, the shape of its records, and its column names."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import InvalidRecord, RecommenderError, UnreadableRecording
from streams.object_store import Objects
from streams.reading.column_mapping import is_known_name
from streams.reading.formats import registry
from streams.reading.formats.file_format import SHAPES, Shape
from streams.reading.guesses import has_header
from streams.reading.read_options import ReadOptions
from streams.reading.records import delimited, json_records, sheets, xml_records
from streams.reading.records.containers import DAMAGE_ERRORS, Unpacked, open_unpacked
from streams.reading.records.text_streams import (
    HEAD_BYTES,
    decode_chunks,
    encoding_of,
    line_end,
    lines,
)
from streams.reading.times import ReadTime

SAMPLE_ROWS = 1000
MAX_COLUMNS = 1000

_BY_NAME: Mapping[str, Shape] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tab": "tsv",
    ".tsv": "tsv",
}


class OpenFile(NamedTuple):
    """An open file: its records by number, its columns, and notes on how it is read."""

    name: str
    shape: Shape
    columns: tuple[str, ...]
    records: Iterator[tuple[int, Any]]
    sample: tuple[Any, ...]
    separator: str = ""
    is_named: bool = True
    notes: tuple[str, ...] = ()
    is_whole: bool = False
    """True if the sample has every record of the file, but for bad ones."""


@contextlib.contextmanager
def open_file(
    objects: Objects,
    url: str,
    options: ReadOptions,
    read_time: ReadTime,
    folder: Path | None,
    on_bytes: Callable[[int], None],
) -> Iterator[OpenFile]:
    """Open a file and recognise its shape and columns; errors name the file."""
    place = folder or Path(tempfile.gettempdir())
    try:
        with open_unpacked(objects, url, place, on_bytes) as content:
            if content.kind == "parquet" and content.path is not None:
                with sheets.parquet(content.path, place) as sheet:
                    yield _of_sheet("parquet", sheet, content)
            elif content.kind == "xlsx" and content.path is not None:
                yield _of_sheet("xlsx", sheets.excel(content.path), content)
            else:
                yield _of_text(content, options, read_time)
    except RecommenderError as error:
        if url in str(error):
            raise
        raise type(error)(f"{url}: {error}") from error


def check_columns(columns: Sequence[str]) -> None:
    """Raise `UnreadableRecording` unless these are distinct, printable column names."""
    if len(columns) > MAX_COLUMNS:
        raise UnreadableRecording(f"{len(columns)} columns: at most {MAX_COLUMNS} can be read")
    for column in columns:
        if not column or not column.isprintable():
            raise UnreadableRecording(f"no name for a column: {column!r}")
        if columns.count(column) > 1:
            raise UnreadableRecording(f"two columns are called {column!r}")


def _of_sheet(shape: Shape, sheet: sheets.Sheet, content: Unpacked) -> OpenFile:
    check_columns(sheet.columns)
    columns = sheet.columns
    start = 2 if shape == "xlsx" else 1
    records = (
        (number, dict(zip(columns, row, strict=False)))
        for number, row in enumerate(sheet.rows, start)
    )
    sample = list(islice(records, SAMPLE_ROWS))
    values = tuple(row for _, row in sample)
    return OpenFile(
        content.name,
        shape,
        columns,
        chain(sample, records),
        values,
        notes=_packed(content),
        is_whole=len(sample) < SAMPLE_ROWS,
    )


def _packed(content: Unpacked) -> tuple[str, ...]:
    return (f"packed in {content.compression}",) if content.compression else ()


def _of_text(content: Unpacked, options: ReadOptions, read_time: ReadTime) -> OpenFile:
    head_bytes = _peeked(content)
    is_xml = xml_records.is_xml(head_bytes)
    if is_xml and options.format in SHAPES and options.format != "xml":
        raise UnreadableRecording(f"XML, and not {options.format}")
    declared = xml_records.declared_encoding(head_bytes) if is_xml else ""
    encoding = encoding_of(head_bytes, options.encoding or declared)
    texts = decode_chunks(content.stream, encoding)
    head = "".join(_until(texts, HEAD_BYTES))
    texts = chain([head], texts)
    xml: tuple[Shape, str] = ("xml", "")
    shape, separator = xml if is_xml else _shape(content.name, head, options)
    notes = (*_packed(content), *((encoding.why,) if encoding.why and not declared else ()))
    if shape in {"json", "jsonl", "xml"}:
        numbered, note = _named_records(shape, texts, head, options.records)
        sample = list(islice(numbered, SAMPLE_ROWS))
        good = tuple(one for _, one in sample if isinstance(one, dict))
        return OpenFile(
            content.name,
            shape,
            tuple(dict.fromkeys(key for one in good for key in one)),
            chain(sample, numbered),
            good,
            notes=(*notes, *note),
            is_whole=len(sample) < SAMPLE_ROWS,
        )
    numbered_lines = lines(texts, line_end(head))
    return _delimited(content, head, numbered_lines, separator, options, read_time, notes)


def _named_records(
    shape: Shape, texts: Iterator[str], head: str, keys: Sequence[str]
) -> tuple[Iterator[tuple[int, Any]], tuple[str, ...]]:
    """Records that name their values themselves, by number, and a note on where they are."""
    if shape == "xml":
        return xml_records.records_of_xml(texts, keys), ()
    if shape == "jsonl":
        return json_records.records_of_lines(lines(texts, line_end(head)), keys), ()
    known = {each.list_in_document for each in registry.FORMATS.values()} - {""}
    name = "" if keys else json_records.first_list(head)
    if name in known:
        return json_records.records_of_document(texts, head, [name]), (f"the list {name}",)
    return json_records.records_of_document(texts, head, keys), ()


def _peeked(content: Unpacked) -> bytes:
    try:
        return bytes(content.stream.peek(HEAD_BYTES))
    except DAMAGE_ERRORS as error:
        raise UnreadableRecording(f"damaged: {error}") from error


def _until(texts: Iterator[str], n: int) -> Iterator[str]:
    held = 0
    for text in texts:
        yield text
        held += len(text)
        if held >= n:
            return


def _shape(name: str, head: str, options: ReadOptions) -> tuple[Shape, str]:
    """Shape of the records in a text, and their field separator if it is known already."""
    format_ = registry.FORMATS.get(options.format)
    separator = delimited.parsed_separator(options.separator) if options.separator else ""
    if format_ and format_.separator and not separator:
        separator = format_.separator
    if options.format in SHAPES:
        shape: Shape = options.format
        if shape in {"parquet", "xlsx", "xml"}:
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
    """True if the first line is a JSON object with more lines after it, not part of a document."""
    first, _, rest = head.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def _delimited(
    content: Unpacked,
    head: str,
    numbered: Iterator[tuple[int, Any]],
    separator: str,
    options: ReadOptions,
    read_time: ReadTime,
    notes: tuple[str, ...],
) -> OpenFile:
    sample = _first_lines(head)
    if not separator:
        by_evidence = delimited.separator_of(
            content.name, sample, lambda fields: sum(map(is_known_name, fields))
        )
        separator = by_evidence
    first = delimited.split(sample[0], separator)
    if first is None:
        raise UnreadableRecording("the first line is no header: its quotes do not fit")
    is_told = options.format or options.columns or options.separator or is_known_name(first[0])
    if len(first) == 1 and not content.name.endswith((".csv", ".tsv", ".tab")) and not is_told:
        raise UnreadableRecording(
            f"the format is not known: name one of {', '.join(registry.names())}"
        )
    first = [field.strip() for field in first]
    records = delimited.records(numbered, separator, len(first))
    start = list(islice(records, SAMPLE_ROWS))
    good = [fields for _, fields in start if not isinstance(fields, InvalidRecord)]
    is_header, is_named = _named(first, good, options, read_time)
    columns = tuple(first) if is_header else tuple(f"column{n + 1}" for n in range(len(first)))
    if options.columns:
        if len(options.columns) != len(first):
            raise UnreadableRecording(
                f"{len(first)} columns, and --columns names {len(options.columns)}"
            )
        columns = tuple(options.columns)
    check_columns(columns)
    if is_header and start and start[0][0] == 1:
        del start[0]
        good = good[1:]
    if separator not in {",", "\t"}:
        notes = (*notes, f"separated by {delimited.NAMES.get(separator, separator)}")
    if not is_header:
        notes = (*notes, "no header")
    shape: Shape = "tsv" if separator == "\t" else "csv"
    return OpenFile(content.name, shape, columns, chain(start, records), tuple(good), separator,
                 is_named, notes, len(start) < SAMPLE_ROWS - 1)  # fmt: skip


def _first_lines(head: str) -> list[str]:
    """The first lines of a text, possibly with a header."""
    if not head.strip():
        raise UnreadableRecording("nothing in it")
    first, *others = head.split(line_end(head))
    if not first.strip():
        raise UnreadableRecording("the first line is empty")
    if len(first) > 2 * MAX_COLUMNS * 64:
        raise UnreadableRecording("the first line is too long for a header")
    more = [line.removesuffix("\r") for line in others[: delimited.SAMPLE_LINES] if line.strip()]
    # The last line may be cut off.
    return [first.removesuffix("\r"), *(more[:-1] if len(head) >= HEAD_BYTES else more)]


def _named(
    first: Sequence[str], good: Sequence[Sequence[str]], options: ReadOptions, read_time: ReadTime
) -> tuple[bool, bool]:
    """True if the first line is a header, and True if columns have names."""
    if options.columns:
        return [one.lower() for one in first] == [one.lower() for one in options.columns], True
    format_ = registry.FORMATS.get(options.format)
    if format_ and format_.columns:
        if not format_.has_header:
            return False, False
        if tuple(first) != format_.columns and not format_.is_any_order:
            raise UnreadableRecording(
                f"it does not begin with the header {','.join(format_.columns)}"
            )
        return True, True
    is_header = has_header(first, good[1:] if good else [], read_time)
    return is_header, is_header
