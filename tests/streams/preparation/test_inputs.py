"""Every format that `prepare` reads, and its errors for unreadable files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import duckdb
import pytest

from models.errors import ObjectNotFound, UnreadableRecording
from tests.streams.preparation.preparation_fixtures import (
    CSV,
    EVENTS,
    LINES,
    LIST,
    ONE_LINE,
    Preparing,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path: Path) -> Preparing:
    """Prepares small inputs."""
    return Preparing(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "format_"),
    [
        ("events.csv", CSV, "csv"),
        ("events.txt", CSV, "csv"),
        ("bom.csv", "\ufeff" + CSV, "csv"),
        ("windows.csv", CSV.replace("\n", "\r\n"), "csv"),
        ("mac.csv", CSV.replace("\n", "\r"), "csv"),
        ("no-end.csv", CSV.rstrip(), "csv"),
        ("events.tsv", CSV.replace('"i,2"', "i;2").replace(",", "\t").replace(";", ","), "tsv"),
        ("events.json", LIST, "json"),
        ("one-line.json", ONE_LINE, "json"),
        ("events.jsonl", LINES, "jsonl"),
        ("events.ndjson", LINES.replace("\n", "\r\n"), "jsonl"),
        ("lines.json", LINES, "jsonl"),
        ("ratings.dat", "u1::i1::5::1600000000\nu2::i,2::4::1600000001\nü3::i3::1::1600000002",
         "movielens-dat"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_events(
    run: Preparing, name: str, content: str, format_: str
) -> None:
    """Files of any name and notation give the same events."""
    # A known format also has the type of its events.
    rated = [{"EVENT_TYPE": "rating", "EVENT_VALUE": f"{5.0 - 4 * (n == 2) - (n == 1)}"}
             for n in range(3)]  # fmt: skip
    events = [{**one, **more} for one, more in zip(EVENTS, rated, strict=True)]
    expected = events if format_.startswith("movielens") else EVENTS
    assert run(content, name).rows == expected
    prepared = run(gzip.compress(content.encode()), f"{name}.gz")
    assert prepared.rows == expected
    assert prepared.report.format == format_
    assert run(content, "misleading.xyz", format=format_).rows == expected


def test_parquet_gives_the_same_events(run: Preparing, tmp_path: Path) -> None:
    """Numeric ids, typed times and lists of Parquet become text."""
    path = tmp_path / "events [1]*.parquet"
    with duckdb.connect() as database:
        database.execute(
            "COPY (SELECT * FROM (VALUES (1.0::DOUBLE, 12::BIGINT, TIMESTAMP '2020-09-13 12:26:40',"
            " ['a', 'b'], 0.5), (2.0, 13, TIMESTAMP '2020-09-13 12:26:41', NULL, NULL))"
            " AS t(user_id, item_id, \"time\", tags, price)) TO 'out.parquet' (FORMAT parquet)"
            .replace("out.parquet", str(tmp_path / "out.parquet"))
        ).fetchall()  # fmt: skip
    (tmp_path / "out.parquet").rename(path)
    prepared = run(path, keep=["tags", "price"])
    assert prepared.rows == [
        {"USER_ID": "1", "ITEM_ID": "12", "TIMESTAMP": "1600000000", "TAGS": "a|b", "PRICE": "0.5"},
        {"USER_ID": "2", "ITEM_ID": "13", "TIMESTAMP": "1600000001", "TAGS": "", "PRICE": ""},
    ]
    assert prepared.report.format == "parquet"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (f'{{"meta": {{"rows": 1}}, "data": {{"n": 3, "rows": {LIST}}}, "end": [1]}}', "a.json"),
        (f'{{"data": {{"rows": {ONE_LINE}}}}}\n{{"data": {{"rows": []}}}}\n', "a.jsonl"),
        (f'[{{"data": {{"rows": {LIST}}}}}]', "a.json"),
    ],
)  # fmt: skip
def test_records_inside_a_document_are_found(run: Preparing, content: str, name: str) -> None:
    """The list may lie inside a document, or inside each line or record."""
    assert run(content, name, records=["data", "rows"]).rows == EVENTS


def test_a_record_without_the_list_is_reported(run: Preparing) -> None:
    """A line that lacks the list is a bad one."""
    content = f'{{"data": {{"rows": {ONE_LINE}}}}}\n{{"data": 1}}\n'
    prepared = run(content, "a.jsonl", records=["data", "rows"])
    assert prepared.rows == EVENTS
    assert prepared.dropped == {"no list at data.rows": ["line 2"]}


def test_columns_inside_records_can_be_named(run: Preparing) -> None:
    """Keys joined by dots lead to a column inside a record."""
    record = {"who": {"id": "u1"}, "what": {"sku": "i1", "tags": ["a", 1]}, "at": 1600000000}
    fields = {"USER_ID": "who.id", "ITEM_ID": "what.sku", "TIMESTAMP": "at"}
    prepared = run(json.dumps([record]), "a.json", keep=["what.tags"], fields=fields)
    assert prepared.rows == [
        {"USER_ID": "u1", "ITEM_ID": "i1", "TIMESTAMP": "1600000000", "WHAT_TAGS": "a|1"}
    ]


def test_users_and_movielens_items_have_columns_without_a_header(run: Preparing) -> None:
    """The files of MovieLens are known by their number of columns."""
    users = run("1::F::1::10::48067\n2::M::56::16::70072\n", "users.dat", kind="users")
    assert users.rows[0] == {
        "USER_ID": "1", "GENDER": "F", "AGE": "1", "OCCUPATION": "10", "ZIP_CODE": "48067",
    }  # fmt: skip
    assert (users.folder / "batch-users.jsonl").read_text() == '{"userId":"1"}\n{"userId":"2"}\n'
    items = run("1::Toy Story (1995)::Animation|Comedy\n", "movies.dat", kind="items")
    assert items.rows == [
        {"ITEM_ID": "1", "TITLE": "Toy Story (1995)", "GENRES": "Animation|Comedy"}
    ]


def test_without_a_header_columns_are_numbered(run: Preparing) -> None:
    """A first line with a number in it is data."""
    fields = {"USER_ID": "column1", "ITEM_ID": "column2", "TIMESTAMP": "column3"}
    prepared = run("u1,i1,1600000000\nu2,i2,1600000001\n", fields=fields)
    assert [row["USER_ID"] for row in prepared.rows] == ["u1", "u2"]


def test_a_tab_separated_title_may_begin_with_a_quote(run: Preparing) -> None:
    """Quotes in TSV are quotes only where they fit."""
    text = 'id\ttitle\na\t"Great Escape", The\nb\t"So ""so"""\n'
    assert [row["TITLE"] for row in run(text, "a.tsv", kind="items").rows] == [
        '"Great Escape", The', 'So "so"',
    ]  # fmt: skip


