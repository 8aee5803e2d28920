"""Readers of recorded interactions: each format's good rows, and bad rows by line number."""

from __future__ import annotations

import gzip
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CannotPrepare, InvalidEvent, UnreadableRecording
from models.events import PutEvents
from streams.reading.formats.registry import names
from streams.reading.records.text_streams import MAX_LINE_CHARS
from streams.recordings.recorded_events import Owner, group_into_messages, read_events

pytestmark = pytest.mark.unit

NOW_S = 1_700_000_000.0
FIRST_S = 1_600_000_000
CSV = "user,item,type,ts\n"
OTTO = (
    '{"session":12,"events":[{"aid":1,"ts":1659304800025,"type":"clicks"},'
    '{"aid":2,"ts":1659304800026,"type":"carts"},{"aid":3,"ts":1659304800027,"type":"orders"}]}\n'
)
RETAILROCKET = (
    "timestamp,visitorid,event,itemid,transactionid\n"
    "1433221332117,257597,view,355908,\n"
    "1433221332118,257597,addtocart,355908,\n"
    "1433221332119,257597,transaction,355908,4000\n"
)
JSONL = (
    '{"sessionId":"s1","userId":"u1","eventList":['
    '{"eventId":"e1","eventType":"click","itemId":"i1","sentAt":1600000000},'
    '{"eventId":"e2","eventType":"buy","itemId":"i2","sentAt":1600000001}]}\n'
)

# A row: line, session, user, type, item, time, value.
Said = tuple[int, str, str | None, str, str | None, float, float | None]


def kept(path: Path, format_: str | None = None, as_: Owner = "users") -> list[Said]:
    """Everything good in a file, event by event."""
    return [
        (
            *(line, message.session_id, message.user_id),
            *(event.event_type, event.item_id, event.sent_at, event.event_value),
        )
        for line, message in read_events(path, now_s=NOW_S, format_=format_, as_=as_)
        if isinstance(message, PutEvents)
        for event in message.event_list
    ]


def refused(path: Path, format_: str | None = None) -> dict[int, str]:
    """Errors of a file by line number."""
    return {
        line: str(message)
        for line, message in read_events(path, now_s=NOW_S, format_=format_)
        if isinstance(message, InvalidEvent)
    }


def rating(line: int, user: str, item: str, ts: float, value: float) -> Said:
    """A row of a MovieLens file."""
    return (line, user, user, "rating", item, ts, value)


