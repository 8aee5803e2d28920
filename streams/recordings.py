"""Recorded interactions of the public data sets and of our own, read a line at a time.

A reader gives each row with its line number as a valid `PutEvents` or as the `InvalidEvent` that
says what is wrong with it; a bad row never ends the reading. Rows without an eventId get one made
of their content, so that reading a file twice gives the same events, and a row that is repeated
word for word is one event.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BufferedIOBase, BufferedReader
from itertools import chain, count
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from models.errors import InvalidEvent, UnreadableRecording
from models.events import Event, PutEvents, encode, parse

Owner = Literal["users", "sessions"]
"""Whether the first column of a row is somebody we know or an anonymous session."""

Row = tuple[int, PutEvents | InvalidEvent]
"""A line number, the first being 1, and what stands there; a line may hold several messages."""

MAX_LINE_BYTES = 1024 * 1024
MAX_EVENTS = 10

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_OTTO_TYPES = {"clicks": "click", "carts": "cart", "orders": "purchase"}
_RETAILROCKET_TYPES = frozenset({"view", "addtocart", "transaction"})


class _Interaction(NamedTuple):
    """What one row says, before it is checked."""

    owner: str
    item: str
    event_type: str
    sent_at: float
    value: float | None = None


class _OttoEvent(msgspec.Struct):
    aid: int
    ts: float
    type: Literal["clicks", "carts", "orders"]


class _OttoSession(msgspec.Struct):
    session: int | str
    events: list[msgspec.Raw]


_otto_session = msgspec.json.Decoder(_OttoSession)
_otto_event = msgspec.json.Decoder(_OttoEvent)

_Check = Callable[[bytes], PutEvents]
_Messages = Callable[[bytes], list[PutEvents | InvalidEvent]]
_Line = tuple[int, bytes | InvalidEvent]


@dataclass(frozen=True)
class _Table:
    """A format with one interaction a line, in columns."""

    columns: tuple[str, ...]
    interaction: Callable[[list[str]], _Interaction]
    split: Callable[[str], list[str]]
    has_header: bool = False
    has_users: bool = True


def _comma_separated(line: str) -> list[str]:
    try:
        (fields,) = csv.reader([line], strict=True)
    except (csv.Error, ValueError) as error:
        raise InvalidEvent(f"not a line of CSV: {error}") from error
    return fields


def _number(text: str) -> float:
    """A finite number; Python's own extras, such as `1_000`, are none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise InvalidEvent(f"not a number: {text[:40]!r}")
    return number


