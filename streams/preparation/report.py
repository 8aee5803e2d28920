"""The report of a preparation: counts, rules of an import, and its text for users."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from streams.preparation.database import PreparationDatabase, identifier
from streams.preparation.row_checks import FILTERED, dropped_by_reason
from streams.reading.column_mapping import ColumnMapping, DatasetKind
from streams.reading.recognition import RecognisedSource

MIN_INTERACTIONS = 1000
MIN_RETURNING_USERS = 25
"""Least numbers for training: interactions, and users with at least two."""

MAX_TYPES_AND_OPTIONAL = 10
"""Most types of events and optional columns together."""

N_FIRST, N_SHOWN = 20, 5
"""Rows of each reason in the report, and in its text."""

_NOT_OPTIONAL = frozenset({"USER_ID", "ITEM_ID", "TIMESTAMP", "IMPRESSION", "RECOMMENDATION_ID"})


class DroppedRows(msgspec.Struct, frozen=True):
    """Rows dropped for one reason, with the labels of the first."""

    reason: str
    rows: int
    first: list[str]


class ColumnOutcome(msgspec.Struct, frozen=True):
    """A column with its field, None for a dropped one, and the reason."""

    column: str
    field: str | None
    why: str


class Totals(msgspec.Struct, frozen=True):
    """Counts of the kept rows; times in seconds, None without any.

    `returning_users` have at least two rows.
    """

    rows: int
    users: int
    returning_users: int
    items: int
    event_types: int
    first_s: int | None
    last_s: int | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a preparation.

    Attributes
    ----------
    recognised
        The recognised format with its evidence, encoding, separator and the like.
    filtered
        Good rows that the condition excludes; not in `dropped`.
    constants
        Fields with the same text in every row.
    times
        Numbers of kept rows by the notation of their time.
    problems
        Rules of an import that the kept rows break as a whole; with any, nothing is written.
    notes
        Broken rules that were relaxed.
    written
        URLs of the written files.
    """

    source: str
    dataset: DatasetKind
    recognised: list[str]
    format: str
    files: int
    rows: int
    filtered: int
    dropped: list[DroppedRows]
    columns: list[ColumnOutcome]
    constants: dict[str, str]
    times: dict[str, int]
    kept: Totals
    problems: list[str]
    notes: list[str]
    written: list[str] = []


def build_report(
    database: PreparationDatabase,
    source: RecognisedSource,
    mapping: ColumnMapping,
    *,
    is_strict: bool,
) -> Report:
    """The report on the table `checked`, before anything is written.

    Also creates the table `user_counts`: each user of the kept rows (`id`), with its rows (`n`).
    """
    by_reason = dict(dropped_by_reason(database, N_FIRST))
    filtered, _ = by_reason.pop(FILTERED, (0, []))
    kept = _totals(database, mapping)
    broken = _broken(kept, mapping) if source.kind == "interactions" else []
    dropped = [
        DroppedRows(reason, n, [source.row_label(place) for place in first])
        for reason, (n, first) in by_reason.items()
    ]
    times = database.run(
        "SELECT _notation, count(*) FROM checked"
        " WHERE _reason IS NULL AND _notation IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    return Report(
        source=source.location,
        dataset=source.kind,
        recognised=list(source.notes),
        format=source.name,
        files=len(source.files),
        rows=kept.rows + filtered + sum(each.rows for each in dropped),
        filtered=filtered,
        dropped=dropped,
        columns=[ColumnOutcome(*use) for use in mapping.assignments],
        constants={name: text for name, text in mapping.fields.items() if isinstance(text, str)},
        times=dict(times),
        kept=kept,
        problems=([] if kept.rows else ["no row is left"]) + (broken if is_strict else []),
        notes=[] if is_strict else broken,
    )


def _totals(database: PreparationDatabase, mapping: ColumnMapping) -> Totals:
    def field(name: str) -> str:
        return identifier(name) if name in mapping.fields else "NULL"

    database.run(
        f"CREATE TABLE user_counts AS SELECT {field('USER_ID')} AS id, count(*) AS n FROM checked"
        " WHERE _reason IS NULL GROUP BY 1",
        doing="counting",
    )
    [(users, returning)] = database.run(
        "SELECT count(id), count(id) FILTER (n >= 2) FROM user_counts"
    )
    [(rows, *others)] = database.run(
        f"""
        SELECT count(*), count(DISTINCT {field("ITEM_ID")}), count(DISTINCT {field("EVENT_TYPE")}),
          min({field("TIMESTAMP")}), max({field("TIMESTAMP")})
        FROM checked WHERE _reason IS NULL
        """,
        doing="counting",
    )
    return Totals(rows, users, returning, *others)


def _broken(kept: Totals, mapping: ColumnMapping) -> list[str]:
    """Rules that a dataset of interactions breaks as a whole."""
    broken = []
    if kept.rows < MIN_INTERACTIONS:
        broken.append(f"{kept.rows} interactions, and {MIN_INTERACTIONS} are the least")
    if kept.returning_users < MIN_RETURNING_USERS:
        broken.append(
            f"{kept.returning_users} users with two or more interactions, and"
            f" {MIN_RETURNING_USERS} are the least"
        )
    n_optional = len(mapping.fields.keys() - _NOT_OPTIONAL)
    if kept.event_types + n_optional > MAX_TYPES_AND_OPTIONAL:
        broken.append(
            f"{kept.event_types} types of events and {n_optional} optional columns, and"
            f" {MAX_TYPES_AND_OPTIONAL} together are the most"
        )
    return broken


def as_text(report: Report) -> str:
    """The report as text."""
    files = f", {report.files} files" if report.files > 1 else ""
    lines = [f"{report.source}: {report.dataset} from {report.recognised[0]}{files}"]
    lines += [f"  {note}" for note in report.recognised[1:]]
    wide = max(len(each.column) for each in report.columns)
    lines += [
        f"  {each.column:<{wide}}  {f'-> {each.field} ({each.why})' if each.field else each.why}"
        for each in report.columns
    ]
    lines += [f"  {text!r} -> {field} in every row" for field, text in report.constants.items()]
    dropped = sum(each.rows for each in report.dropped)
    lines.append(
        f"{report.rows} rows read, {report.kept.rows} kept, {dropped} dropped"
        + (f", {report.filtered} {FILTERED}" if report.filtered else "")
    )
    lines += [
        f"  {each.rows:>10}  {each.reason}  ({', '.join(each.first[:N_SHOWN])}"
        f"{', …' if each.rows > N_SHOWN else ''})"
        for each in report.dropped
    ]
    lines.append(_kept(report))
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"wrote {url}" for url in report.written]
    return "\n".join(lines)


def _kept(report: Report) -> str:
    kept = report.kept
    counts: Mapping[str, object] = {
        "users": kept.users,
        "items": kept.items,
        "types of events": kept.event_types,
    }
    parts = [f"{n} {noun}" for noun, n in counts.items() if n]
    if kept.first_s is not None and kept.last_s is not None:
        days = [datetime.fromtimestamp(at, UTC).date().isoformat() for at in
                (kept.first_s, kept.last_s)]  # fmt: skip
        parts.append(f"{days[0]} to {days[1]}")
    parts += [f"{n} times in {notation}" for notation, n in report.times.items()]
    return f"kept: {', '.join(parts) or 'nothing'}"
