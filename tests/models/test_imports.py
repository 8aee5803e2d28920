"""Import files: good rows are kept exactly, bad ones are each reported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.events import PutEvents
from models.imports import (
    MAX_LINE_BYTES,
    BadRow,
    Described,
    Kind,
    Row,
    Schema,
    parse_schema,
    read_csv,
    read_json_lines,
)

NOW = 1_790_000_000.0


def schema(kind: Kind, **fields: Any) -> Schema:
    """A schema of fields by their types."""
    listed = [{"name": name, "type": type_} for name, type_ in fields.items()]
    return parse_schema(json.dumps({"type": "record", "name": kind, "fields": listed}), kind)


INTERACTIONS = schema(
    "INTERACTIONS", USER_ID="string", ITEM_ID="string", TIMESTAMP="long",
    EVENT_TYPE=["null", "string"], EVENT_VALUE=["float", "null"], IMPRESSION=["string", "null"],
    RECOMMENDATION_ID=["string", "null"], EVENT_ATTRIBUTION_SOURCE=["string", "null"],
    DEVICE=["null", "string"], N_ITEMS=["null", "int"],
)  # fmt: skip
ITEMS = schema(
    "ITEMS", ITEM_ID="string", CREATION_TIMESTAMP=["null", "long"], GENRES=["null", "string"],
    PRICE=["null", "double"], PROMOTED=["boolean", "null"], OLD="null",
)  # fmt: skip
SHORT = schema("INTERACTIONS", USER_ID="string", ITEM_ID="string", TIMESTAMP="long")
USERS = schema("USERS", USER_ID="string", AGE="int")


def rows(text: str | bytes, of: Schema) -> list[Row]:
    """The rows of a CSV file."""
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_csv(io.BytesIO(raw), of, now_s=NOW))


def objects(values: Iterable[Any], of: Schema) -> list[Row]:
    """The rows of a JSON Lines file."""
    lines = [json.dumps(value).encode() + b"\n" for value in values]
    return list(read_json_lines(lines, of, now_s=NOW))


def reason(text: str, of: Schema = SHORT) -> str:
    """What is wrong with one row under a header in the schema's order."""
    header = ",".join(column.name for column in of.columns)
    ((number, row),) = rows(f"{header}\n{text}", of)
    assert isinstance(row, BadRow), row
    assert number == 2
    return row.reason


def test_interactions_become_events() -> None:
    """Every reserved column has its place, the others are properties."""
    (row,) = rows(
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,IMPRESSION,RECOMMENDATION_ID,"
        "EVENT_ATTRIBUTION_SOURCE,DEVICE,N_ITEMS\n"
        'u1,"i,1",1700000000,Watch,2.5,"i,1|i2",RID-1,mail,phone,-3\n',
        INTERACTIONS,
    )

    assert isinstance(row[1], PutEvents)
    (event,) = row[1].event_list
    assert (row[0], row[1].user_id, row[1].session_id) == (2, "u1", "u1")
    assert (event.item_id, event.sent_at, event.event_type) == ("i,1", 1.7e9, "Watch")
    assert (event.event_value, event.impression) == (2.5, ["i,1", "i2"])
    assert event.recommendation_id == "RID-1"
    assert event.metric_attribution
    assert event.metric_attribution.event_attribution_source == "mail"
    assert event.properties == {"DEVICE": "phone", "N_ITEMS": -3}
    assert event.event_id


def test_the_least_there_can_be() -> None:
    """Without an event type and properties; the same row twice is the same event."""
    one, same, other = rows("USER_ID,ITEM_ID,TIMESTAMP\nu,i,1\nu,i,1\nu,i,2\n", SHORT)

    assert isinstance(one[1], PutEvents)
    assert one[1] == same[1] != other[1]
    (event,) = one[1].event_list
    assert (event.event_type, event.properties) == ("interaction", None)


def test_items_and_users_become_records() -> None:
    """Properties by the schema's names, each of its type; what is empty is left out."""
    text = (
        "ITEM_ID,CREATION_TIMESTAMP,GENRES,PRICE,PROMOTED,OLD\n"
        'i1,1600000000,crime|drama,"9.50",True,\n'
        "i2,,,,,\n"
    )

    assert rows(text, ITEMS) == [
        (2, Described("i1", {"CREATION_TIMESTAMP": 1600000000, "GENRES": "crime|drama",
                             "PRICE": 9.5, "PROMOTED": True})),
        (3, Described("i2", {})),
    ]  # fmt: skip
    assert rows("USER_ID,AGE\nu,031\n", USERS) == [(2, Described("u", {"AGE": 31}))]


