"""Checks of staged rows in the database: the condition of `--where`, and one row for each id.

The result is the table `checked`: `staged`, with reasons also for rows that these checks drop.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from models.errors import CannotPrepare
from streams.preparation.database import PreparationDatabase, identifier, literal
from streams.preparation.staging import ROW_COLUMNS, source_column
from streams.preparation.where_clause import WhereClause
from streams.reading.column_mapping import DATASETS, ColumnMapping, DatasetKind
from streams.reading.fields import IDS

FILTERED = "left out by --where"
UNDECIDED = "--where has no answer"
SUPERSEDED = "a later row has the same id"

_HIDDEN = "\x02"
"""Prefix of internal columns in a condition; columns of users are printable."""

_MACROS = (
    "finite(v) AS CASE WHEN isfinite(v) THEN v END",
    r"""number(v) AS CASE WHEN regexp_full_match(v, '\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*')
      THEN finite(try_cast(v AS DOUBLE)) END""",
    "truth(v) AS CASE lower(trim(v)) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END",
)


def apply_where(
    database: PreparationDatabase,
    columns: tuple[str, ...],
    mapping: ColumnMapping,
    condition: WhereClause | None,
) -> None:
    """Make the table `checked`; rows that the condition excludes get a reason.

    Raises
    ------
    CannotPrepare
        The condition is none on these columns.
    """
    for macro in _MACROS:
        database.run(f"CREATE TEMP MACRO {macro}")
    if condition is None:
        database.run("ALTER TABLE staged RENAME TO checked")
        return
    plain = {n for name, n in mapping.fields.items() if name in IDS | {"EVENT_TYPE"}}
    numeric = _numeric(database, [n for n in condition.columns if n not in plain])
    typed = ", ".join(
        f"{f'number({source_column(n)})' if n in numeric else source_column(n)}"
        f" AS {identifier(columns[n])}"
        for n in condition.columns
    )
    internal = (*ROW_COLUMNS, *mapping.fields)
    hidden = ", ".join(f"{identifier(each)} AS {identifier(_HIDDEN + each)}" for each in internal)
    back = ", ".join(f"{identifier(_HIDDEN + each)} AS {identifier(each)}" for each in internal)
    rows = f"SELECT {hidden}{', ' if typed else ''}{typed} FROM staged"
    try:
        [described] = database.run(f"DESCRIBE SELECT ({condition.text}\n) FROM ({rows})")
    except duckdb.Error as error:
        raise CannotPrepare(f"--where: {str(error).splitlines()[0]}") from error
    kind = str(described[1])
    if kind != "BOOLEAN":
        raise CannotPrepare(f"--where: {condition.text!r} is no condition, but a {kind}")
    database.run(
        f"""
        CREATE TABLE checked AS
        SELECT * EXCLUDE (_matches) REPLACE (CASE WHEN _reason IS NOT NULL THEN _reason
          WHEN _matches IS NULL THEN {literal(UNDECIDED)}
          WHEN NOT _matches THEN {literal(FILTERED)} END AS _reason)
        FROM (SELECT {back}, TRY(({condition.text}\n)) AS _matches FROM ({rows}))
        """,
        doing="checking",
    )


def drop_superseded(database: PreparationDatabase, kind: DatasetKind) -> None:
    """Keep the last of the rows with the same id, as an import would."""
    item_or_user = identifier(DATASETS[kind].required[0])
    database.run(
        f"CREATE TABLE latest AS SELECT {item_or_user} AS id, max(_row) AS last FROM checked"
        " WHERE _reason IS NULL GROUP BY 1",
        doing="checking",
    )
    database.run(
        f"UPDATE checked SET _reason = {literal(SUPERSEDED)} FROM latest"
        f" WHERE checked.{item_or_user} = latest.id AND _row < latest.last AND _reason IS NULL",
        doing="checking",
    )


def _numeric(database: PreparationDatabase, columns: list[int]) -> set[int]:
    """Numbers of the columns whose values are mostly numbers."""
    if not columns:
        return set()
    counts = ", ".join(
        f"count(number({source_column(n)})) * 2 > count({source_column(n)})" for n in columns
    )
    [found] = database.run(f"SELECT {counts} FROM staged", doing="looking at columns")
    return {n for n, is_numeric in zip(columns, found, strict=True) if is_numeric}


def dropped_by_reason(
    database: PreparationDatabase, n_first: int
) -> Mapping[str, tuple[int, list[int]]]:
    """Number of rows by reason, with the places of the first, the most frequent reason first."""
    found = database.run(
        f"""
        SELECT _reason, count(*), min(_place, {n_first}) FROM checked WHERE _reason IS NOT NULL
        GROUP BY _reason ORDER BY count(*) DESC, _reason
        """,
        doing="counting",
    )
    return {str(reason): (int(n), list(first)) for reason, n, first in found}
