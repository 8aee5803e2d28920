"""Parquet files and Excel sheets as rows of values."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from models.errors import NotConfigured, UnreadableRecording
from models.extras import require_extra

if TYPE_CHECKING:
    import duckdb

MEMORY_MB = 512
ROWS_AT_ONCE = 2000
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
        The file is damaged, or DuckDB is not installed.
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
            described = connection.execute(f"DESCRIBE {_QUERY}", [str(link)])
            columns = tuple(str(column) for column, *_ in described.fetchall())
            yield Sheet(columns, _fetched(connection, link))
    finally:
        connection.close()
        link.unlink()


def _fetched(connection: duckdb.DuckDBPyConnection, link: Path) -> Iterator[Sequence[Any]]:
    with _translated_errors(link):
        rows = connection.execute(_QUERY, [str(link)])
        while some := rows.fetchmany(ROWS_AT_ONCE):
            yield from some


@contextlib.contextmanager
def _translated_errors(link: Path) -> Iterator[None]:
    """Errors of DuckDB, without the temporary name of the file."""
    import duckdb  # noqa: PLC0415  an extra

    try:
        yield
    except duckdb.Error as error:
        text = str(error).splitlines()[0].replace(f"'{link}'", "it").replace(str(link), "it")
        raise UnreadableRecording(f"damaged: {text}") from error


def excel(path: Path) -> Sheet:
    """The first sheet of an Excel file, read as a whole; its first row is the header.

    Raises
    ------
    UnreadableRecording
        The file is damaged, or the library for it is not installed.
    """
    try:
        import python_calamine as calamine  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        raise UnreadableRecording(
            "an Excel file: install streaming-recommender[xlsx], or save it as CSV"
        ) from error
    try:
        sheet = calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except (calamine.CalamineError, OSError) as error:
        raise UnreadableRecording(f"damaged: {error}") from error
    rows = iter(sheet.iter_rows())
    first = next(rows, None)
    if first is None:
        raise UnreadableRecording("its first sheet is empty")
    return Sheet(tuple(str(text_of(cell) or "").strip() for cell in first), rows)


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