@pytest.mark.parametrize(
    "header",
    ["user_id,item_id,timestamp", "userId,itemId,Timestamp", "\ufeffUSER_ID, ITEM_ID,TIMESTAMP\r"],
)
def test_headers_are_found_in_any_case(header: str) -> None:
    """As AWS Glue writes them, as JSON has them, with a byte order mark and other line ends."""
    ((number, row),) = rows(f"{header}\nu,i,5\r\n\r\n  \n", SHORT)

    assert number == 2
    assert isinstance(row, PutEvents)
    assert row.event_list[0].item_id == "i"


def test_columns_are_found_in_any_order() -> None:
    """Those that the schema does not have are passed over."""
    assert rows('extra,age,user_id\n"a,b",7,u\n', USERS) == [(2, Described("u", {"AGE": 7}))]


def test_headers_that_lack_columns_are_refused_at_once() -> None:
    """In the words of the service, before any row is asked for."""
    for text, missing in {
        "USER_ID,TIME\nu,1\n": "ITEM_ID, TIMESTAMP",
        "": "USER_ID, ITEM_ID, TIMESTAMP",
        "u,i,1\n": "USER_ID, ITEM_ID, TIMESTAMP",
        "USER_ID\tITEM_ID\tTIMESTAMP\n": "USER_ID, ITEM_ID, TIMESTAMP",
    }.items():
        with pytest.raises(InvalidInput) as caught:
            read_csv(text.encode().splitlines(), SHORT, now_s=NOW)
        assert str(caught.value) == f"Input CSV is missing the following columns:[{missing}]"
    with pytest.raises(InvalidInput, match="has the column ITEM_ID twice"):
        read_csv([b"USER_ID,ITEM_ID,itemId,TIMESTAMP"], SHORT, now_s=NOW)
    with pytest.raises(InvalidInput, match="no header: not UTF-8"):
        read_csv([b"\xff"], SHORT, now_s=NOW)


def test_bad_rows_say_what_is_wrong() -> None:
    """By the column's name, whichever rule it breaks."""
    for text, expected in {
        "u,i": "2 values for 3 columns",
        "u,i,1,2": "4 values for 3 columns",
        ",i,1": "USER_ID is missing",
        "u,,1": "ITEM_ID is missing",
        "u,i,": "TIMESTAMP is missing",
        "u,i,soon": "TIMESTAMP must be long, not 'soon'",
        "u,i,1.5": "TIMESTAMP must be long, not '1.5'",
        "u,i,1_0": "TIMESTAMP must be long, not '1_0'",
        "u,i,\u0661": "TIMESTAMP must be long, not '\u0661'",
        "u,i,9223372036854775808": "TIMESTAMP must be long, not '9223372036854775808'",
        "u,i," + "9" * 5000: f"TIMESTAMP must be long, not '{'9' * 40}'",
        "u,i,1700000000500": "TIMESTAMP must be in seconds, 1700000000500 is in milliseconds",
        "u,i,0": "TIMESTAMP: sentAt must be after 1970",
        "u,i,1790000301": "TIMESTAMP: sentAt lies too far in the future",
        "x" * 257 + ",i,1": "USER_ID: Expected `str` of length <= 256",
        "u," + "x" * 257 + ",1": "ITEM_ID: Expected `str` of length <= 256",
        'u,"i,1': "not a line of CSV: unexpected end of data",
        'u,"i"x,1': "not a line of CSV: ',' expected after '\"'",
        "x" * MAX_LINE_BYTES + ",i,1": "the line has more than 1048576 bytes",
        "x" * 200_000 + ",i,1": "not a line of CSV: field larger than field limit (131072)",
    }.items():
        assert reason(text) == expected
    for text, expected in {
        "u,i,1,,much,,,,,": "EVENT_VALUE must be float, not 'much'",
        "u,i,1,,nan,,,,,": "EVENT_VALUE must be float, not 'nan'",
        "u,i,1,,1e999,,,,,": "EVENT_VALUE must be float, not '1e999'",
        "u,i,1,,,a||b,,,,": "IMPRESSION: Expected `str` of length >= 1",
        f"u,i,1,,,{'|'.join('a' * 26)},,,,": "IMPRESSION: Expected `array` of length <= 25",
        f"u,i,1,,,{'a' * 1001},,,,": "IMPRESSION must have at most 1000 characters",
        f"u,i,1,,,,{'a' * 41},,,": "RECOMMENDATION_ID: Expected `str` of length <= 40",
        "u,i,1,,,,,é,,": r"EVENT_ATTRIBUTION_SOURCE: Expected `str` matching regex "
        r"'^[\\x20-\\x7E]*\\Z'",
        f"u,i,1,{'a' * 257},,,,,,": "EVENT_TYPE: Expected `str` of length <= 256",
        "u,i,1,,,,,,,2147483648": "N_ITEMS must be int, not '2147483648'",
        f"u,i,1,,,,,,{'a' * 1020},": "the other columns: Expected 1 to 1024 characters, got 1033",
    }.items():
        assert reason(text, INTERACTIONS) == expected
    for text, expected in {
        "i,1700000000500,,,,": "CREATION_TIMESTAMP must be in seconds, 1700000000500 is in "
        "milliseconds",
        "i,,,,yes,": "PROMOTED must be boolean, not 'yes'",
        "i,,,,,x": "OLD must be null, not 'x'",
        f"{'x' * 257},,,,,": "ITEM_ID must have at most 256 characters",
        f"i,,{'x' * 32000},,,": "properties must have at most 32000 characters as JSON, not 32013",
    }.items():
        assert reason(text, ITEMS) == expected


