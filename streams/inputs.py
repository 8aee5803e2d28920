"""What `prepare` reads: files of many formats, staged in the engine as one table.

A row of a text format is a line: Amazon Personalize takes no record of several lines either, and so
one bad row never touches the next.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import duckdb

from models.errors import UnreadableRecording
from streams.documents import list_at
from streams.engine import Engine, Progress, identifier, literal
from streams.formats import MAX_COLUMNS, Format, Names, check, guess, header, numbered
from streams.objects import Object, Objects
from streams.tables import ROWS_A_FILE, Table
from streams.texts import MAX_LINE_CHARS, SEPARATOR, is_parquet, pieces, write_json, write_lines

MAX_FILES = 10_000
MAX_RECORD_BYTES = 8 * 1024 * 1024
"""A record of a JSON list may not be longer: the engine holds several at once."""

MAX_LINE_BYTES = 8 * 1024 * 1024
"""More than the longest staged line has."""

STAGED = "staging"
"""What the engine finds a file under: in other names it would look for wildcards."""

TOO_LONG = f"line of more than {MAX_LINE_CHARS} characters"
NOT_TEXT = "not UTF-8 text"
NOT_JSON = "not JSON"
NOT_A_RECORD = "not a JSON object"

# No line has the separator, and nothing is quoted: what is read are the lines as they are.
_LINES = f"""
SELECT n, line FROM (
  SELECT row_number() OVER () AS n, line
  FROM read_csv(?, auto_detect = false, columns = {{'line': 'VARCHAR'}}, compression = 'none',
    delim = chr({ord(SEPARATOR)}), quote = '', escape = '', comment = '', header = false,
    new_line = '\\n', strict_mode = false, max_line_size = {MAX_LINE_BYTES},
    buffer_size = {2 * MAX_LINE_BYTES}))
WHERE regexp_matches(line, '\\S')
"""
_RECORDS = f"""
SELECT row_number() OVER () AS n, json::VARCHAR AS line
FROM read_json_objects(?, format = 'array', compression = 'none',
  maximum_object_size = {MAX_RECORD_BYTES})