def _moment(text: str) -> float:
    """Seconds since the epoch of an ISO 8601 time, in UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidEvent(f"not an ISO 8601 time: {text[:40]!r}") from error


def _plain(fields: list[str]) -> _Interaction:
    user, item, event_type, ts = fields
    return _Interaction(user, item, event_type, _number(ts))


def _rating(fields: list[str]) -> _Interaction:
    user, item, rating, ts = fields
    return _Interaction(user, item, "rating", _number(ts), _number(rating))


def _retailrocket(fields: list[str]) -> _Interaction:
    ts, visitor, event_type, item, _ = fields
    if event_type not in _RETAILROCKET_TYPES:
        raise InvalidEvent(f"not a type of event: {event_type[:40]!r}")
    return _Interaction(visitor, item, event_type, _number(ts))


def _yoochoose(event_type: str, fields: list[str]) -> _Interaction:
    return _Interaction(fields[0], fields[2], event_type, _moment(fields[1]))


def _session_rec(fields: list[str]) -> _Interaction:
    session, item, ts = fields
    return _Interaction(session, item, "click", _number(ts))


_RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
_TABLES: Mapping[str, _Table] = {
    "csv": _Table(("user", "item", "type", "ts"), _plain, _comma_separated, has_header=True),
    "movielens-data": _Table(_RATING_COLUMNS, _rating, lambda line: line.split("\t")),
    "movielens-csv": _Table(_RATING_COLUMNS, _rating, _comma_separated, has_header=True),
    "movielens-dat": _Table(_RATING_COLUMNS, _rating, lambda line: line.split("::")),
    "retailrocket": _Table(
        ("timestamp", "visitorid", "event", "itemid", "transactionid"),
        _retailrocket,
        _comma_separated,
        has_header=True,
    ),
    "session-rec": _Table(
        ("SessionId", "ItemId", "Time"),
        _session_rec,
        lambda line: line.split("\t"),
        has_header=True,
        has_users=False,
    ),
    "yoochoose-clicks": _Table(
        ("session", "timestamp", "item", "category"),
        partial(_yoochoose, "click"),
        _comma_separated,
        has_users=False,
    ),
    "yoochoose-buys": _Table(
        ("session", "timestamp", "item", "price", "quantity"),
        partial(_yoochoose, "purchase"),
        _comma_separated,
        has_users=False,
    ),
}

_ENDINGS = {
    "u.data": "movielens-data",
    "ratings.dat": "movielens-dat",
    "-clicks.dat": "yoochoose-clicks",
    "-buys.dat": "yoochoose-buys",
}

FORMATS = ("csv", "jsonl", "otto", *(name for name in _TABLES if name != "csv"))
"""Names of the formats that can be read."""


def read(
    path: Path,
    *,
    now_s: float,
    format_: str | None = None,
    as_: Owner = "users",
    future_limit_s: float = 300.0,
    after_line: int = 0,
) -> Generator[Row]:
    """The rows of a recorded file in its order; blank lines and the header are no rows.

    Parameters
    ----------
    path
        Plain or gzip-compressed, whatever it is called.
    now_s
        The present; an event later than this by more than `future_limit_s` is a bad row.
    format_
        One of `FORMATS`; guessed from the name and the first line when not given.
    as_
        `"users"`: the first column is both user and session, where the format knows users;
        `"sessions"`: it is an anonymous session.
    after_line
        Rows up to this line are passed over.

    Raises
    ------
    UnreadableRecording
        When the format is unknown or the header is not the format's.
    OSError
        When the file cannot be opened.
    """
    if format_ is not None and format_ not in FORMATS:
        raise UnreadableRecording(f"no format {format_!r}: there are {', '.join(FORMATS)}")
    with path.open("rb") as raw:
        lines = _lines(_decompressed(raw))
        first = next(lines, (1, b""))
        header = first[1] if isinstance(first[1], bytes) else b""
        name = format_ or _guess(path, header)
        table = _TABLES.get(name)
        if table is None or not table.has_header:
            lines = chain([first], lines)
        elif _header(header) != table.columns:
            raise UnreadableRecording(
                f"{path} does not begin with the header {','.join(table.columns)}"
            )
        check = partial(parse, now_s=now_s, future_limit_s=future_limit_s)
        messages = _messages(name, check, has_users=as_ == "users")
        for number, line in lines:
            if number <= after_line:
                continue
            if isinstance(line, InvalidEvent):
                yield number, line
            elif line.strip():
                yield from ((number, message) for message in messages(line))


def grouped(
    rows: Iterable[tuple[int, PutEvents]], events_per_message: int
) -> Iterator[tuple[PutEvents, int]]:
    """Rows of one session that follow each other as one message, and the line this completes.

    Once a message and those before it are done, all lines up to and including that line are: a
    message is held back until the row after it is known.

    >>> from models.events import Event, PutEvents
    >>> rows = [(n, PutEvents("s", [Event("click", 1.0, item_id=str(n))])) for n in (2, 3, 5)]
    >>> [(len(message.event_list), line) for message, line in grouped(rows, 2)]
    [(2, 4), (1, 5)]
    """
    if not 1 <= events_per_message <= MAX_EVENTS:
        raise ValueError(f"events_per_message must be 1 to {MAX_EVENTS}")
    held: PutEvents | None = None
    line = 0
    for line, message in rows:
        together = _together(held, message, events_per_message) if held is not None else message
        if held is not None and together is None:
            yield held, line - 1
        held = together or message
    if held is not None:
        yield held, line


def _together(first: PutEvents, second: PutEvents, limit: int) -> PutEvents | None:
    """Both as one message, when they are of one session and short enough."""
    if len(first.event_list) + len(second.event_list) > limit:
        return None
    together = msgspec.structs.replace(first, event_list=[*first.event_list, *second.event_list])
    is_same = msgspec.structs.replace(second, event_list=together.event_list) == together
    return together if is_same else None


def _decompressed(raw: BufferedReader) -> BufferedIOBase:
    return gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP_MAGIC else raw


def _lines(stream: BufferedIOBase) -> Iterator[_Line]:
    """The lines by number, without their ends; none is kept that is too long."""
    for number in count(1):
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
            is_long = len(line) > MAX_LINE_BYTES
            rest = line
            while is_long and rest and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield number, InvalidEvent(f"the file is damaged from here on: {error}")
            return
        if not line:
            return
        if is_long:
            yield number, InvalidEvent(f"line of more than {MAX_LINE_BYTES} bytes")
        else:
            yield number, line.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")


def _header(line: bytes) -> tuple[str, ...]:
    text = line.decode(errors="replace")
    return tuple(name.strip(' "') for name in text.split("\t" if "\t" in text else ","))


def _guess(path: Path, first_line: bytes) -> str:
    """The format that the file's name or its first line tells."""
    name = path.name.lower().removesuffix(".gz")
    for ending, format_ in _ENDINGS.items():
        if name.endswith(ending):
            return format_
    if name.endswith(".jsonl"):
        is_otto = b'"events"' in first_line and b'"eventList"' not in first_line
        return "otto" if is_otto else "jsonl"
    header = _header(first_line)
    for format_, table in _TABLES.items():
        if table.has_header and header == table.columns:
            return format_
    raise UnreadableRecording(
        f"the format of {path} is not known: name one of {', '.join(FORMATS)}"
    )