def test_objects_are_rows_too() -> None:
    """By names in any spelling; a whole number is a text where a text is due, null is nothing."""
    assert objects(
        [
            {"itemId": 7, "Genres": "a|b", "price": 3, "PROMOTED": False, "more": [1]},
            {"ITEM_ID": "i", "genres": None, "creation_timestamp": 1_600_000_000, "PRICE": 0.5},
        ],
        ITEMS,
    ) == [
        (1, Described("7", {"GENRES": "a|b", "PRICE": 3.0, "PROMOTED": False})),
        (2, Described("i", {"CREATION_TIMESTAMP": 1_600_000_000, "PRICE": 0.5})),
    ]
    ((_, event),) = objects([{"user_id": "u", "item_id": 5, "timestamp": 9}], SHORT)
    assert isinstance(event, PutEvents)
    assert (event.user_id, event.event_list[0].item_id) == ("u", "5")


def test_bad_objects_say_what_is_wrong() -> None:
    """Types are what they are in JSON."""
    good: dict[str, Any] = {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": 9}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"TIMESTAMP": "9"}, "TIMESTAMP must be long, not '9'"),
        ({"TIMESTAMP": 9.0}, "TIMESTAMP must be long, not '9.0'"),
        ({"TIMESTAMP": True}, "TIMESTAMP must be long, not 'True'"),
        ({"TIMESTAMP": 2**63}, "TIMESTAMP must be long, not '9223372036854775808'"),
        ({"USER_ID": 1.5}, "USER_ID must be string, not '1.5'"),
        ({"USER_ID": 10**30}, "USER_ID must be string, not '1000000000000000000000000000000'"),
        ({"USER_ID": ["u"]}, "USER_ID must be string, not \"['u']\""),
        ({"USER_ID": None}, "USER_ID is missing"),
        ({"USER_ID": ""}, "USER_ID is missing"),
        ({"userId": "v"}, "USER_ID is there twice"),
    ]
    for change, expected in changes:
        ((_, row),) = objects([good | change], SHORT)
        assert row == BadRow(expected)
    for line, expected in {
        b"[]": "not a JSON object: Expected `object`, got `array`",
        b"{": "not a JSON object: Input data was truncated",
        b"u,i,9": "not a JSON object: JSON is malformed: invalid character (byte 0)",
    }.items():
        assert list(read_json_lines([line], SHORT, now_s=NOW)) == [(1, BadRow(expected))]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("USERS", {"USER_ID": "string"}, "a field of metadata must be there"),
        ("USERS", {"AGE": "int", "SIZE": "int"}, "USER_ID must be there and never null"),
        ("USERS", {"USER_ID": ["null", "string"], "AGE": "int"}, "USER_ID must be there and"),
        ("ITEMS", {"ITEM_ID": "long", "A": "int"}, "ITEM_ID must be string, not long"),
        ("ITEMS", {"ITEM_ID": "string", "CREATION_TIMESTAMP": "string"}, "must be int or long"),
        ("ITEMS", {"ITEM_ID": "string", "A_B": "int", "aB": "int"}, "A_B is there twice"),
        ("ITEMS", {"ITEM_ID": "string", "A": "bytes"}, r"enum value 'bytes' - at `\$.fields"),
        ("ITEMS", {"ITEM_ID": "string", "A": ["int", "string"]}, "A must have one type"),
        ("ITEMS", {"ITEM_ID": "string", "A": []}, "A must have one type"),
        ("ITEMS", {"ITEM_ID": "string", "A": {"type": "array"}}, "schema: Expected"),
        ("INTERACTIONS", {"USER_ID": "string", "ITEM_ID": "string"}, "TIMESTAMP must be there"),
    ],
)
def test_schemas_that_no_row_can_have(kind: Kind, fields: dict[str, Any], message: str) -> None:
    """The error names the field and what it must be."""
    with pytest.raises(InvalidInput, match=message) as caught:
        schema(kind, **fields)
    assert str(caught.value).startswith("schema: ")


