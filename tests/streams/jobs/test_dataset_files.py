"""Rows of datasets by their schema: bad ones are passed on with their place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from models.errors import InvalidInput, InvalidRecord, RecommenderError
from models.personalize.datasets.dataset_schemas import Column, Schema
from streams.jobs.dataset_files import DatasetRow, DatasetRows
from streams.object_store import Objects
from streams.reading.column_mapping import DatasetKind

NOW_S = 1_700_000_000.0
USERS = Schema((Column("USER_ID", frozenset({"string"})), Column("AGE", frozenset({"int"}))))
INTERACTIONS = Schema(
    (
        Column("USER_ID", frozenset({"string"})),
        Column("ITEM_ID", frozenset({"string"})),
        Column("TIMESTAMP", frozenset({"long"})),
        Column("DEVICE", frozenset({"null", "string"})),
    )
)


def read(where: str, schema: Schema = USERS, kind: DatasetKind = "users") -> list[DatasetRow]:
    """All rows of a place."""
    return list(DatasetRows(Objects(), where, schema, kind, latest_s=NOW_S).read())


def written(folder: Path, **files: bytes) -> str:
    """The place of a folder with these files in it."""
    for name, content in files.items():
        (folder / f"{name}.csv").write_bytes(content)
    return f"{folder}/"


def test_rows_of_all_objects_in_order(tmp_path: Path) -> None:
    """Each object has a header of its own; quotes, blank lines and a BOM are as in any CSV."""
    where = written(
        tmp_path, a=b'\xef\xbb\xbfAGE,USER_ID\r\n36,"a ""da"""\r\n\r\n', b=b"user_id,AGE\nbob,7"
    )
    rows = read(where)

    assert [row.values for row in rows] == [
        {"USER_ID": 'a "da"', "AGE": 36},
        {"USER_ID": "bob", "AGE": 7},
    ]
    assert [row.where for row in rows] == [f"{where}a.csv line 2", f"{where}b.csv line 2"]


def test_reading_continues_after_a_bad_row(tmp_path: Path) -> None:
    """Rows after it are read; bytes other than UTF-8 drop their own row only."""
    where = written(tmp_path, a=b'USER_ID,AGE\n\xff,1\n"b"x,2\nc,three\nd,4\n')
    rows = read(where)

    assert [str(row.values) for row in rows[:3]] == [
        "not UTF-8 text",
        "quotes that do not fit",
        "AGE: not of type int: 'three'",
    ]
    assert [row.where.rpartition(" ")[2] for row in rows] == ["2", "3", "4", "5"]


def test_an_unclosed_quote_costs_its_own_line(tmp_path: Path) -> None:
    """Two unclosed quotes, near or far, do not drop the lines between them."""
    lines = [f'u{n},i{n},{1_600_000_000 + n},"web"' for n in range(300)]
    lines[5] = 'u5,i5,1600000005,"19 inch'
    lines[198] = 'u198,i198,1600000198,19"'
    lines[199] = 'u199,i199,1600000199,"'
    text = "\n".join(["USER_ID,ITEM_ID,TIMESTAMP,DEVICE", *lines])
    rows = read(written(tmp_path, a=text.encode()), INTERACTIONS, "interactions")
    bad = {row.where.rpartition(" ")[2]: str(row.values) for row in rows
           if isinstance(row.values, InvalidRecord)}  # fmt: skip

    assert len(rows) == 300
    assert bad == {
        "7": "a quote that does not close",
        "200": "quotes that do not fit",
        "201": "a quote that does not close",
    }


def test_markers_and_subfolders_are_skipped(tmp_path: Path) -> None:
    """As in Amazon Personalize, the first level of a folder is read; all levels by a pattern."""
    where = written(tmp_path, a=b"USER_ID,AGE\na,1\n")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "_started_123").write_text("{}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.csv").write_text("USER_ID,AGE\nc,3\n")
    (tmp_path / "_temporary").mkdir()
    (tmp_path / "_temporary" / "d.csv").write_text("USER_ID,AGE\nd,4\n")
    rows = DatasetRows(Objects(), where, USERS, "users", latest_s=NOW_S)

    assert [row.values["USER_ID"] for row in rows.read()] == ["a"]  # type: ignore[index]
    assert "sub/c.csv" in "; ".join(rows.source.notes)
    everything = read(f"{where}**")
    assert [row.values["USER_ID"] for row in everything] == ["a", "c"]  # type: ignore[index]


def test_other_formats_are_imported_too(tmp_path: Path) -> None:
    """An import reads files like `prepare`: usual column names, JSON Lines, gzip."""
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"user": "u", "sku": 7, "ts": "2020-09-13T12:26:40Z"}).encode())
    )
    rows = read(str(tmp_path / "a.jsonl.gz"), INTERACTIONS, "interactions")

    assert [row.values for row in rows] == [
        {"USER_ID": "u", "ITEM_ID": "7", "TIMESTAMP": 1_600_000_000}
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "nothing in it"),
        (b"USER_ID\nada\n", r"missing the following columns:\[AGE\]"),
        (b"user_id,USER_ID,AGE\n", r"several columns for USER_ID:\[user_id, USER_ID\]"),
    ],
)
def test_a_file_without_the_columns_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    """It is refused as a whole."""
    with pytest.raises(RecommenderError, match=why):
        read(written(tmp_path, a=content))


def test_missing_columns_have_the_error_of_amazon_personalize(tmp_path: Path) -> None:
    """All columns that lack by their name are named, also those of which another is like it."""
    with pytest.raises(InvalidInput) as caught:
        read(written(tmp_path, a=b"user,item\nu,i\n"), INTERACTIONS, "interactions")
    assert str(caught.value) == (
        "Input CSV is missing the following columns:[USER_ID, ITEM_ID, TIMESTAMP, DEVICE]"
    )
