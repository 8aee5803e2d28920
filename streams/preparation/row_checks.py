"""Which staged rows are kept: good ones that the condition lets through, the last of each id.

The result is the engine's table `judged`: `staged` with verdicts for these rules too.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from models.errors import CannotPrepare
from streams.preparation.database import PreparationDatabase, identifier, literal
from streams.preparation.where_clause import WhereClause
from streams.reading.column_mapping import ColumnMapping
from streams.reading.fields import IDS

FILTERED = "left out by --where"
UNDECIDED = "--where has no answer"
SUPERSEDED = "a later row has the same id"

_OURS = "\x02"

_MACROS = (
    "finite(v) AS CASE WHEN isfinite(v) THEN v END",
    r"""number(v) AS CASE WHEN regexp_full_match(v, '\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*')
      THEN finite(try_cast(v AS DOUBLE)) END""",
    "truth(v) AS CASE lower(trim(v)) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END",
)


def validate_rows(
    database: PreparationDatabase,
    columns: tuple[str, ...],
    mapping: ColumnMapping,
    condition: WhereClause | None,
) -> None:
    """Judge every staged row.

    Raises
    ------
    CannotPrepare
        When the condition cannot be a condition on these columns.
    """
    for macro in _MACROS:
        database.run(f"CREATE TEMP MACRO {macro}")
    if condition is None:
        database.run("ALTER TABLE staged RENAME TO judged")
        return
    plain = {n for name, n in mapping.fields.items() if name in IDS | {"EVENT_TYPE"}}
    numeric = _numeric(database, [n for n in condition.columns if n not in plain])
    typed = ", ".join(
        f"{f'number(c{n})' if n in numeric else f'c{n}'} AS {identifier(columns[n])}"
        for n in condition.columns
    )
    # Ours get names that no column of a user has, for those are printable.
    ours = ["nth", "place", "verdict", "kind", *(f"f{n}" for n in range(len(mapping.fields)))]
    hidden = ", ".join(f"{each} AS {identifier(_OURS + each)}" for each in ours)
    back = ", ".join(f"{identifier(_OURS + each)} AS {each}" for each in ours)
    seen = f"SELECT {hidden}{', ' if typed else ''}{typed} FROM staged"
    try:
        [described] = database.run(f"DESCRIBE SELECT ({condition.text}\n) FROM ({seen})")
    except duckdb.Error as error:
        raise CannotPrepare(f"--where: {str(error).splitlines()[0]}") from error
    kind = str(described[1])
    if kind != "BOOLEAN":
        raise CannotPrepare(f"--where: {condition.text!r} is no condition, but a {kind}")
    database.run(
        f"""
        CREATE TABLE judged AS
        SELECT * EXCLUDE (matches) REPLACE (CASE WHEN verdict IS NOT NULL THEN verdict
          WHEN matches IS NULL THEN {literal(UNDECIDED)}
          WHEN NOT matches THEN {literal(FILTERED)} END AS verdict)
        FROM (SELECT {back}, TRY(({condition.text}\n)) AS matches FROM ({seen}))
        """,
        doing="checking",
    )


def supersede(database: PreparationDatabase) -> None:
    """Of good rows with the same id, keep the last: an import would, too."""
    database.run(
        "CREATE TABLE latest AS SELECT f0, max(nth) AS nth FROM judged WHERE verdict IS NULL"
        " GROUP BY f0",
        doing="checking",
    )
    database.run(
        f"UPDATE judged SET verdict = '{SUPERSEDED}' FROM latest"
        " WHERE judged.f0 = latest.f0 AND judged.nth < latest.nth AND judged.verdict IS NULL",
        doing="checking",
    )


def _numeric(database: PreparationDatabase, columns: list[int]) -> set[int]:
    """Those of the columns most of whose values are numbers."""
    if not columns:
        return set()
    counts = ", ".join(f"count(number(c{n})) * 2 > count(c{n})" for n in columns)
    [found] = database.run(f"SELECT {counts} FROM staged", doing="looking at columns")
    return {n for n, is_numeric in zip(columns, found, strict=True) if is_numeric}


def reasons(database: PreparationDatabase, n_first: int) -> Mapping[str, tuple[int, list[int]]]:
    """How many rows have each verdict, and the places of the first, the most frequent first."""
    found = database.run(
        f"""
        SELECT verdict, count(*), min(place, {n_first}) FROM judged WHERE verdict IS NOT NULL
        GROUP BY verdict ORDER BY count(*) DESC, verdict
        """,
        doing="counting",
    )
    return {str(verdict): (int(n), list(first)) for verdict, n, first in found}