def _messages(name: str, check: _Check, *, has_users: bool) -> _Messages:
    """What turns a line of this format into its messages."""
    if name == "otto":
        return partial(_otto, check)
    table = _TABLES.get(name)
    if table is None:
        return partial(_one, check)
    return partial(_one, partial(_interaction, table, check, has_users and table.has_users))


def _one(message: _Check, line: bytes) -> list[PutEvents | InvalidEvent]:
    try:
        return [message(line)]
    except InvalidEvent as error:
        return [error]


def _interaction(table: _Table, check: _Check, has_user: bool, line: bytes) -> PutEvents:
    said = table.interaction(_fields(table, line))
    event = Event(
        event_type=said.event_type,
        sent_at=said.sent_at,
        item_id=said.item,
        event_value=said.value,
    )
    user_id = said.owner if has_user else None
    return check(encode(PutEvents(said.owner, [event], user_id=user_id)))


def _fields(table: _Table, line: bytes) -> list[str]:
    try:
        fields = table.split(line.decode())
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8: {error}") from error
    if len(fields) != len(table.columns):
        raise InvalidEvent(f"{len(fields)} columns instead of {len(table.columns)}")
    return fields


def _otto(check: _Check, line: bytes) -> list[PutEvents | InvalidEvent]:
    try:
        recorded = _otto_session.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [InvalidEvent(str(error))]
    messages: list[PutEvents | InvalidEvent] = []
    for n, raw in enumerate(recorded.events):
        try:
            said = _otto_event.decode(raw)
            event = Event(_OTTO_TYPES[said.type], said.ts, item_id=str(said.aid))
            messages.append(check(encode(PutEvents(str(recorded.session), [event]))))
        except (InvalidEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            messages.append(InvalidEvent(f"{error} - at `$.events[{n}]`"))
    return messages