def test_the_files_of_a_folder_are_one_table(run: Preparing, tmp_path: Path) -> None:
    """Parts are read in order, notes of other tools passed over; places name the file."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for n in (2, 1):
        (folder / f"part-{n}.csv").write_text(f"user,item,ts\nu{n},i,1600000000\nu,,1600000000\n")
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-1.csv.crc").write_text("crc")
    prepared = run(folder)
    assert [row["USER_ID"] for row in prepared.rows] == ["u1", "u2"]
    assert prepared.dropped == {"ITEM_ID: empty": ["part-1.csv line 3", "part-2.csv line 3"]}
    assert prepared.report.files == 2
    (folder / "part-3.csv").write_text("user,item,time\nu,i,1600000000\n")
    with pytest.raises(UnreadableRecording, match=r"part-3.csv: .* unlike the first"):
        run(folder)


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.csv", "nothing in it"),
        (b"\nuser,item,ts\n", "a.csv", "first line is empty"),
        (b"user,user,ts\n", "a.csv", "two columns are called 'user'"),
        (b"user,,ts\n", "a.csv", "no name for a column"),
        (b'user,"item,ts\n', "a.csv", "no header"),
        (b",".join(b"c%d" % n for n in range(1001)), "a.csv", "1001 columns"),
        (b"hello", "a.txt", "format is not known"),
        (b'[{"user": 1}, {"user"', "a.json", "malformed JSON after record 1"),
        (b'[{"user": 1}] x', "a.json", "malformed JSON after record 1: more than one"),
        (b'{"data": [{"user": 1}]}', "a.json", "--records"),
        (b"PAR1" + b"\0" * 100, "a.parquet", "[Pp]arquet"),
        (gzip.compress(CSV.encode() * 999)[:-20], "a.csv.gz", "damaged"),
        (b"[{%s}]" % b",".join(b'"k%d": 1' % n for n in range(1001)), "a.json", "1001 columns"),
    ],
)  # fmt: skip
def test_an_unreadable_file_is_named(
    run: Preparing, content: bytes, name: str, reason: str
) -> None:
    """The error names the file and the reason."""
    with pytest.raises(UnreadableRecording, match=reason) as caught:
        run(content, name)
    assert name in str(caught.value)
    assert "staging" not in str(caught.value)


def test_a_missing_list_is_named(run: Preparing) -> None:
    """The path of the records is in the error."""
    with pytest.raises(UnreadableRecording, match=r"no list at data\.rows"):
        run('{"data":\n{"row": []}}', "a.json", records=["data", "rows"])


def test_a_missing_source_is_an_error(run: Preparing, tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(ObjectNotFound, match=r"none\.csv"):
        run(tmp_path / "none.csv")