@pytest.mark.parametrize(
    ("name", "text", "format_", "expected"),
    [
        (
            "events.csv",
            CSV + "u1,i1,click,1600000000.5\n\nu2,i2,purchase,1600000001\n",
            "csv",
            [
                (2, "u1", "u1", "click", "i1", 1600000000.5, None),
                (4, "u2", "u2", "purchase", "i2", 1600000001.0, None),
            ],
        ),
        (
            "quoted.csv",
            '\ufeff"user","item","type","ts"\r\nu1,"a ""b"", c",click,1600000000\r\n',
            "csv",
            [(2, "u1", "u1", "click", 'a "b", c', 1600000000.0, None)],
        ),
        (
            "events.jsonl",
            JSONL,
            "put-events",
            [
                (1, "s1", "u1", "click", "i1", 1600000000.0, None),
                (1, "s1", "u1", "buy", "i2", 1600000001.0, None),
            ],
        ),
        (
            "u.data",
            "196\t242\t3\t881250949\n186\t302\t3.5\t891717742\n",
            "movielens-data",
            [rating(1, "196", "242", 881250949.0, 3.0), rating(2, "186", "302", 891717742.0, 3.5)],
        ),
        (
            "ratings.csv",
            "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
            "movielens-csv",
            [rating(2, "1", "296", 1147880044.0, 5.0)],
        ),
        (
            "ratings.dat",
            "1::1193::5::978300760\n",
            "movielens-dat",
            [rating(1, "1", "1193", 978300760.0, 5.0)],
        ),
        (
            "train.jsonl",
            OTTO,
            "otto",
            [
                (1, "12", None, "click", "1", 1659304800.025, None),
                (1, "12", None, "cart", "2", 1659304800.026, None),
                (1, "12", None, "purchase", "3", 1659304800.027, None),
            ],
        ),
        (
            "events.csv",
            RETAILROCKET,
            "retailrocket",
            [
                (2, "257597", "257597", "view", "355908", 1433221332.117, None),
                (3, "257597", "257597", "addtocart", "355908", 1433221332.118, None),
                (4, "257597", "257597", "transaction", "355908", 1433221332.119, None),
            ],
        ),
        (
            "train.txt",
            "SessionId\tItemId\tTime\n27\t5959\t1593536687.0\n",
            "session-rec",
            [(2, "27", None, "click", "5959", 1593536687.0, None)],
        ),
        (
            "yoochoose-clicks.dat",
            "1,2014-04-07T10:51:09.277Z,214536502,0\n",
            "yoochoose-clicks",
            [(1, "1", None, "click", "214536502", 1396867869.277, None)],
        ),
        (
            "yoochoose-buys.dat",
            "420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n",
            "yoochoose-buys",
            [(1, "420374", None, "purchase", "214537888", 1396809898.314, None)],
        ),
    ],
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_each_format_is_recognised_and_read(
    tmp_path: Path,
    name: str,
    text: str,
    format_: str,
    expected: list[Said],
    *,
    is_compressed: bool,
) -> None:
    """The recognised format equals the named one, compressed or not, and the rows are read."""
    path = tmp_path / f"{name}{'.gz' if is_compressed else ''}"
    path.write_bytes(gzip.compress(text.encode()) if is_compressed else text.encode())
    assert format_ in names()
    assert kept(path) == kept(path, format_) == expected
    assert refused(path) == {}


@pytest.mark.parametrize("name", ["events.csv", "ratings.csv", "retailrocket.csv"])
def test_users_can_be_read_as_sessions(tmp_path: Path, name: str) -> None:
    """The first column becomes an anonymous session on demand."""
    texts = {
        "events.csv": CSV + "1,i,click,1600000000\n",
        "ratings.csv": "userId,movieId,rating,timestamp\n1,i,5,1147880044\n",
        "retailrocket.csv": RETAILROCKET.replace("257597", "1"),
    }
    path = tmp_path / name
    path.write_text(texts[name])
    assert {said[1:3] for said in kept(path)} == {("1", "1")}
    assert {said[1:3] for said in kept(path, as_="sessions")} == {("1", None)}


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("a.csv", b"u,i,click", "not 4 columns"),
        ("a.csv", b"u,i,click,1,1", "not 4 columns"),
        ("a.csv", b"u,i,click,soon", "TIMESTAMP: not a time: 'soon' in column ts"),
        ("a.csv", b"u,i,click,nan", "TIMESTAMP: empty in column ts"),
        ("a.csv", b"u,i,click,1_000", "not a time"),
        ("a.csv", b"u,i,click,-5", "before 1990"),
        ("a.csv", b"u,i,click,1700000301", "in the future"),
        ("a.csv", b"u,i,,1600000000", "EVENT_TYPE: empty in column type"),
        ("a.csv", b"u" * 257 + b",i,click,1600000000", "more than 256 characters"),
        ("a.csv", b"u,\xff,click,1600000000", "not UTF-8 text"),
        ("a.csv", b'u,"i,click,1600000000', "a quote that does not close"),
        ("a.csv", b"u,i\rj,click,1600000000", "ITEM_ID: control characters"),
        ("a.csv", b"x" * (MAX_LINE_CHARS + 1), "line of more than"),
        ("u.data", b"1\t2\tgood\t881250949", "EVENT_VALUE: not a number: 'good'"),
        ("u.data", b"1 2 3 881250949", "not 4 columns"),
        ("a-clicks.dat", b"1,yesterday,2,0", "not a time"),
        ("a-clicks.dat", b"1,0001-01-01T00:00:00+14:00,2,0", "before 1990"),
        ("a.jsonl", b"{}", "eventList: no list of events"),
        ("a.jsonl", b'{"x":' * 40_000, "not JSON"),
    ],
)
def test_a_bad_row_is_reported_and_skipped(
    tmp_path: Path, name: str, line: bytes, reason: str
) -> None:
    """A bad row has its line number, and the rows around it are kept."""
    good = {
        "a.csv": b"u,i,click,1600000000",
        "u.data": b"1\t2\t3\t881250949",
        "a-clicks.dat": b"1,2014-04-07T10:51:09Z,2,0",
        "a.jsonl": JSONL.strip().encode(),
    }[name]
    header = [CSV.strip().encode()] if name == "a.csv" else []
    path = tmp_path / name
    path.write_bytes(b"\n".join([*header, good, line, good]))
    bad_line = len(header) + 2
    assert list(refused(path)) == [bad_line]
    assert re.search(reason, refused(path)[bad_line])
    assert {said[0] for said in kept(path)} == {bad_line - 1, bad_line + 1}


def test_one_bad_event_of_an_otto_session_is_reported(tmp_path: Path) -> None:
    """The session's other events are kept."""
    path = tmp_path / "train.jsonl"
    path.write_text(OTTO.replace('"carts"', '"swaps"') + OTTO.replace('"session"', '"visit"'))
    assert [(said[0], said[4]) for said in kept(path)] == [(1, "1"), (1, "3")]
    found = refused(path)
    assert list(found) == [1, 2]
    assert "not a type of event: 'swaps'" in found[1]


def test_a_cut_off_file_is_an_error(tmp_path: Path) -> None:
    """The error names it; its beginning is not taken for the whole."""
    path = tmp_path / "events.csv.gz"
    lines = [f"u{n},{n * 7919 % 10007},click,{1600000000 + n}" for n in range(5000)]
    packed = gzip.compress((CSV + "\n".join(lines)).encode())
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UnreadableRecording, match=r"events\.csv\.gz: damaged"):
        kept(path)


