"""Data of any origin as Amazon Personalize imports it, checked before anything is uploaded.

Reads every format of `streams.reading`, local or in S3, of any size; writes the CSV of a
dataset, its Avro schema, and the users for batch inference as JSON Lines. The same input gives the
same bytes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from models.settings import Settings
from streams.object_store import Objects, join
from streams.preparation.avro_schema import Field, as_json, fields_of
from streams.preparation.database import PreparationDatabase, ReportProgress, identifier, literal
from streams.preparation.report import Report, build_report
from streams.preparation.row_checks import supersede, validate_rows
from streams.preparation.staging import stage, with_all_columns
from streams.preparation.where_clause import parse
from streams.reading.column_mapping import ColumnMapping, DatasetKind
from streams.reading.read_options import ReadOptions
from streams.reading.recognition import recognise


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes
    ----------
    read_options
        How the source is to be read, and which column is which field.
    where
        Only rows for which this expression over the columns is true; empty: all.
    is_strict
        Whether too few interactions are a problem, and not only worth a note.
    scales_values
        Whether EVENT_VALUE is moved to 0 to 1, the least being 0 and the greatest 1.
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
    options: Options,
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
        The folder: s3://bucket/prefix, or a path. `None`: only check.
    now_s
        The present; a time after this by more than the future limit is a bad one.

    Raises
    ------
    CannotPrepare
        When an option does not fit the data, or memory or disk do not suffice.
    UnreadableRecording
        When the source is in no known format, or damaged.
    ObjectNotFound, ObjectRefused, Unavailable
        When the source cannot be read or the target not be written.
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
            # From here on, what the user wrote is part of what the engine runs.
            database.lock(output)
            validate_rows(database, found.columns, mapping, condition)
            if options.kind != "interactions":
                supersede(database)
            report = build_report(database, found, mapping, is_strict=options.is_strict)
            if target is None or report.problems:
                return report
            files = _write(database, output, mapping, options)
        for n, file in enumerate(files):
            progress("writing", n / len(files))
            objects.upload(file, join(target, file.name))
    return msgspec.structs.replace(report, written=[join(target, file.name) for file in files])


def _write(
    database: PreparationDatabase, output: Path, mapping: ColumnMapping, options: Options
) -> list[Path]:
    """The dataset's files in a folder of this machine, the one that others explain last."""
    fields = fields_of(database, options.kind, mapping)
    schema = output / f"{options.kind}.schema.json"
    schema.write_text(as_json(options.kind, fields))
    files = [schema]
    if "USER_ID" in mapping.fields:
        files.append(output / "batch-users.jsonl")
        users = 'SELECT id AS "userId" FROM owners ORDER BY id'
        database.run(f"COPY ({users}) TO {literal(str(files[-1]))} (FORMAT json)", doing="writing")
    files.append(output / f"{options.kind}.csv")
    scale = _scale(database, mapping) if options.scales_values else ""
    values = ", ".join(f"{_value(n, field, scale)} AS {identifier(field.name)}"
                       for n, field in enumerate(fields))  # fmt: skip
    database.run(
        f"COPY (SELECT {values} FROM judged WHERE verdict IS NULL) TO {literal(str(files[-1]))}"
        " (FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '')",
        doing="writing",
    )
    return files


def _value(n: int, field: Field, scale: str) -> str:
    if field.name == "EVENT_VALUE" and scale:
        return scale
    return f"lower(trim(f{n}))" if field.type == "boolean" else f"f{n}"


def _scale(database: PreparationDatabase, mapping: ColumnMapping) -> str:
    """EVENT_VALUE between its least and its greatest as SQL; empty where there is no difference."""
    if "EVENT_VALUE" not in mapping.fields:
        return ""
    value = f"f{list(mapping.fields).index('EVENT_VALUE')}"
    [(least, greatest)] = database.run(
        f"SELECT min({value}), max({value}) FROM judged WHERE verdict IS NULL"
    )
    if least is None or least == greatest:
        return ""
    return f"round(({value} - {least!r}) / ({greatest!r} - {least!r}), 6)"
