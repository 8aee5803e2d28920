"""The rows that `prepare` reads, checked by the one reader, as a table of the engine.

The engine's table `staged` has for each row `nth`, which orders the rows, `place`, which says where
it stands, a `verdict` that is NULL for a good row, `kind`, which says how its time was written, the
fields of the choice in their order (`f0`, `f1`, …), and the columns of the condition (`c<n>`).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import InvalidRecord
from streams.object_store import Objects
from streams.preparation.database import PreparationDatabase, ReportProgress
from streams.preparation.where_clause import WhereClause
from streams.reading.column_mapping import DATASETS, ColumnMapping
from streams.reading.fields import TIMES, VALUES, RowChecker, reason_of, text_or_none
from streams.reading.files import SAMPLE_ROWS
from streams.reading.reader import read_rows
from streams.reading.recognition import RecognisedSource
from streams.reading.reshaping import columns_of_mappings

MAX_LINE_BYTES = 16 * 1024 * 1024
"""More than the longest staged row has."""

_NULL = "\x02"
_STAGED = "staging"


def with_all_columns(
    objects: Objects, source: RecognisedSource, *, has_condition: bool, folder: Path
) -> RecognisedSource:
    """The source with the keys of all its records as columns, where somebody may ask for them."""
    is_asked = (
        has_condition or source.options.column_options.keep or DATASETS[source.kind].keeps_others
    ) and source.shape in {"json", "jsonl"}
    if not is_asked or len(source.sample) < SAMPLE_ROWS:
        return source
    good = (
        row.values
        for row in read_rows(objects, source, folder=folder)
        if not isinstance(row.values, InvalidRecord)
    )
    return replace(
        source, columns=columns_of_mappings(good, source.list_column, source.format, source.options)
    )


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
    """Read the source, check its rows, and make them the table `staged`.

    Raises
    ------
    UnreadableRecording
        When a file is damaged or has other columns than the first.
    """
    file = database.folder / _STAGED
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
    seen = [source.value_getter(source.columns[n]) for n in used]
    names = list(mapping.fields)
    nothing = [_NULL] * (1 + len(names) + len(seen))
    with file.open("w", newline="", encoding="utf-8") as target:
        write = csv.writer(target, lineterminator="\n").writerow
        for nth, (place, values) in enumerate(
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
                said, written = check(values)
            except InvalidRecord as error:
                write([nth, place, reason_of(error), *nothing])
                continue
            fields = [_staged(name, said[name]) for name in names]
            raw = [_plain(text_or_none(get(values))) for get in seen]
            write([nth, place, _NULL, written or _NULL, *fields, *raw])


def _staged(name: str, value: Any) -> Any:  # noqa: ANN401
    if value is None:
        return _NULL
    return math.floor(value) if name in TIMES else value


def _plain(text: str | None) -> str:
    """A text that the engine takes: without its own mark, and without what is half a character."""
    if text is None:
        return _NULL
    if text.isprintable():
        return text
    return text.replace(_NULL, " ").encode(errors="replace").decode()


def _load(
    database: PreparationDatabase, file: Path, mapping: ColumnMapping, used: Sequence[int]
) -> None:
    kinds = {"nth": "BIGINT", "place": "BIGINT", "verdict": "VARCHAR", "kind": "VARCHAR"}
    for n, name in enumerate(mapping.fields):
        is_number = name in VALUES
        kinds[f"f{n}"] = "BIGINT" if name in TIMES else "DOUBLE" if is_number else "VARCHAR"
    kinds |= {f"c{n}": "VARCHAR" for n in used}
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in kinds.items())
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