"""


class Wanted(NamedTuple):
    """How an input is to be read.

    Attributes
    ----------
    format
        `None`: guessed from name and content.
    records
        The keys that lead to the list of records, in JSON.
    names
        For the columns of an input that names none.
    paths
        Columns inside JSON: keys joined by dots.
    """

    format: Format | None = None
    records: Sequence[str] = ()
    names: Names = numbered
    paths: Sequence[str] = ()


class _Shape(NamedTuple):
    """What all files of an input have in common; nothing before the first."""

    format: Format = "csv"
    columns: tuple[str, ...] = ()


def stage(engine: Engine, objects: Objects, url: str, wanted: Wanted, progress: Progress) -> Table:
    """Read an object, or all objects of a folder as one table, into the engine.

    Raises
    ------
    UnreadableRecording
        When the format is not known, or a file is damaged or has other columns than the first.
    """
    files = _chosen(objects.find(url), url)
    total, done = sum(file.size for file in files), 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n
        progress("reading", min(1.0, done / total))

    staging = _Staging(engine, objects, wanted, on_bytes)
    for file in files:
        with _named(file.url, engine):
            staging.add(file.url)
    table = Table(tuple(file.url for file in files), *staging.shape)
    with _named(url, engine):
        return _with_keys(engine, table, wanted.paths) if table.is_json else table


@contextlib.contextmanager
def _named(url: str, engine: Engine) -> Iterator[None]:
    """Errors with the URL of the file, and without the name it is staged under."""
    try:
        yield
    except UnreadableRecording as error:
        raise UnreadableRecording(f"{url}: {error}") from error
    except duckdb.Error as error:
        staged = re.escape(str(engine.folder / STAGED))
        text = re.sub(rf""" ?(in file )?["']?{staged}["']?""", "", str(error).splitlines()[0])
        raise UnreadableRecording(f"{url}: {text}") from error


def _chosen(found: Iterator[Object], url: str) -> list[Object]:
    """The files to read; in a folder, not the notes that other tools leave beside their data."""
    files: list[Object] = []
    for file in found:
        if file.size and (file.url == url or file.url.rsplit("/", 1)[-1][0] not in "._"):
            files.append(file)
        if len(files) > MAX_FILES:
            raise UnreadableRecording(f"{url}: more than {MAX_FILES} files")
    if not files:
        raise UnreadableRecording(f"{url}: nothing in it")
    return files


class _Staging:
    """Puts file after file into the table `staged`."""

    def __init__(
        self, engine: Engine, objects: Objects, wanted: Wanted, on_bytes: Callable[[int], None]
    ) -> None:
        self.shape = _Shape()
        self._engine = engine
        self._objects = objects
        self._wanted = wanted
        self._on_bytes = on_bytes
        self._n_files = 0
        self._file = engine.folder / STAGED

    def add(self, url: str) -> None:
        """Stage one more file."""
        format_ = self.shape.format if self._n_files else self._wanted.format
        try:
            with self._objects.open(url) as stream:
                is_columnar = is_parquet(stream)
            if format_ == "parquet" or (format_ is None and is_columnar):
                with self._objects.as_file(url, self._engine.folder) as path:
                    self._file.symlink_to(path.resolve())
                    self._add_parquet()
            else:
                with self._objects.open(url) as stream:
                    texts = pieces(stream, self._on_bytes)
                    head = next(texts)
                    format_ = format_ or guess(url, head)
                    (self._add_json if format_ == "json" else self._add_lines)(
                        format_, head, chain([head], texts)
                    )
        finally:
            self._file.unlink(missing_ok=True)
        self._n_files += 1

    def _add_lines(self, format_: Format, head: str, texts: Iterator[str]) -> None:
        shape, n_header = _Shape(format_, ()), 0
        if format_ != "jsonl":
            columns, has_header = header(head, format_, self._wanted.names)
            shape, n_header = _Shape(format_, columns), int(has_header)
        with self._file.open("wb") as target:
            write_lines(texts, target)
        is_json = format_ == "jsonl"
        invalid = f"WHEN NOT json_valid(line) THEN '{NOT_JSON}'" if is_json else ""
        rows = f"""
        SELECT n, line, CASE WHEN length(line) > {MAX_LINE_CHARS} THEN '{TOO_LONG}'
          WHEN contains(line, chr(0)) THEN '{NOT_TEXT}' {invalid} END AS bad
        FROM ({_LINES}) WHERE n > {n_header}
        """
        self._put(shape, _objects(rows, self._wanted.records) if is_json else rows)

    def _add_json(self, format_: Format, head: str, texts: Iterator[str]) -> None:
        keys = self._wanted.records
        is_document = not head.lstrip().startswith("[")
        if is_document and not keys:
            raise UnreadableRecording(
                "no list of records: name the list inside it with --records, as in data.rows"
            )
        with self._file.open("wb") as target:
            write_json(list_at(texts, keys) if is_document else texts, target)
        rows = f"""
        SELECT n, line, CASE WHEN contains(line, '\\u0000') THEN '{NOT_TEXT}' END AS bad
        FROM ({_RECORDS})
        """
        self._put(_Shape(format_, ()), _objects(rows, () if is_document else keys))

    def _add_parquet(self) -> None:
        source = "read_parquet(?, binary_as_string = true)"
        described = self._engine.run(f"DESCRIBE SELECT * FROM {source}", [str(self._file)])
        shape = _Shape("parquet", tuple(str(column[0]) for column in described))
        check(shape.columns)
        texts = ", ".join(
            f"{_as_text(identifier(column), str(kind))} AS c{n}"
            for n, (column, kind, *_) in enumerate(described)
        )
        self._put(shape, f"SELECT row_number() OVER () AS n, NULL::VARCHAR AS bad, {texts}"
                         f" FROM {source}", is_text=False)  # fmt: skip

    def _put(self, shape: _Shape, rows: str, *, is_text: bool = True) -> None:
        """Append what a query for `n`, `bad` and the rest of a row gives."""
        if self._n_files and shape != self.shape:
            raise UnreadableRecording(
                f"{shape.format} with the columns {', '.join(shape.columns)}, unlike the first"
                " file: prepare them one by one"
            )
        verb = "INSERT INTO staged" if self._n_files else "CREATE TABLE staged AS"
        rest = "CASE WHEN bad IS NULL THEN line END AS line" if is_text else "* EXCLUDE (n, bad)"
        self._engine.run(
            f"{verb} SELECT {self._n_files * ROWS_A_FILE} + n AS place, bad, {rest} FROM ({rows})",
            [str(self._file)],
            doing="staging",
        )
        self.shape = shape


def _objects(rows: str, keys: Sequence[str]) -> str:
    """Rows of JSON, those that are no object marked; with keys, of the lists inside them."""
    if keys:
        path = literal(_pointer(keys))
        missing = literal(f"no list at {'.'.join(keys)}")
        rows = f"""
        SELECT n, bad, unnest(CASE WHEN bad IS NULL
          THEN json_extract(json_extract(line, {path}), '$[*]')::VARCHAR[] ELSE [line] END) AS line
        FROM (SELECT n, line, CASE WHEN bad IS NOT NULL THEN bad
          WHEN json_type(line, {path}) IS DISTINCT FROM 'ARRAY' THEN {missing} END AS bad
          FROM ({rows}))
        """
    return f"""
    SELECT n, line, CASE WHEN bad IS NOT NULL THEN bad
      WHEN json_type(line) <> 'OBJECT' THEN '{NOT_A_RECORD}' END AS bad
    FROM ({rows})
    """


def _with_keys(engine: Engine, table: Table, paths: Sequence[str]) -> Table:
    """The table with the keys of all its records as columns, in the order of their appearance."""
    found = engine.run(
        f"""
        SELECT key FROM (
          SELECT place, unnest(keys) AS key, generate_subscripts(keys, 1) AS nth
          FROM (SELECT place, json_keys(line) AS keys FROM staged WHERE bad IS NULL))
        GROUP BY key ORDER BY min((place, nth)) LIMIT {MAX_COLUMNS + 1}
        """,
        doing="looking for columns",
    )
    keys = [str(key) for (key,) in found]
    check(keys)
    inside = [path for path in dict.fromkeys(paths) if path not in keys and "." in path]
    return replace(
        table,
        columns=(*keys, *inside),
        pointers=(*(_pointer([key]) for key in keys), *(_pointer(p.split(".")) for p in inside)),
    )


def _pointer(keys: Sequence[str]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def _as_text(column: str, kind: str) -> str:
    """A column of Parquet as text: lists as `a|b`, whole numbers without a fraction."""
    if kind.endswith("[]"):
        return f"array_to_string({column}, '|')"
    if kind.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({column})::VARCHAR"
    if kind in {"FLOAT", "DOUBLE"}:
        return f"""
        CASE WHEN isnan({column}) THEN NULL WHEN {column} = trunc({column}) AND abs({column}) < 1e15
        THEN {column}::BIGINT::VARCHAR ELSE {column}::VARCHAR END"""
    return f"{column}::VARCHAR"
