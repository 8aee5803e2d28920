"""Rows out of CSV objects: bad ones are passed on with their place, and memory stays bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import InvalidInput, InvalidRecord, ObjectNotFound
from models.schemas import Column, Schema
from streams.objects import Objects
from streams.rows import MAX_LINE_BYTES, read

USERS = Schema((Column("USER_ID", frozenset({"string"})), Column("AGE", frozenset({"int"}))))


def written(folder: Path, **files: bytes) -> str:
    """The place of a folder with these files in it."""
    for name, content in files.items():
        (folder / f"{name}.csv").write_bytes(content)
    return f"{folder}/"


def test_rows_of_all_objects_in_order(tmp_path: Path) -> None:
    """Each object has a header of its own; quotes, blank lines and a BOM are as in any CSV."""
    where = written(
        tmp_path, a=b'\xef\xbb\xbfAGE,USER_ID\r\n36,"a ""da"""\r\n\r\n', b=b"USER_ID,AGE\nbob,7"
    )
    rows = list(read(Objects(), where, USERS))

    assert [row.values for row in rows] == [
        {"USER_ID": 'a "da"', "AGE": 36},
        {"USER_ID": "bob", "AGE": 7},
    ]
    assert [row.line for row in rows] == [2, 2]


def test_a_bad_row_is_no_end(tmp_path: Path) -> None:
    """What comes after it is read; what is not UTF-8 spoils its own row only."""
    where = written(tmp_path, a=b'USER_ID,AGE\n\xff,1\n"b"x,2\nc,three\nd,4\n')
    rows = list(read(Objects(), where, USERS))

    assert [isinstance(row.values, InvalidRecord) for row in rows] == [True, True, True, False]
    assert [row.line for row in rows] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"USER_ID\nada\n", r"missing the following columns:\[AGE\]"),
        (b"USER_ID,AGE\n" + b"a" * (MAX_LINE_BYTES + 1) + b",1\n", "line 2 has more than"),
    ],
)
def test_an_object_that_is_no_dataset(tmp_path: Path, content: bytes, why: str) -> None:
    """It is refused as a whole."""
    with pytest.raises(InvalidInput, match=why):
        list(read(Objects(), written(tmp_path, a=content), USERS))


def test_nothing_there(tmp_path: Path) -> None:
    """An empty folder is an error."""
    with pytest.raises(ObjectNotFound):
        list(read(Objects(), f"{tmp_path}/", USERS))
