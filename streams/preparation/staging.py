"""Staging: the rows of a source, checked by the reader, as the table `staged` of the database.

Its columns are those of `ROW_COLUMNS`, the fields of the mapping by their names, and the columns
that the condition reads (`source_column`). No field begins with an underscore.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.errors import InvalidRecord
from streams.object_store import Objects
from streams.preparation.database import PreparationDatabase, ReportProgress, literal
from streams.preparation.where_clause import WhereClause
from streams.reading.column_mapping import ColumnMapping
from streams.reading.fields import TIMES, VALUES, RowChecker, reason_of, text_or_none
from streams.reading.reader import read_rows
from streams.reading.recognition import RecognisedSource

MAX_LINE_BYTES = 16 * 1024 * 1024
"""More than the longest staged row."""

ROW_COLUMNS = {
    "_row": "BIGINT",
    "_place": "BIGINT",
    "_reason": "VARCHAR",
    "_notation": "VARCHAR",
}
"""Columns of each row beside its fields: its number and place, the reason of a dropped row (NULL
for a kept one), and the notation of its time."""

_NULL = "\x02"
_FILE = "staging"


def source_column(n: int) -> str:
    """Name in the database of a column of the source that the condition reads."""
    return f"_source_{n}"


def stage(
    database: PreparationDatabase,
    objects: Objects,
    source: RecognisedSource,
    mapping: ColumnMapping,
    condition: WhereClause | None,
    *,
    latest_s: float,
    progress: ReportProgress,
) -> None:
    """Read the source, check its rows, and create the table `staged`.

    Raises
    ------
    UnreadableRecording
        A file is damaged or has other columns than the first.
    """
    file = database.folder / _FILE
    total, done = sum(each.size for each in source.files), 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n
        progress("reading", min(1.0, done / total))

    used = condition.columns if condition else ()
    try:
        _write(file, objects, source, mapping, used, latest_s=latest_s, on_bytes=on_bytes)
        _load(database, file, mapping, used)
    finally:
        file.unlink(missing_ok=True)


def _write(
    file: Path,
    objects: Objects,
    source: RecognisedSource,
    mapping: ColumnMapping,
    used: Sequence[int],
    *,
    latest_s: float,
    on_bytes: Callable[[int], None],
) -> None:
    check = RowChecker(source.field_sources(mapping), source.read_time, latest_s=latest_s)
    read_used = [source.value_getter(source.columns[n]) for n in used]
    names = list(mapping.fields)
    nothing = [_NULL] * (1 + len(names) + len(read_used))
    with file.open("w", newline="", encoding="utf-8") as target:
        write = csv.writer(target, lineterminator="\n").writerow
        for row, (place, values) in enumerate(
            read_rows(
                objects,
                source,
                needed=source.needed_columns(mapping),
                folder=file.parent,
                on_bytes=on_bytes,
            )
        ):
            try:
                if isinstance(values, InvalidRecord):
                    raise values
                checked, notation = check(values)
            except InvalidRecord as error:
                write([row, place, reason_of(error), *nothing])
                continue
            fields = [_staged(name, checked[name]) for name in names]
            raw = [_plain(text_or_none(get(values))) for get in read_used]
            write([row, place, _NULL, notation or _NULL, *fields, *raw])


def _staged(name: str, value: Any) -> Any:  # noqa: ANN401
    if value is None:
        return _NULL
    return math.floor(value) if name in TIMES else value


def _plain(text: str | None) -> str:
    """A text without the mark of NULL and without lone surrogates, which DuckDB refuses."""
    if text is None:
        return _NULL
    if text.isprintable():
        return text
    return text.replace(_NULL, " ").encode(errors="replace").decode()


def _load(
    database: PreparationDatabase, file: Path, mapping: ColumnMapping, used: Sequence[int]
) -> None:
    types = dict(ROW_COLUMNS)
    for name in mapping.fields:
        types[name] = "BIGINT" if name in TIMES else "DOUBLE" if name in VALUES else "VARCHAR"
    types |= {source_column(n): "VARCHAR" for n in used}
    columns = ", ".join(f"{literal(name)}: '{type_}'" for name, type_ in types.items())
    database.run(
        f"""
        CREATE TABLE staged AS SELECT * FROM read_csv(?, auto_detect = false, header = false,
          columns = {{{columns}}}, delim = ',', quote = '"', escape = '"', new_line = '\\n',
          nullstr = chr({ord(_NULL)}), parallel = false, compression = 'none',
          max_line_size = {MAX_LINE_BYTES}, buffer_size = {2 * MAX_LINE_BYTES})
        """,
        [str(file)],
        doing="staging",
    )