@pytest.mark.parametrize("text", ["", "[]", '{"type": "record"}', '{"type": "enum"}', "[" * 99999])
def test_texts_that_are_no_schema(text: str) -> None:
    """The closing brace that a well-known tutorial lacks, and worse, is an InvalidInput."""
    with pytest.raises(InvalidInput, match="schema: "):
        parse_schema(text, "USERS")


def spoiled(row: dict[str, str], fault: str) -> list[str]:
    """The cells of a row with something wrong."""
    changed = {
        "empty id": {"USER_ID": ""},
        "long id": {"ITEM_ID": "i" * 257},
        "no number": {"TIMESTAMP": "never"},
        "milliseconds": {"TIMESTAMP": row["TIMESTAMP"] + "000"},
        "future": {"TIMESTAMP": "1800000000"},
        "value": {"EVENT_VALUE": "1,5"},
        "impression": {"IMPRESSION": "|"},
        "int": {"N_ITEMS": "1.0"},
    }.get(fault, {})
    cells = list((row | changed).values())
    return {"more": [*cells, "x"], "less": cells[:-1]}.get(fault, cells)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=9)
CELLS = st.fixed_dictionaries(
    {
        "USER_ID": NAMES,
        "ITEM_ID": NAMES,
        "TIMESTAMP": st.integers(1_000_000_000, 1_790_000_000).map(str),
        "EVENT_TYPE": st.just("") | NAMES,
        "EVENT_VALUE": st.just("") | st.floats(-1e6, 1e6).map(repr),
        "IMPRESSION": st.lists(st.text("ab,", min_size=1), max_size=4).map("|".join),
        "RECOMMENDATION_ID": st.just("") | NAMES,
        "EVENT_ATTRIBUTION_SOURCE": st.sampled_from(["", "mail"]),
        "DEVICE": st.just("") | NAMES,
        "N_ITEMS": st.just("") | st.integers(-9, 9).map(str),
    }
)
FAULTS = st.sampled_from(
    ["", "", "", "more", "less", "empty id", "long id", "no number", "milliseconds", "future",
     "value", "impression", "int"]
)  # fmt: skip


@given(st.lists(st.tuples(CELLS, FAULTS), max_size=8), st.permutations(list(range(10))))
def test_good_rows_are_kept_exactly_and_bad_ones_each_reported(
    given_rows: list[tuple[dict[str, str], str]], order: list[int]
) -> None:
    """Any mixture, in any order of columns: nothing is lost, changed or made up."""
    header = [INTERACTIONS.columns[place].name for place in order]
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row, fault in given_rows:
        writer.writerow(spoiled({name: row[name] for name in header}, fault))

    found = rows(file.getvalue(), INTERACTIONS)

    assert [number for number, _ in found] == list(range(2, len(given_rows) + 2))
    for (row, fault), (_, kept) in zip(given_rows, found, strict=True):
        assert isinstance(kept, BadRow) == bool(fault)
        if isinstance(kept, PutEvents):
            (event,) = kept.event_list
            source = event.metric_attribution
            properties = event.properties
            assert isinstance(properties, dict) or properties is None
            assert row == {
                "USER_ID": kept.user_id,
                "ITEM_ID": event.item_id,
                "TIMESTAMP": str(int(event.sent_at)),
                "EVENT_TYPE": "" if not row["EVENT_TYPE"] else event.event_type,
                "EVENT_VALUE": "" if event.event_value is None else repr(event.event_value),
                "IMPRESSION": "|".join(event.impression or []),
                "RECOMMENDATION_ID": event.recommendation_id or "",
                "EVENT_ATTRIBUTION_SOURCE": source.event_attribution_source if source else "",
                "DEVICE": (properties or {}).get("DEVICE", ""),
                "N_ITEMS": str((properties or {}).get("N_ITEMS", "")),
            }


@pytest.mark.parametrize("read", [read_csv, read_json_lines])
@given(lines=st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_rows_or_bad_rows(
    read: Callable[..., Iterable[Row]], lines: list[bytes]
) -> None:
    """Nothing else is raised, and each line that is not blank is one row."""
    header = [b"USER_ID,AGE\n"] if read is read_csv else []
    found = list(read([*header, *lines], USERS, now_s=NOW))

    first = len(header) + 1
    if lines and first == 1:
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    assert [number for number, _ in found] == [
        number for number, line in enumerate(lines, first) if line.strip()
    ]
