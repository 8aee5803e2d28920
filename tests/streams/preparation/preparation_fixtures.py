"""A small preparation and its result, for the tests of `prepare`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

from models.settings import Settings
from streams.preparation.prepare import PrepareOptions, prepare
from streams.preparation.report import Report
from streams.reading.column_mapping import ColumnOptions
from streams.reading.read_options import ReadOptions

_READING = {field.name for field in dataclasses.fields(ReadOptions)} - {"told"}

NOW_S = 1_700_000_000.0

EVENTS = [
    {"USER_ID": "u1", "ITEM_ID": "i1", "TIMESTAMP": "1600000000"},
    {"USER_ID": "u2", "ITEM_ID": "i,2", "TIMESTAMP": "1600000001"},
    {"USER_ID": "ü3", "ITEM_ID": "i3", "TIMESTAMP": "1600000002"},
]
CSV = 'user,item,ts\nu1,i1,1600000000\nu2,"i,2",1600000001\nü3,i3,1600000002\n'
LIST = json.dumps(
    [
        {"user": "u1", "item": "i1", "ts": 1600000000},
        {"user": "u2", "item": "i,2", "ts": 1600000001},
        {"user": "ü3", "item": "i3", "ts": 1600000002},
    ],
    indent=2,
)
ONE_LINE = json.dumps(json.loads(LIST))
LINES = "".join(f"{json.dumps(record)}\n" for record in json.loads(LIST))


class Prepared:
    """The report of a preparation, and the content of its files."""

    def __init__(self, report: Report, folder: Path) -> None:
        self.report = report
        self.folder = folder

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of the CSV by field."""
        text = (self.folder / f"{self.report.dataset}.csv").read_text()
        return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))

    @property
    def schema(self) -> dict[str, Any]:
        """The fields of the schema by name, without their names."""
        path = self.folder / f"{self.report.dataset}.schema.json"
        fields = json.loads(path.read_text())["fields"]
        return {field.pop("name"): field for field in fields}

    @property
    def dropped(self) -> dict[str, list[str]]:
        """Places of dropped rows by reason."""
        return {each.reason: each.first for each in self.report.dropped}


class Preparing:
    """Prepares text, bytes or a path inside a folder, with minimums relaxed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self, source: str | bytes | Path, name: str = "input.csv", **options: Any
    ) -> Prepared:
        """Prepare it, with options of `PrepareOptions`, `ReadOptions` and `ColumnOptions`."""
        if not isinstance(source, Path):
            path = self._folder / name
            path.write_bytes(source.encode() if isinstance(source, str) else source)
            source = path
        column_options = ColumnOptions(
            **{key: options.pop(key) for key in ColumnOptions._fields if key in options}
        )
        reading = {key: options.pop(key) for key in _READING if key in options}
        wanted = PrepareOptions(
            read_options=ReadOptions(column_options=column_options, **reading),
            is_strict=False,
            **options,
        )
        target = self._folder / "output"
        report = prepare(str(source), str(target), Settings(), wanted, now_s=NOW_S)
        return Prepared(report, target)
