"""Parquet files and Excel sheets as rows of values."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from models.errors import NotConfigured, UnreadableRecording
from models.extras import require_extra
from streams.reading.records.text_streams import MAX_LINE_CHARS

if TYPE_CHECKING:
    import duckdb

MEMORY_MB = 512
ROWS_AT_ONCE = 50
"""Rows in memory, of `MAX_LINE_CHARS` characters at most."""

TOO_LONG = f"a row of more than {MAX_LINE_CHARS} characters"

MAX_WORKBOOK_BYTES = 512 * 1024 * 1024
"""Bound on an unpacked Excel file: a million rows of ten columns, and 1.5 GB of memory."""

CHECKED_AT_ONCE = 1024 * 1024
_QUERY = "SELECT * FROM read_parquet(?, binary_as_string = true)"


class Sheet(NamedTuple):
    """A table: its columns, and an iterator of its rows."""

    columns: tuple[str, ...]
    rows: Iterator[Sequence[Any]]


@contextlib.contextmanager
def parquet(path: Path, folder: Path) -> Iterator[Sheet]:
    """A Parquet file as a table; one row group at a time is in memory.

    Raises
    ------
    UnreadableRecording
        The file is damaged, has a row of more than `MAX_LINE_CHARS`, or DuckDB is not installed.
    """
    try:
        require_extra("duckdb", "prepare", "a Parquet file")
    except NotConfigured as error:
        raise UnreadableRecording(str(error)) from error
    import duckdb  # noqa: PLC0415  an extra

    # DuckDB would expand wildcards in other names.
    link = folder / f"recommender-{secrets.token_hex(8)}.parquet"
    link.symlink_to(path.resolve())
    connection = duckdb.connect(
        config={
            "allow_community_extensions": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": f"{MEMORY_MB}MB",
            "temp_directory": str(folder),
            "threads": 2,
        }
    )
    try:
        with _translated_errors(link):
            connection.execute("SET TimeZone = 'UTC'")
            described = connection.execute(f"DESCRIBE {_QUERY}", [str(link)]).fetchall()
            columns = tuple(str(column) for column, *_ in described)
            sizes = [_size(str(column), str(kind)) for column, kind, *_ in described]
            yield Sheet(columns, _fetched(connection, link, [size for size in sizes if size]))
    finally:
        connection.close()
        link.unlink()


def _fetched(
    connection: duckdb.DuckDBPyConnection, link: Path, sizes: Sequence[str]
) -> Iterator[Sequence[Any]]:
    """All rows; an error at one whose sizes add up to more than `MAX_LINE_CHARS`."""
    query = _QUERY
    if sizes:
        # A value that many rows share takes a few bytes of a file, and of each row in Python all.
        query += (
            f" WHERE CASE WHEN {' + '.join(sizes)} > {MAX_LINE_CHARS} "
            f"THEN error('{TOO_LONG}') ELSE true END"
        )
    with _translated_errors(link):
        rows = connection.execute(query, [str(link)])
        while some := rows.fetchmany(ROWS_AT_ONCE):
            yield from some


def _size(column: str, kind: str) -> str:
    """SQL for the size of a column's value, in bytes of its text; "" for one of a fixed size."""
    name = '"' + column.replace('"', '""') + '"'
    if kind == "VARCHAR":
        return f"coalesce(strlen({name}), 0)"
    if kind == "BLOB":
        return f"coalesce(octet_length({name}), 0)"
    is_nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))
    return f"coalesce(strlen({name}::VARCHAR), 0)" if is_nested else ""


@contextlib.contextmanager
def _translated_errors(link: Path) -> Iterator[None]:
    """Errors of DuckDB, without the temporary name of the file."""
    import duckdb  # noqa: PLC0415  an extra

    try:
        yield
    except duckdb.Error as error:
        if TOO_LONG in str(error):
            raise UnreadableRecording(TOO_LONG) from error
        text = str(error).splitlines()[0].replace(f"'{link}'", "it").replace(str(link), "it")
        raise UnreadableRecording(f"damaged: {text}") from error


def excel(path: Path) -> Sheet:
    """The first sheet of an Excel file, read as a whole; its first row is the header.

    Raises
    ------
    UnreadableRecording
        The file is damaged, unpacks to more than `MAX_WORKBOOK_BYTES`, or the library for it is not
        installed.
    """
    try:
        import python_calamine as calamine  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise UnreadableRecording(
            "an Excel file: install streaming-recommender[xlsx], or save it as CSV"
        ) from error
    _check_unpacked(path)
    try:
        sheet = calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except (calamine.CalamineError, OSError) as error:
        raise UnreadableRecording(f"damaged: {error}") from error
    rows = iter(sheet.iter_rows())
    first = next(rows, None)
    if first is None:
        raise UnreadableRecording("its first sheet is empty")
    return Sheet(tuple(str(text_of(cell) or "").strip() for cell in first), rows)


def _check_unpacked(path: Path) -> None:
    """Unpack a workbook without keeping any of it: one megabyte may become a thousand in memory.

    What its list of files says of their sizes may be a lie.
    """
    if not zipfile.is_zipfile(path):
        return  # of before 2007, which is not packed, or damaged: the library says so
    left = MAX_WORKBOOK_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                member.file_size = 2 * MAX_WORKBOOK_BYTES
                with archive.open(member) as content:
                    while part := content.read(CHECKED_AT_ONCE):
                        left -= len(part)
                        if left < 0:
                            most = MAX_WORKBOOK_BYTES // 2**20
                            raise UnreadableRecording(
                                f"it unpacks to more than {most} MB: save it as CSV"
                            )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnreadableRecording(f"damaged: {error}") from error


def text_of(value: Any) -> str | None:  # noqa: ANN401  any value of JSON, Parquet or Excel
    """A value as text: lists as `a|b`, integers without a fraction; None for a missing value.

    >>> text_of(12.0), text_of([1, "a"]), text_of(True), text_of(float("nan"))
    ('12', '1|a', 'true', None)
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _of_float(value)
    if isinstance(value, list):
        return "|".join(text_of(each) or "" for each in value)
    if isinstance(value, dict):
        return json.dumps(value, default=text_of, ensure_ascii=False)
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def _of_float(value: float) -> str | None:
    if math.isnan(value):
        return None
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
