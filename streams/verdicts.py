"""Which staged rows are good, and what is wrong with each of the others, decided by the engine.

The result is its table `judged`: `place`, a `verdict` that is NULL for a good row, `kind`, which
says how its time was written, and the fields of the choice in their order: `f0`, `f1`, …
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import duckdb

from models.errors import CannotPrepare
from models.events import MILLISECONDS_FROM
from streams.columns import Choice
from streams.conditions import Condition
from streams.engine import Engine, identifier, literal
from streams.tables import Table

EARLIEST_S = 631_152_000
"""1990: a time before it is a number of something else."""

MAX_CHARS = {
    "USER_ID": 256,
    "ITEM_ID": 256,
    "EVENT_TYPE": 256,
    "IMPRESSION": 1000,
    "RECOMMENDATION_ID": 40,
    "EVENT_ATTRIBUTION_SOURCE": 1024,
}
IDS = frozenset({"USER_ID", "ITEM_ID"})
TIMES = frozenset({"TIMESTAMP", "CREATION_TIMESTAMP"})
VALUES = frozenset({"EVENT_VALUE"})
NEEDED = frozenset({"USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE"})
"""Fields that no row may leave empty."""

FILTERED = "left out by --where"
UNDECIDED = "--where has no answer"
SUPERSEDED = "a later row has the same id"

# Texts that stand for nothing where a format has no other way to say so.
_NOTHING = r"('NULL', 'null', '\N')"

# No user's column has such a name: those are printable.
_OURS = "\x02"

_MACROS = (
    # Nearly all text begins with more than a space, which is cheap to see.
    rf"""present(v) AS CASE WHEN v IN {_NOTHING} THEN NULL
      WHEN v >= '!' OR regexp_matches(v, '\S') THEN v END""",
    "finite(v) AS CASE WHEN isfinite(v) THEN v END",
    r"""number(v) AS CASE WHEN regexp_full_match(v, '\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*')
      THEN finite(try_cast(v AS DOUBLE)) END""",
    r"""moment(v) AS CASE WHEN regexp_matches(v, '^\s*\d{4}-\d{2}-\d{2}')
      THEN epoch(try_cast(trim(v) AS TIMESTAMPTZ)) END""",
    f"""seconds(v, number) AS CASE WHEN number > {MILLISECONDS_FROM} THEN number / 1000
      ELSE coalesce(number, moment(v)) END""",
    "whole_seconds(v) AS CASE WHEN v BETWEEN 0 AND 1e11 THEN floor(v)::BIGINT END",
    f"""time_kind(v, number) AS CASE WHEN number > {MILLISECONDS_FROM} THEN 'milliseconds'
      WHEN number IS NOT NULL THEN 'seconds' WHEN v IS NOT NULL THEN 'ISO 8601' END""",
    "truth(v) AS CASE lower(trim(v)) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END",
    r"one_line(v) AS nullif(trim(regexp_replace(v, '[\x00-\x1f\x7f]+', ' ', 'g')), '')",
    """listed(v) AS CASE WHEN starts_with(v, '[') AND json_valid(v)
      THEN array_to_string(json_extract_string(v, '$[*]'), '|') ELSE v END""",
)


class _Rule(NamedTuple):
    """A reason to drop a row, and when."""

    when: str
    reason: str


def judge(
    engine: Engine, table: Table, choice: Choice, condition: Condition | None, *, latest_s: float
) -> None:
    """Fill the table `judged`.

    Parameters
    ----------
    latest_s
        A time after this lies in the future.

    Raises
    ------
    CannotPrepare
        When the condition cannot be a condition on these columns.
    """
    for macro in _MACROS:
        engine.run(f"CREATE TEMP MACRO {macro}")
    used = {source for source in choice.fields.values() if isinstance(source, int)}
    rows = table.rows(sorted(used | set(condition.columns if condition else ())))
    if condition:
        rows = _decided(engine, table, rows, condition, choice)
    texts, numbers, values, results, kinds = [], [], [], [], []
    rules: list[_Rule] = []
    for n, (name, source) in enumerate(choice.fields.items()):
        texts.append(f"present(c{source})" if isinstance(source, int) else literal(source))
        numbers.append(f"number(t{n})" if name in TIMES | VALUES else "NULL")
        values.append(_value(name, n, is_json=table.is_json))
        results.append(f"whole_seconds(v{n})" if name in TIMES else f"v{n}")
        kinds += [f"time_kind(t{n}, m{n})"] if name in TIMES else []
        rules += _rules(name, n, latest_s=latest_s, is_json=table.is_json)
    if condition:
        rules += [_Rule("matches IS NULL", UNDECIDED), _Rule("NOT matches", FILTERED)]
    verdict = " ".join(f"WHEN {rule.when} THEN {literal(rule.reason)}" for rule in rules)
    # In steps: the engine would work a number out anew wherever it stands in a CASE.
    engine.run(
        f"""
        CREATE TABLE judged AS
        SELECT place, CASE WHEN bad IS NOT NULL THEN bad {verdict} END AS verdict,
          {kinds[0] if kinds else "NULL"} AS kind, {_numbered(results, "f")}
        FROM (SELECT *, {_numbered(values, "v")}
          FROM (SELECT *, {_numbered(numbers, "m")}
            FROM (SELECT *, {_numbered(texts, "t")} FROM ({rows}))))
        """,
        doing="checking",
    )


def supersede(engine: Engine) -> None:
    """Of good rows with the same id, keep the last: an import would, too."""
    engine.run(
        "CREATE TABLE latest AS SELECT f0, max(place) AS place FROM judged WHERE verdict IS NULL"
        " GROUP BY f0",
        doing="checking",
    )
    engine.run(
        f"UPDATE judged SET verdict = '{SUPERSEDED}' FROM latest"
        " WHERE judged.f0 = latest.f0 AND judged.place < latest.place AND judged.verdict IS NULL",
        doing="checking",
    )


def _decided(engine: Engine, table: Table, rows: str, condition: Condition, choice: Choice) -> str:
    """The rows with a column `matches`, for which the condition sees its own columns only."""
    plain = {n for name, n in choice.fields.items() if name in IDS | {"EVENT_TYPE"}}
    numeric = _numeric(engine, rows, [n for n in condition.columns if n not in plain])
    typed = ", ".join(
        f"{'number' if n in numeric else 'present'}(c{n}) AS {identifier(table.columns[n])}"
        for n in condition.columns
    )
    used = sorted({n for n in choice.fields.values() if isinstance(n, int)})
    ours = [f"{each} AS {identifier(_OURS + each)}" for each in ("place", "bad", *_named(used))]
    back = [f"{identifier(_OURS + each)} AS {each}" for each in ("place", "bad", *_named(used))]
    seen = f"SELECT {', '.join(ours)}{', ' if typed else ''}{typed} FROM ({rows})"
    try:
        [described] = engine.run(f"DESCRIBE SELECT ({condition.text}\n) FROM ({seen})")
    except duckdb.Error as error:
        raise CannotPrepare(f"--where: {str(error).splitlines()[0]}") from error
    kind = str(described[1])
    if kind != "BOOLEAN":
        raise CannotPrepare(f"--where: {condition.text!r} is no condition, but a {kind}")
    return f"SELECT {', '.join(back)}, TRY(({condition.text}\n)) AS matches FROM ({seen})"


def _named(columns: list[int]) -> Iterator[str]:
    return (f"c{n}" for n in columns)


def _numeric(engine: Engine, rows: str, columns: list[int]) -> set[int]:
    """Those of the columns most of whose values are numbers."""
    if not columns:
        return set()
    counts = ", ".join(f"count(number(c{n})) * 2 > count(present(c{n}))" for n in columns)
    [found] = engine.run(f"SELECT {counts} FROM ({rows})", doing="looking at columns")
    return {n for n, is_numeric in zip(columns, found, strict=True) if is_numeric}


def _numbered(expressions: list[str], letter: str) -> str:
    return ", ".join(f"{each} AS {letter}{n}" for n, each in enumerate(expressions))


def _value(name: str, n: int, *, is_json: bool) -> str:
    """A field as SQL, of its text `t<n>` and number `m<n>`; NULL where it cannot be had."""
    if name in IDS:
        return f"t{n}"
    if name in TIMES:
        return f"seconds(t{n}, m{n})"
    if name in VALUES:
        return f"coalesce(m{n}, truth(t{n}))"
    return f"one_line({f'listed(t{n})' if is_json else f't{n}'})"


def _rules(name: str, n: int, *, latest_s: float, is_json: bool) -> Iterator[_Rule]:
    """What may be wrong with a field, given its text `t<n>` and value `v<n>`."""
    if name in NEEDED:
        yield _Rule(f"{'t' if name in TIMES else 'v'}{n} IS NULL", f"{name}: empty")
    if name in IDS:
        if is_json:
            when = f"starts_with(t{n}, '{{') OR starts_with(t{n}, '[')"
            yield _Rule(when, f"{name}: neither text nor a number")
        yield _Rule(rf"regexp_matches(t{n}, '[\x00-\x1f\x7f]')", f"{name}: control characters")
    if name in MAX_CHARS:
        reason = f"{name}: more than {MAX_CHARS[name]} characters"
        yield _Rule(f"length(v{n}) > {MAX_CHARS[name]}", reason)
    if name in TIMES:
        yield _Rule(f"t{n} IS NOT NULL AND v{n} IS NULL", f"{name}: not a time")
        yield _Rule(f"v{n} < {EARLIEST_S}", f"{name}: before 1990")
        yield _Rule(f"v{n} > {latest_s}", f"{name}: in the future")
    if name in VALUES:
        yield _Rule(f"t{n} IS NOT NULL AND v{n} IS NULL", f"{name}: not a number")


def reasons(engine: Engine, n_first: int) -> Mapping[str, tuple[int, list[int]]]:
    """How many rows have each verdict, and the first of them, the most frequent first."""
    found = engine.run(
        f"""
        SELECT verdict, count(*), min(place, {n_first}) FROM judged WHERE verdict IS NOT NULL
        GROUP BY verdict ORDER BY count(*) DESC, verdict
        """,
        doing="counting",
    )
    return {str(verdict): (int(n), list(first)) for verdict, n, first in found}
