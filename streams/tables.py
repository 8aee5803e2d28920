"""The staged input of `prepare` as a table of text, whatever its format was.

The engine's table `staged` has a column `place`, which orders the rows and says where each stands,
and `bad`, which says why a row cannot be read, or is NULL; and the row: a `line`, or its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streams.engine import literal
from streams.formats import SEPARATORS, Format

ROWS_A_FILE = 2**40
"""`place` is the number of a file times this, plus the number of a line or record in it."""

QUOTES = "quotes that do not fit"


class Position(NamedTuple):
    """Where a row stands: a file, and the number of a line or record in it, the first being 1."""

    file: str
    number: int


@dataclass(frozen=True)
class Table:
    """A staged input.

    Attributes
    ----------
    files
        Their URLs, in the order they were read.
    columns
        Their names in the input; inside JSON, keys joined by dots.
    pointers
        Where each column is in a record of JSON; empty for other formats.
    """

    files: tuple[str, ...]
    format: Format
    columns: tuple[str, ...]
    pointers: tuple[str, ...] = ()

    @property
    def unit(self) -> Literal["line", "record"]:
        """What positions count."""
        return "record" if self.format in {"json", "parquet"} else "line"

    @property
    def is_json(self) -> bool:
        """Whether lists and objects may stand in columns, as JSON text."""
        return self.format in {"json", "jsonl"}

    def position(self, place: int) -> Position:
        """Where the row with this `place` stands."""
        file, number = divmod(place, ROWS_A_FILE)
        return Position(self.files[file], number)

    def rows(self, used: Sequence[int]) -> str:
        """A query for `place`, `bad`, and each used column n as text under the name `c<n>`."""
        if self.format == "parquet":
            return f"SELECT place, bad{''.join(f', c{n}' for n in used)} FROM staged"
        if self.is_json:
            keys = ", ".join(literal(self.pointers[n]) for n in used)
            fields, bad = f"json_extract_string(line, [{keys}]::VARCHAR[])", "bad"
            values = "".join(f", f[{place}] AS c{n}" for place, n in enumerate(used, 1))
        else:
            width = len(self.columns)
            fields = _fields(SEPARATORS[self.format], is_lenient=self.format != "csv")
            bad = f"""coalesce(bad, CASE WHEN f IS NULL THEN '{QUOTES}'
              WHEN len(f) <> {width} THEN 'not {width} columns' END)"""
            values = "".join(f", f[{n + 1}] AS c{n}" for n in used)
        return f"""
        SELECT place, {bad} AS bad{values}
        FROM (SELECT place, bad, CASE WHEN bad IS NULL THEN {fields} END AS f FROM staged)
        """


def _fields(separator: str, *, is_lenient: bool) -> str:
    """The fields of `line` as SQL, quoted as RFC 4180 says; NULL where quotes do not fit.

    With `is_lenient`, quotes that do not fit are text.
    """
    plain = f"string_split(line, {literal(separator)})"
    if len(separator) > 1:
        return plain
    field = f'"(?:[^"]|"")*"|[^"{separator}]*'
    whole = literal(f"(?:{field})(?:{separator}(?:{field}))*")
    each = literal(f"({field}){separator}")
    return f"""
    CASE WHEN NOT contains(line, '"') THEN {plain}
    WHEN regexp_full_match(line, {whole}) THEN list_transform(
      regexp_extract_all(line || {literal(separator)}, {each}, 1),
      lambda field: CASE WHEN starts_with(field, '"')
        THEN replace(substr(field, 2, length(field) - 2), '""', '"') ELSE field END)
    {f"ELSE {plain}" if is_lenient else ""} END
    """
