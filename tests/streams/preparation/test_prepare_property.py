"""Any mixture of good and bad rows: `prepare` keeps the good ones and reports every bad one."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.preparation.report import N_FIRST
from tests.streams.preparation.preparation_fixtures import NOW_S, Preparing

texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\",:|'\t;{[\\ 0"), max_size=6
)
ids = texts | st.sampled_from(["u1", "u2", "NULL", "\\N", "u" * 256, "u" * 257, "u\x01"])
times = (
    st.integers(-10, 2_000_000_000).map(str)
    | st.floats(600_000_000, 1_800_000_000).map(str)
    | st.integers(600_000_000_000, 1_800_000_000_000).map(str)
    | st.sampled_from(["2020-09-13T12:26:40Z", "2020-09-13", "2020-02-30", "soon", "", " ", "inf"])
)
values = st.floats().map(str) | st.sampled_from(["", "true", "False", "1_0", "5 stars", " 2 "])


NOTHING = {"NULL", "null", "\\N", "NaN", "nan", "None", "NaT", "<NA>"}


@dataclass(frozen=True)
class Row:
    """Fields of a row, or, without fields, a line that is none."""

    fields: tuple[str, str, str, str] | None
    line: bytes


def csv_line(fields: tuple[str, ...]) -> bytes:
    """A line that a CSV writer would write."""
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields).encode()


def json_line(fields: tuple[str, ...]) -> bytes:
    """A line of JSON with only ASCII in it."""
    return json.dumps(dict(zip(("user", "item", "ts", "rating"), fields, strict=True))).encode()


def rows(line: Callable[[tuple[str, ...]], bytes], broken: list[bytes]) -> st.SearchStrategy[Row]:
    """Rows of a format, good ones as often as bad ones."""
    good = st.tuples(
        st.sampled_from(["u1", "u,2", 'ü"3']),
        st.sampled_from(["i1", "i 2"]),
        st.sampled_from(["1600000000", "1600000001123", "2020-09-13T12:26:40+00:00"]),
        st.sampled_from(["", "4.5", "1e1"]),
    )
    any_ = st.tuples(ids, ids, times, values)
    return st.one_of(
        good.map(lambda fields: Row(fields, line(fields))),
        any_.map(lambda fields: Row(fields, line(fields))),
        st.sampled_from(broken).map(lambda raw: Row(None, raw)),
    )


def is_id(text: str) -> bool:
    """The id in a text, by this test's own rule."""
    return (
        1 <= len(text) <= 256
        and not text.isspace()
        and text not in NOTHING
        and not any(char < " " or char == "\x7f" for char in text)
    )


def seconds_of(text: str) -> float | None:
    """The time, for those that the strategies make."""
    known = {"2020-09-13T12:26:40Z": 1_600_000_000, "2020-09-13": 1_599_955_200,
             "2020-09-13T12:26:40+00:00": 1_600_000_000}  # fmt: skip
    if text in known:
        return known[text]
    try:
        number = float(text)
    except ValueError:
        return None
    number = number / 1000 if number > 1e11 else number
    return number if math.isfinite(number) else None


def value_of(text: str) -> float | None:
    """The value, or None when there is none; raises where it is no number."""
    if not text.strip() or text in NOTHING:
        return None
    if text.strip().lower() in {"true", "false"}:
        return float(text.strip().lower() == "true")
    if "_" in text or not math.isfinite(float(text)):
        raise ValueError(text)
    return float(text)


def expected(row: Row) -> tuple[str, str, str, str] | None:
    """The values to be kept of a row; None for a bad row."""
    if row.fields is None:
        return None
    user, item, time, value = row.fields
    at = seconds_of(time)
    try:
        number = value_of(value)
    except ValueError:
        return None
    if not (is_id(user) and is_id(item)):
        return None
    if at is None or not 631_152_000 <= at <= NOW_S + 300:
        return None
    return user, item, str(math.floor(at)), "" if number is None else str(number)


@pytest.mark.parametrize(
    ("name", "head", "line", "broken"),
    [
        (
            "events.csv",
            [b"user,item,ts,rating"],
            csv_line,
            [b"u,i", b"u,i,1600000000,1,x", b'"u,i,1600000000,1', b'u"u",i,1600000000,1',
             b"\xff,i,1600000000,1", b"u\x00,i,1600000000,1", b"u,i,1600000000,\x1f1"],
        ),
        (
            "events.jsonl",
            [],
            json_line,
            [b"{", b"7", b"[]", b"null", b'{"user": {"a": 1}}', b'{"user": "\xff"}', b"{}",
             b'{"user": "u", "item": "i", "ts": null}', b"\x00"],
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_exactly_the_good_rows_are_kept(
    name: str,
    head: list[bytes],
    line: Callable[[tuple[str, ...]], bytes],
    broken: list[bytes],
) -> None:
    """Kept rows are the good ones as they are; every other row is dropped under its own line."""

    @settings(max_examples=60)
    @given(st.lists(rows(line, broken), min_size=1, max_size=N_FIRST - 1))
    def check(mixture: list[Row]) -> None:
        # One good row names the columns, and keeps the set from being empty.
        fields = ("u1", "i1", "1600000000", "1.5")
        mixture = [Row(fields, line(fields)), *mixture]
        content = b"\n".join([*head, *(row.line for row in mixture)])
        with tempfile.TemporaryDirectory() as folder:
            prepared = Preparing(Path(folder))(content, name, event_type="rating")
            kept = [
                (row["USER_ID"], row["ITEM_ID"], row["TIMESTAMP"], row["EVENT_VALUE"])
                for row in prepared.rows
            ]
        wanted = [expected(row) for row in mixture]
        assert [tuple(map(plain, row)) for row in kept] == [
            tuple(map(plain, row)) for row in wanted if row
        ]
        first = 1 + len(head)
        bad = {f"line {n}" for n, row in enumerate(wanted, first) if row is None}
        named = [where for places in prepared.dropped.values() for where in places]
        assert sorted(named) == sorted(bad)
        assert all(prepared.dropped)

    check()


def plain(text: str) -> str | float:
    """A value by its meaning: 1e+16 and 10000000000000000.0 are equal."""
    try:
        return float(text)
    except ValueError:
        return text