@pytest.mark.parametrize(
    ("name", "text", "format_"),
    [
        ("events.txt", "7,9,click,1600000000\n", None),
        ("empty.csv", "", None),
        ("events.csv", "userId,movieId,songId,ts\n", "csv"),
        ("events.csv", CSV, "parquet"),
    ],
)
def test_an_unknown_format_is_refused(
    tmp_path: Path, name: str, text: str, format_: str | None
) -> None:
    """A file that is nothing we know is not guessed at."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((UnreadableRecording, CannotPrepare)):
        kept(path, format_)


def test_the_same_rows_have_the_same_event_ids(tmp_path: Path) -> None:
    """Reading twice, and a row repeated word for word, name the same events; others differ."""
    path = tmp_path / "events.csv"
    rows = [
        f"{what},{FIRST_S + n}"
        for what, n in [
            ("u,i,click", 1), ("u,i,click", 1), ("u,i,click", 2), ("u,i,cart", 1),
            ("u,j,click", 1), ("v,i,click", 1),
        ]
    ]  # fmt: skip
    path.write_text(CSV + "\n".join(rows))

    def ids() -> list[str | None]:
        return [
            message.event_list[0].event_id
            for _, message in read_events(path, now_s=NOW_S)
            if isinstance(message, PutEvents)
        ]

    first = ids()
    assert first == ids()
    assert first[0] == first[1]
    assert len(set(first)) == 5


def test_reading_resumes_after_a_line(tmp_path: Path) -> None:
    """Rows up to the line are passed over; the header still counts as line 1."""
    path = tmp_path / "events.csv"
    path.write_text(CSV + "".join(f"u,i{n},click,{1600000000 + n}\n" for n in range(2, 9)))
    rest = [line for line, _ in read_events(path, now_s=NOW_S, after_line=5)]
    assert rest == [6, 7, 8]


GOOD_ROWS = st.tuples(
    st.sampled_from(["u1", "u2", "ü"]), st.integers(1, 10**9), st.sampled_from(["click", "cart"])
).map(lambda row: f"{row[0]},i{row[1]},{row[2]},{FIRST_S + row[1] % 1000}".encode())
BAD_ROWS = st.one_of(
    st.sampled_from([b",,,", b"u,i,click,x", b"u,i", b"\xff\xfe", b'"', b"x" * 300 + b",i,a,1"]),
    st.binary(min_size=1, max_size=40).map(lambda noise: b"\x80" + noise.replace(b"\n", b"")),
)


@given(
    rows=st.lists(
        st.one_of(GOOD_ROWS.map(lambda row: (True, row)), BAD_ROWS.map(lambda row: (False, row))),
        max_size=30,
    ),
    is_compressed=st.booleans(),
)
def test_good_rows_are_kept_and_bad_rows_reported(
    rows: list[tuple[bool, bytes]], *, is_compressed: bool
) -> None:
    """In any mixture exactly the good rows are kept, and each bad one is reported with its line."""
    content = CSV.encode() + b"\n".join(row for _, row in rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        path.write_bytes(gzip.compress(content) if is_compressed else content)
        good = [said[:3] + said[4:5] for said in kept(path)]
        bad = list(refused(path))
    numbered = list(enumerate(rows, start=2))
    expected = [
        (line, *row.decode().split(",")[:2]) for line, (is_good, row) in numbered if is_good
    ]
    assert [(line, user, item) for line, user, _, item in good] == expected
    assert bad == [line for line, (is_good, _) in numbered if not is_good]


@given(
    sessions=st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=40),
    events_per_message=st.integers(1, 10),
)
def test_grouping_keeps_every_event_in_order(
    sessions: list[tuple[str, bool]], events_per_message: int
) -> None:
    """Only neighbours of one session share a message, and no line counts as done too early."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        path.write_text(
            CSV
            + "\n".join(
                f"{session},i{n},click,{FIRST_S + n}" if is_good else "bad"
                for n, (session, is_good) in enumerate(sessions, start=2)
            )
        )
        rows = [
            (line, message)
            for line, message in read_events(path, now_s=NOW_S)
            if isinstance(message, PutEvents)
        ]
    seen: list[tuple[str, str | None]] = []
    done = 0
    for message, completes in group_into_messages(rows, events_per_message):
        assert 1 <= len(message.event_list) <= events_per_message
        seen += [(message.session_id, event.item_id) for event in message.event_list]
        assert completes >= int(str(seen[-1][1])[1:]) > done
        done = completes
    good = [(s, f"i{n}") for n, (s, is_good) in enumerate(sessions, start=2) if is_good]
    assert seen == good


@pytest.mark.parametrize("events_per_message", [0, 11])
def test_a_message_has_one_to_ten_events(events_per_message: int) -> None:
    """Another number is refused before anything is read."""
    with pytest.raises(ValueError, match="1 to 10"):
        next(group_into_messages([], events_per_message))
