"""Recognition of formats, compression, encodings and times, equal for all readers."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
import zipfile
from pathlib import Path

import duckdb
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import (
    CannotPrepare,
    InvalidEvent,
    InvalidRecord,
    RecommenderError,
    UnreadableRecording,
)
from models.events import PutEvents, parse
from models.personalize.datasets.dataset_schemas import Column, Schema
from models.settings import Settings
from streams.jobs.dataset_files import DatasetRows
from streams.object_store import Objects
from streams.preparation.prepare import PrepareOptions, prepare
from streams.reading.column_mapping import ColumnOptions
from streams.reading.read_options import ReadOptions
from streams.reading.records import sheets
from streams.reading.records.sheets import excel, parquet
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import Recording, read_events
from tests.streams.preparation.preparation_fixtures import NOW_S, Preparing

pytestmark = pytest.mark.unit

HEAD = "user_id,item_id,timestamp\n"
ROWS = "".join(f"u{n % 3},i{n},{1_600_000_000 + n}\n" for n in range(12))
KEPT = [(f"u{n % 3}", f"i{n}", 1_600_000_000.0 + n) for n in range(12)]
NULLABLE = frozenset({"null", "string"})
SCHEMA = Schema(
    (
        Column("USER_ID", frozenset({"string"})),
        Column("ITEM_ID", frozenset({"string"})),
        Column("TIMESTAMP", frozenset({"long"})),
    )
)


def kept(path: Path | str, **options: object) -> list[tuple[str, str | None, float]]:
    """User, item and time of all good rows, as a replay sends them."""
    return [
        (message.session_id, event.item_id, event.sent_at)
        for _, message in read_events(path, now_s=NOW_S, options=ReadOptions(**options))  # type: ignore[arg-type]
        if isinstance(message, PutEvents)
        for event in message.event_list
    ]


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """A file in a folder."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(content: bytes) -> bytes:
    """A zip as macOS makes them: a file, and a note beside it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("events.csv", content)
        archive.writestr("__MACOSX/._events.csv", b"x")
    return target.getvalue()


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress, zipped],
)
@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
def test_compression_is_recognised_by_content(tmp_path: Path, pack: object, name: str) -> None:
    """Names do not matter; a truncated file is an error, not a shorter file."""
    packed = pack((HEAD + ROWS).encode())  # type: ignore[operator]
    assert kept(put(tmp_path, name, packed)) == KEPT
    with pytest.raises(UnreadableRecording, match="damaged"):
        kept(put(tmp_path, name, packed[:-12]))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_encodings_are_recognised(tmp_path: Path, encoding: str) -> None:
    """With and without a byte order mark; an encoding other than Unicode is noted."""
    path = put(tmp_path, "a.csv", (HEAD + ROWS + "Zoë,Müsli,1600000000\n").encode(encoding))
    assert kept(path) == [*KEPT, ("Zoë", "Müsli", 1_600_000_000.0)]
    said = Recording(str(path), ReadOptions(), Objects()).description
    assert ("cp1252" in said) == (encoding == "cp1252")
    assert kept(path, encoding=encoding) == kept(path)


def test_binary_bytes_do_not_change_the_encoding(tmp_path: Path) -> None:
    """A broken line of UTF-8 stays one broken line."""
    content = (HEAD + ROWS).encode() + b"u\xff\x81,i,1600000000\n"
    (bad,) = [row for _, row in read_events(put(tmp_path, "a.csv", content), now_s=NOW_S)
              if isinstance(row, InvalidEvent)]  # fmt: skip
    assert str(bad) == "not UTF-8 text"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", " ", "::"])
def test_separators_are_recognised(tmp_path: Path, separator: str) -> None:
    """Whatever the file is called."""
    for name in ("a.csv", "a.txt"):
        assert kept(put(tmp_path, name, (HEAD + ROWS).replace(",", separator))) == KEPT


def test_ambiguous_separators_are_an_error(tmp_path: Path) -> None:
    """The user decides."""
    path = put(tmp_path, "a.txt", "a;b,c;d,e\n" * 5)
    with pytest.raises(UnreadableRecording, match=r"comma or semicolon.*--separator"):
        kept(path)


@pytest.mark.parametrize(
    "text",
    [
        "2024-04-05 21:06:21 +0400",
        "2024-04-05 17:06:21 +0000 UTC",
        "Fri, 05 Apr 2024 17:06:21 GMT",
        "5 Apr 2024 21:06:21 +0400",
        "20240405T170621Z",
        "20240405T210621+0400",
        "2024/04/05 17:06:21",
        "2024-04-05 17:06:21 UTC",
        "2024-04-05T12:06:21-0500",
        "2024-04-05T17:06:21.000000000Z",
        "1712336781",
        "1712336781000",
        "1712336781000000",
        "1712336781000000000",
    ],
)
def test_every_notation_of_a_time_is_read(tmp_path: Path, text: str) -> None:
    """`replay` and `evaluate` accept the times that `prepare` accepts; POST /events the numbers."""
    path = put(tmp_path, "a.csv", f'{HEAD}u,i,"{text}"\n')
    later = 1_800_000_000.0
    ((_, message),) = read_events(path, now_s=later)
    assert isinstance(message, PutEvents)
    assert message.event_list[0].sent_at == 1_712_336_781
    options = PrepareOptions(is_strict=False)
    assert prepare(str(path), None, Settings(), options, now_s=later).kept.first_s == 1_712_336_781
    if text.isdigit():
        raw = b'{"sessionId":"s","eventList":[{"eventType":"e","sentAt":%s}]}' % text.encode()
        assert parse(raw, now_s=later).event_list[0].sent_at == 1_712_336_781


def test_other_times_are_read_by_a_time_format(tmp_path: Path) -> None:
    """The order of day and month is ambiguous without a format."""
    path = put(tmp_path, "a.csv", HEAD + "u,i,05/04/2020 21:06\n")
    assert kept(path) == []
    assert kept(path, time_format="%d/%m/%Y %H:%M") == [("u", "i", 1_586_120_760.0)]
    with pytest.raises(UnreadableRecording, match="--time-format"):
        kept(path, time_format="day first")


def test_missing_values_are_no_ids(tmp_path: Path) -> None:
    """Missing values as pandas, SQL and Hive write them are neither users nor items."""
    nothing = ["NaN", "nan", "None", "NaT", "NULL", "null", "\\N", "<NA>"]
    text = "".join(f"{word},i,1600000000\nu,{word},1600000000\nu,i,{word}\n" for word in nothing)
    path = put(tmp_path, "a.csv", HEAD + ROWS + text)
    report = prepare(str(path), None, Settings(), PrepareOptions(is_strict=False), now_s=NOW_S)
    assert {each.reason: each.rows for each in report.dropped} == {
        f"{field}: empty": len(nothing) for field in ("USER_ID", "ITEM_ID", "TIMESTAMP")
    }
    assert kept(path) == KEPT


def test_parquet_with_nan(tmp_path: Path) -> None:
    """NaN is a missing value in any column, unused ones included."""
    path = tmp_path / "a.parquet"
    with duckdb.connect() as engine:
        engine.sql(
            "SELECT * FROM (VALUES ('u', 'i', 1600000000.0::DOUBLE, 'nan'::DOUBLE),"
            " ('v', 'j', 1600000001.0, 2.5), ('w', 'k', 'nan', 1.0))"
            ' AS t(user_id, item_id, "timestamp", price)'
        ).write_parquet(str(path))
    report = prepare(str(path), None, Settings(), PrepareOptions(is_strict=False), now_s=NOW_S)
    assert [(each.reason, each.first) for each in report.dropped] == [
        ("TIMESTAMP: empty", ["record 3"])
    ]
    assert kept(path) == [("u", "i", 1_600_000_000.0), ("v", "j", 1_600_000_001.0)]


def test_notes_over_several_lines_stay_one_record(tmp_path: Path) -> None:
    """As in exports of shops; the line of a record is its first one."""
    text = (
        "Name,Email,Created at,Lineitem sku,Notes\r\n"
        '#1,a@example.org,2020-04-05 21:06:21 +0400,A1,"Gift: yes\nFloor: 2"\r\n'
        "#1,a@example.org,2020-04-05 21:06:21 +0400,A2,\r\n"
        '#2,b@example.org,2020-04-06 01:48:03 +0400,,"say ""hi""\n\n,\nBell: 4"\r\n'
        "#3,c@example.org,2020-04-06 01:48:03 +0400,A2,\r\n"
    )
    column_options = ColumnOptions({"USER_ID": "Email", "ITEM_ID": "Lineitem sku"})
    rows = list(
        read_events(
            put(tmp_path, "a.csv", text),
            now_s=NOW_S,
            options=ReadOptions(column_options=column_options),
        )
    )
    assert [(line, getattr(row, "session_id", str(row))) for line, row in rows] == [
        (2, "a@example.org"),
        (4, "a@example.org"),
        (5, "ITEM_ID: empty in column Lineitem sku"),
        (9, "c@example.org"),
    ]


@pytest.mark.parametrize("kind", ["users", "items"])
def test_a_header_with_numbers_in_it_is_a_header(tmp_path: Path, kind: str) -> None:
    """A name of an id column or text above numbers identifies it."""
    name = kind.removesuffix("s")
    text = f"{name}_id,Gender,2019,2020,zip\n" + "".join(
        f"x{n},{'MF'[n % 2]},{n},{n % 3},{10_000 + n}\n" for n in range(6)
    )
    prepared = Preparing(tmp_path)(text, kind=kind)
    assert [row[f"{name.upper()}_ID"] for row in prepared.rows] == [f"x{n}" for n in range(6)]
    assert {"GENDER", "ZIP", "COLUMN_2019", "COLUMN_2020"} <= prepared.rows[0].keys()


@pytest.mark.parametrize("separator", [",", "\t", "::"])
def test_ambiguous_columns_without_names_are_an_error(tmp_path: Path, separator: str) -> None:
    """Four numbers may be user and item or item and user; both readings are named."""
    lines = [f"{n % 7 + 1},{n % 11 + 1},{n % 5 + 1},{1_600_000_000 + n}" for n in range(50)]
    path = put(tmp_path, "a.txt", "\n".join(lines).replace(",", separator))
    with pytest.raises(CannotPrepare, match="column1 may be the user and column2 the item, or"):
        kept(path)
    said = kept(path, columns=["item", "user", "rating", "ts"])
    assert said[0] == ("1", "1", 1_600_000_000.0)
    assert said[7] == ("8", "1", 1_600_000_007.0)


def test_prefixes_of_ids_identify_columns(tmp_path: Path) -> None:
    """Prefixes of users and items are evidence; guesses are noted."""
    path = put(
        tmp_path, "a.csv", "".join(f"i{n},u{n % 3},5,{1_600_000_000 + n}\n" for n in range(9))
    )
    assert kept(path)[1] == ("u1", "i1", 1_600_000_001.0)
    said = Recording(str(path), ReadOptions(), Objects()).description
    assert "no header" in said
    assert "USER_ID from column2, ITEM_ID from column1, TIMESTAMP from column4" in said


@pytest.mark.parametrize(
    "head",
    ["user,movie_id,song_id,ts", "user,item,created_at,sent_at", "account_id,profile_id,item,ts"],
)
def test_two_columns_for_one_field_are_an_error(tmp_path: Path, head: str) -> None:
    """And the option that decides."""
    path = put(tmp_path, "a.csv", f"{head}\n1,2,1600000000,1600000001\n")
    with pytest.raises(CannotPrepare, match=r" may be (\w+) or (\w+): name it with --map"):
        kept(path)


def test_a_column_of_times_is_recognised_by_its_values(tmp_path: Path) -> None:
    """Of two columns that are called so, the one that has times."""
    path = put(tmp_path, "a.csv", "user,item,time,datetime\nu,i,12.5,2020-09-13\n")
    assert kept(path) == [("u", "i", 1_599_955_200.0)]


def test_foreign_files_are_an_error(tmp_path: Path) -> None:
    """The error names archives and databases as such."""
    for content, why in [
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z archive"),
        (b"SQLite format 3\0" + bytes(100), "SQLite"),
        (b"Obj\x01" + bytes(100), "Avro"),
    ]:
        with pytest.raises(UnreadableRecording, match=why):
            kept(put(tmp_path, "events.csv", content))


def test_elements_of_lists_become_rows(tmp_path: Path) -> None:
    """An order of two items is recognised as two rows with its user and time, with a note."""
    order = {
        "user": "u",
        "time": 1_600_000_000_000_000,
        "items": [{"item_id": "a"}, {"item_id": "b"}],
    }
    path = put(tmp_path, "a.jsonl", f"{json.dumps(order)}\n{json.dumps(order | {'items': []})}\n")
    assert kept(path) == [("u", "a", 1_600_000_000.0), ("u", "b", 1_600_000_000.0)]
    assert "one row for each of items" in Recording(str(path), ReadOptions(), Objects()).description


def test_excel_files_are_read(tmp_path: Path) -> None:
    """The first sheet; dates are times."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    cells = [
        ("user_id", "item_id", "timestamp"), ("u", "i", "2020-09-13"), ("", "j", "1600000000"),
    ]  # fmt: skip
    made = "".join(
        "<row>" + "".join(f'<c t="inlineStr"><is><t>{c}</t></is></c>' for c in row) + "</row>"
        for row in cells
    )
    sheet = f'<worksheet xmlns="{main}"><sheetData>{made}</sheetData></worksheet>'
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"/>')
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1"'
            f' Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr("xl/worksheets/sheet1.xml", sheet)
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>'
            '<sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1"'
            f' Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        )
    path = put(tmp_path, "a.xlsx", target.getvalue())
    rows = list(read_events(path, now_s=NOW_S))
    assert [(line, str(row)) for line, row in rows if isinstance(row, InvalidEvent)] == [
        (3, "USER_ID: empty in column user_id")
    ]
    assert kept(path) == [("u", "i", 1_599_955_200.0)]


