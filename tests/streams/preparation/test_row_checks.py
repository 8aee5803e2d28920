"""The rows that `prepare` keeps, their values, and the reasons of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.preparation.report import as_text
from tests.streams.preparation.preparation_fixtures import EVENTS, LINES, LIST, Preparing

pytestmark = pytest.mark.unit


@pytest.fixture
def run(tmp_path: Path) -> Preparing:
    """Prepares small inputs."""
    return Preparing(tmp_path)


def test_three_notations_of_times_are_read(run: Preparing) -> None:
    """Seconds, milliseconds and ISO 8601 with or without a zone are all seconds in the end."""
    times = ["1600000000", "1600000000.9", "1600000000123", "2020-09-13T12:26:40Z",
             "2020-09-13 12:26:40", "2020-09-13T14:26:40+02:00", " 1.6e9 "]  # fmt: skip
    prepared = run("user,item,ts\n" + "".join(f"u,i,{time}\n" for time in times))
    assert [row["TIMESTAMP"] for row in prepared.rows] == ["1600000000"] * 7
    assert prepared.report.times == {"ISO 8601": 3, "milliseconds": 1, "seconds": 3}


def test_every_reason_for_dropping_a_row_is_reported(run: Preparing) -> None:
    """Each bad row is reported with its reason and its line; the good ones stay."""
    bad = {
        ",i,1600000000": "USER_ID: empty",
        '" ",i,1600000000': "USER_ID: empty",
        "u,NULL,1600000000": "ITEM_ID: empty",
        f"{'u' * 257},i,1600000000": "USER_ID: more than 256 characters",
        "u\x01,i,1600000000": "USER_ID: control characters",
        "u,i,": "TIMESTAMP: empty",
        "u,i,yesterday": "TIMESTAMP: not a time",
        "u,i,nan": "TIMESTAMP: empty",
        "u,i,2020-13-01": "TIMESTAMP: not a time",
        "u,i,1_600_000_000": "TIMESTAMP: not a time",
        "u,i,12345": "TIMESTAMP: before 1990",
        "u,i,-1": "TIMESTAMP: before 1990",
        "u,i,1700000400": "TIMESTAMP: in the future",
        "u,i,1e300": "TIMESTAMP: in the future",
        "u,i": "not 3 columns",
        "u,i,1600000000,x": "not 3 columns",
        '"u,i,1600000000': "a quote that does not close",
        'u,i"i,1600000000': "quotes that do not fit",
        "u,i,1600000000\x00": "not UTF-8 text",
        f"u,i,{'1' * 1_100_000}": "line of more than 1048576 characters",
        f"u,i,{'1' * 3_000_000}": "line of more than 1048576 characters",
    }
    good = f"{'ü' * 256},i,1700000300"
    lines = ["user,item,ts", good]
    for line in bad:
        lines += [line, "", good]
    prepared = run("\n".join(lines))
    expected: dict[str, list[str]] = {}
    for n, reason in enumerate(bad.values()):
        expected.setdefault(reason, []).append(f"line {3 + 3 * n}")
    assert prepared.dropped == expected
    assert len(prepared.rows) == len(bad) + 1
    assert prepared.report.rows == 2 * len(bad) + 1
    mixed = "user,item,ts\nü,i,1600000000\n".encode() + b"f\xfcr,i,1600000000\n"
    assert run(mixed).dropped == {"not UTF-8 text": ["line 3"]}


def test_only_the_first_rows_of_a_reason_are_named(run: Preparing) -> None:
    """A thousand bad rows are counted, twenty are named and five shown."""
    prepared = run("user,item,ts\nu,i,1600000000\n" + "u,,1600000000\n" * 1000)
    [dropped] = prepared.report.dropped
    assert (dropped.rows, dropped.first) == (1000, [f"line {n}" for n in range(3, 23)])
    assert "1000  ITEM_ID: empty  (line 3, line 4, line 5, line 6, line 7, …)" in as_text(
        prepared.report
    )


@pytest.mark.parametrize(("name", "unit"), [("bad.jsonl", "line"), ("bad.json", "record")])
def test_bad_records_of_json_are_reported(run: Preparing, name: str, unit: str) -> None:
    """Values other than objects and invalid ids are reported; numbers and numeric text are ids."""
    good = {"user": 12345678901234567890123, "item": "007", "ts": 1600000000}
    records = [good, 7, [good], None, good | {"user": None}, good | {"user": {"id": 1}},
               good | {"item": ["a"]}, good | {"ts": None}, {"user": 1}, good]  # fmt: skip
    text = "\n".join(map(json.dumps, records))
    prepared = run(text if unit == "line" else f"[{text.replace(chr(10), ',')}]", name)
    assert [row["USER_ID"] for row in prepared.rows] == ["12345678901234567890123"] * 2
    assert [row["ITEM_ID"] for row in prepared.rows] == ["007"] * 2
    assert prepared.dropped == {
        "not a JSON object": [f"{unit} {n}" for n in (2, 3, 4)],
        "USER_ID: empty": [f"{unit} 5"],
        "USER_ID: neither text nor a number": [f"{unit} 6"],
        "ITEM_ID: neither text nor a number": [f"{unit} 7"],
        "TIMESTAMP: empty": [f"{unit} 8"],
        "ITEM_ID: empty": [f"{unit} 9"],
    }


def test_a_line_without_json_is_reported(run: Preparing) -> None:
    """A broken line costs nothing but itself."""
    prepared = run(LINES.replace("\n", "\n{\n", 1), "events.jsonl")
    assert prepared.rows == EVENTS
    assert prepared.dropped == {"not JSON": ["line 2"]}


def test_undecodable_bytes_drop_one_record_of_a_list(run: Preparing) -> None:
    """A name in another encoding inside a JSON list does not spoil the list."""
    text = LIST.encode().replace(b"u1", b"u\xff")
    prepared = run(text, "events.json")
    assert [row["USER_ID"] for row in prepared.rows] == ["u2", "ü3"]
    assert prepared.dropped == {"not UTF-8 text": ["record 1"]}


def test_values_become_numbers(run: Preparing) -> None:
    """EVENT_VALUE is a number, true or false, or empty; with scaling, its range is 0 to 1."""
    text = "user,item,ts,type,rating\n" + "".join(
        f"u,i,1600000000,{type_},{value}\n"
        for type_, value in [("rate", " 5 "), ("rate", "1"), (" like ", "True"), ("x", ""),
                             ("rate", "2.5e0"), ("rate", "five"), ("", "1"), ("y" * 257, "1")]
    )  # fmt: skip
    prepared = run(text)
    assert [(row["EVENT_TYPE"], row["EVENT_VALUE"]) for row in prepared.rows] == [
        ("rate", "5.0"), ("rate", "1.0"), ("like", "1.0"), ("x", ""), ("rate", "2.5"),
    ]  # fmt: skip
    assert prepared.dropped == {
        "EVENT_VALUE: not a number": ["line 7"],
        "EVENT_TYPE: empty": ["line 8"],
        "EVENT_TYPE: more than 256 characters": ["line 9"],
    }
    assert prepared.schema["EVENT_VALUE"] == {"type": ["null", "float"]}
    scaled = run(text, scales_values=True)
    assert [row["EVENT_VALUE"] for row in scaled.rows] == ["1.0", "0.0", "0.0", "", "0.375"]


def test_items_keep_their_columns_and_the_last_of_each(run: Preparing) -> None:
    """Metadata gets the narrowest type that fits; the last row of an item replaces earlier ones."""
    head = "id,unitPrice,inStock,Colour,Zip code,text,old\n"
    text = "".join(
        f"i{n},{n}.5,{'True' if n % 2 else 'false'},{'red' if n % 3 else ''},0{n},"
        f'"{"long " * 300}{n}",{n}\n'
        for n in range(10)
    )
    prepared = run(f"{head}{text}i3,9,TRUE,blue,03,short,0\n", kind="items", drop=["old"])
    assert prepared.dropped == {"a later row has the same id": ["line 5"]}
    assert prepared.schema == {
        "ITEM_ID": {"type": "string"},
        "UNIT_PRICE": {"type": "double"},
        "IN_STOCK": {"type": "boolean"},
        "COLOUR": {"type": ["null", "string"], "categorical": True},
        "ZIP_CODE": {"type": "string"},
        "TEXT": {"type": "string"},
    }
    assert prepared.rows[-1] == {
        "ITEM_ID": "i3", "UNIT_PRICE": "9", "IN_STOCK": "true", "COLOUR": "blue",
        "ZIP_CODE": "03", "TEXT": "short",
    }  # fmt: skip
    assert len(prepared.rows) == 10
    assert not (prepared.folder / "batch-users.jsonl").exists()


def test_line_breaks_in_metadata_become_spaces(run: Preparing) -> None:
    """A record stays on one line, as Amazon Personalize wants it."""
    prepared = run(json.dumps([{"id": "i", "text": " one\r\n\ttwo "}]), "a.json", kind="items")
    assert prepared.rows == [{"ITEM_ID": "i", "TEXT": "one two"}]
    assert (prepared.folder / "items.csv").read_text() == "ITEM_ID,TEXT\ni,one two\n"


def test_a_creation_time_may_be_missing_but_not_wrong(run: Preparing) -> None:
    """An item without one is kept; an invalid one is reported."""
    prepared = run("id,created_at,c\na,2020-09-13,x\nb,,x\nc,soon,x\n", kind="items")
    assert [row["CREATION_TIMESTAMP"] for row in prepared.rows] == ["1599955200", ""]
    assert prepared.dropped == {"CREATION_TIMESTAMP: not a time": ["line 4"]}
    assert prepared.schema["CREATION_TIMESTAMP"] == {"type": ["null", "long"]}


def test_no_row_is_a_problem_even_if_relaxed(run: Preparing) -> None:
    """An empty data set is never written."""
    prepared = run("user,item,ts\nu,i,soon\n")
    assert prepared.report.problems == ["no row is left"]
    assert not prepared.folder.exists()


def test_too_many_types_of_events_are_noted(run: Preparing) -> None:
    """Personalize takes ten types and optional columns together."""
    rows = "".join(f"u,i,1600000000,t{n}\n" for n in range(10))
    prepared = run("user,item,ts,type\n" + rows)
    assert "10 types of events and 1 optional columns, and 10 together are the most" in (
        prepared.report.notes
    )
