"""Preparation of files for import by Amazon Personalize, checked before anything is uploaded.

Reads every format of `streams.reading`, local or in S3, of any size; writes the CSV of a dataset,
its Avro schema, and the users for batch inference as JSON Lines. The same input gives the same
bytes.

1. `staging` writes the checked rows into the table `staged`.
2. `row_checks` makes it the table `checked`: rows that `--where` excludes and superseded rows get a
   reason, too.
3. `report` counts and checks the rules of an import.
4. `avro_schema` finds types, and the files are written.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from models.settings import Settings
from streams.object_store import Objects, join
from streams.preparation.avro_schema import SchemaField, as_json, fields_of
from streams.preparation.database import PreparationDatabase, ReportProgress, identifier, literal
from streams.preparation.report import Report, build_report
from streams.preparation.row_checks import apply_where, drop_superseded
from streams.preparation.staging import stage
from streams.preparation.where_clause import parse
from streams.reading.column_mapping import ColumnMapping, DatasetKind
from streams.reading.read_options import ReadOptions
from streams.reading.reader import with_all_columns
from streams.reading.recognition import recognise


@dataclass(frozen=True)
class PrepareOptions:
    """Options of a preparation.

    Attributes
    ----------
    read_options
        Options of reading the source, with its mapping of columns to fields.
    where
        Condition on the columns for the rows to keep; "": all.
    is_strict
        True if too few interactions are a problem, False for a note.
    scales_values
        True to scale EVENT_VALUE linearly from its range to 0 to 1.
    """

    kind: DatasetKind = "interactions"
    read_options: ReadOptions = field(default_factory=ReadOptions)
    where: str = ""
    is_strict: bool = True
    scales_values: bool = False


def prepare(
    source: str,
    target: str | None,
    settings: Settings,
    options: PrepareOptions,
    *,
    now_s: float,
    progress: ReportProgress = lambda _doing, _share: None,
) -> Report:
    """Read a source, check it, and write the files of a dataset into a folder.

    Parameters
    ----------
    source
        An object or a folder of objects: s3://bucket/key, or a path.
    target
        The folder: s3://bucket/prefix, or a path. None: only check.
    now_s
        Present time, s; times later than it by more than the future limit are bad.

    Raises
    ------
    CannotPrepare
        An option does not fit the data, or memory or disk do not suffice.
    UnreadableRecording
        The source has an unknown format, or is damaged.
    ObjectNotFound, ObjectRefused, Unavailable
        The source cannot be read, or the target cannot be written.
    """
    objects = Objects(settings.buckets_dir)
    with tempfile.TemporaryDirectory(prefix="recommender-prepare-") as name:
        folder, output = Path(name), Path(name, "output")
        output.mkdir()
        with PreparationDatabase(
            folder, memory_mb=settings.prepare_memory_mb, progress=progress
        ) as database:
            found = recognise(objects, source, options.read_options, options.kind, folder=folder)
            found = with_all_columns(
                objects, found, has_condition=bool(options.where), folder=folder
            )
            mapping = found.map_columns()
            condition = parse(database, options.where, found.columns) if options.where else None
            latest_s = now_s + settings.future_limit_s
            stage(
                database, objects, found, mapping, condition, latest_s=latest_s, progress=progress
            )
            # From here on, statements contain text of the user.
            database.lock(output)
            apply_where(database, found.columns, mapping, condition)
            if options.kind != "interactions":
                drop_superseded(database, options.kind)
            report = build_report(database, found, mapping, is_strict=options.is_strict)
            if target is None or report.problems:
                return report
            files = _write(database, output, mapping, options)
        for n, file in enumerate(files):
            progress("writing", n / len(files))
            objects.upload(file, join(target, file.name))
    return msgspec.structs.replace(report, written=[join(target, file.name) for file in files])


def _write(
    database: PreparationDatabase, output: Path, mapping: ColumnMapping, options: PrepareOptions
) -> list[Path]:
    """The dataset's files in a local folder, the dataset itself last."""
    fields = fields_of(database, options.kind, mapping)
    schema = output / f"{options.kind}.schema.json"
    schema.write_text(as_json(options.kind, fields))
    files = [schema]
    if "USER_ID" in mapping.fields:
        files.append(output / "batch-users.jsonl")
        users = 'SELECT id AS "userId" FROM user_counts ORDER BY id'
        database.run(f"COPY ({users}) TO {literal(str(files[-1]))} (FORMAT json)", doing="writing")
    files.append(output / f"{options.kind}.csv")
    scale = _scale(database, mapping) if options.scales_values else ""
    values = ", ".join(f"{_value(field, scale)} AS {identifier(field.name)}" for field in fields)
    database.run(
        f"COPY (SELECT {values} FROM checked WHERE _reason IS NULL) TO {literal(str(files[-1]))}"
        " (FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '')",
        doing="writing",
    )
    return files


def _value(field: SchemaField, scale: str) -> str:
    """SQL of a field's value in the output."""
    if field.name == "EVENT_VALUE" and scale:
        return scale
    column = identifier(field.name)
    return f"lower(trim({column}))" if field.type == "boolean" else column


def _scale(database: PreparationDatabase, mapping: ColumnMapping) -> str:
    """SQL of EVENT_VALUE scaled to its range; "" if all values are equal."""
    if "EVENT_VALUE" not in mapping.fields:
        return ""
    [(least, greatest)] = database.run(
        "SELECT min(EVENT_VALUE), max(EVENT_VALUE) FROM checked WHERE _reason IS NULL"
    )
    if least is None or least == greatest:
        return ""
    return f"round((EVENT_VALUE - {least!r}) / ({greatest!r} - {least!r}), 6)"