def test_an_excel_file_that_unpacks_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small file would become a gigabyte of memory, whatever its list of files says."""
    # The bound itself takes seconds to pack and to unpack, and shows nothing more.
    monkeypatch.setattr(sheets, "MAX_WORKBOOK_BYTES", 32 * 2**20)
    path = tmp_path / "bomb.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
        with archive.open("xl/sharedStrings.xml", "w", force_zip64=True) as strings:
            for _ in range(33):
                strings.write(bytes(2**20))
        archive.filelist[-1].file_size = 10
    assert path.stat().st_size < 2**16
    with pytest.raises(UnreadableRecording, match="it unpacks to more than 32 MB: save it as CSV"):
        excel(path)


@pytest.mark.parametrize(
    "long",
    ["repeat('a', 3000000)", "list_resize([1.5], 300000, 1.5)", "repeat('a', 3000000)::BLOB"],
)
def test_a_parquet_file_whose_rows_share_a_long_value(tmp_path: Path, long: str) -> None:
    """Some kilobytes would become gigabytes of memory."""
    path = tmp_path / "shared.parquet"
    with duckdb.connect() as connection:
        rows = connection.sql(f'SELECT \'i\' || i AS "a ""b", {long} AS b FROM range(20) t(i)')  # noqa: S608
        rows.write_parquet(str(path), compression="zstd")
    with pytest.raises(UnreadableRecording) as refused, parquet(path, tmp_path) as sheet:
        list(sheet.rows)
    assert str(refused.value) == "a row of more than 1048576 characters"


fields = st.sampled_from(
    ["u1", "i2", '"a,b"', '"', '"x', 'y"', "", "NaN", "a\tb", "é", "x" * 257, " "]
)
times = st.sampled_from(
    ["1600000000", "1600000000000", "2020-09-13", "soon", "", "12", "9e9", '"2020-09-13"', "NaT"]
)
lines = st.one_of(
    st.tuples(fields, fields, times).map(",".join),
    st.sampled_from(["", "a", "a,b,c,d", '"a\nb",i,1600000000', "\x00,i,1600000000", "\r"]),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(lines, min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_all_readers_agree(made: list[str], end: str) -> None:
    """All keep the same rows, and drop the others for the same reasons."""
    content = end.join([HEAD.strip(), "u0,i0,1600000000", *made])
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder), "a.csv", content)
        replayed = list(read_events(path, now_s=NOW_S))
        evaluated, n_bad = interactions(read_events(path, now_s=NOW_S))
        imported = list(
            DatasetRows(Objects(), str(path), SCHEMA, "interactions", latest_s=NOW_S + 300).read()
        )
        prepared = Preparing(Path(folder))(path)
        rows = [(row["USER_ID"], row["ITEM_ID"], int(row["TIMESTAMP"])) for row in prepared.rows]
    sent = [
        (str(message.user_id), str(event.item_id), int(event.sent_at))
        for _, message in replayed
        if isinstance(message, PutEvents)
        for event in message.event_list
    ]
    assert sent == rows
    assert [(one.user, one.item, int(one.at_s)) for one in evaluated] == rows
    assert [
        (row.values["USER_ID"], row.values["ITEM_ID"], row.values["TIMESTAMP"])
        for row in imported
        if not isinstance(row.values, InvalidRecord)
    ] == rows
    bad = {line: str(row) for line, row in replayed if isinstance(row, InvalidEvent)}
    assert len(n_bad) == len(bad)
    assert {
        int(row.where.rpartition(" ")[2]): str(row.values)
        for row in imported
        if isinstance(row.values, InvalidRecord)
    } == bad
    dropped = {int(place.rpartition(" ")[2]): each.reason for each in prepared.report.dropped
               for place in each.first}  # fmt: skip
    assert dropped.keys() == bad.keys()
    assert all(bad[line].startswith(reason) for line, reason in dropped.items())


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            HEAD + "u,i,soon\n" * 3,
            "no row is good: line 2: TIMESTAMP: not a time: 'soon' in column timestamp",
        ),
        (HEAD, "no row that can be used"),
        (
            "user_id,item_id,timestamp,event_type\nu,i,1700000000,dislike\n",
            "all of its events are negative",
        ),
    ],
)
def test_no_good_row_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, message: str
) -> None:
    """Of the commands, with an exit code and the first reasons: no zeros, no infinities."""
    from click.testing import CliRunner

    from cli import main

    # It starts a process where this version of the sources has not been compiled yet.
    monkeypatch.setattr("cli.evaluation.compile_once", lambda _say: None)
    path = put(tmp_path, "a.csv", made)
    done = CliRunner().invoke(main, ["evaluate", str(path)])
    assert done.exit_code == 1
    assert "inf" not in done.output
    assert message in done.output


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """As in every command."""
    with pytest.raises(RecommenderError, match=r"none\.csv"):
        kept(tmp_path / "none.csv")
