"""Events recorded in files, for `replay` and `evaluate`.

Files have any format of `streams.reading`. Each row is a valid `PutEvents` or an error, with its
place; a bad row never ends the reading. An event without an eventId gets one derived from its
content: a file read twice gives the same events, and identical rows are one event.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from models.errors import InvalidEvent, InvalidRecord, UnreadableRecording
from models.events import Event, MetricAttribution, PutEvents, encode, parse
from streams.object_store import Objects
from streams.reading.column_mapping import ColumnMapping
from streams.reading.fields import CheckedRow, RowChecker
from streams.reading.read_options import ReadOptions
from streams.reading.reader import read_rows
from streams.reading.recognition import RecognisedSource, recognise

Owner = Literal["users", "sessions"]
"""Meaning of a row's user: a known user, or an anonymous session."""

RecordedRow = tuple[int, PutEvents | InvalidEvent]
"""Place of a row (1 for the first line of a file), with its event or error."""

EVENT_TYPE = "interaction"
"""Type of events in files without types."""

MAX_EVENTS = 10
MAX_IMPRESSION = 25

_PATH = re.compile(r" - at `\$\.?(?:eventList\[0\]\.?)?([^`]*)`")


class Recording:
    """A recognised source of events.

    Parameters
    ----------
    source
        A file, a folder, a pattern, or s3://bucket/key.
    options
        Options of reading it.

    Raises
    ------
    UnreadableRecording, CannotPrepare
        Its format is unknown or ambiguous.
    """

    def __init__(self, source: str, options: ReadOptions, objects: Objects) -> None:
        self.source: RecognisedSource = recognise(objects, source, options)
        self.mapping: ColumnMapping = self.source.map_columns()
        self._objects = objects

    @property
    def description(self) -> str:
        """The recognised format, its evidence and the fields, in one line for users."""
        columns = self.source.columns
        fields = ", ".join(
            f"{name} is {origin!r}" if isinstance(origin, str) else f"{name} from {columns[origin]}"
            for name, origin in self.mapping.fields.items()
        )
        return f"{self.source.location}: {'; '.join(self.source.notes)}; {fields}"

    def events(
        self, *, now_s: float, as_: Owner = "users", future_limit_s: float = 300.0, after: int = 0
    ) -> Generator[RecordedRow]:
        """Events of all rows beyond a place.

        Parameters
        ----------
        now_s
            Present time in seconds since the epoch.
        as_
            `"users"`: the user of a row is also its session; `"sessions"`: only a session.
        """
        source = self.source
        format_ = source.format
        check = RowChecker(
            source.field_sources(self.mapping),
            source.read_time,
            latest_s=now_s + future_limit_s,
            optional=format_.optional_fields if format_ else frozenset(),
        )
        extra = {
            name: source.value_getter(path)
            for name, path in (format_.replay_fields if format_ else {}).items()
        }
        has_user = as_ == "users" and (format_ is None or format_.has_users)
        needed = source.needed_columns(self.mapping)
        for place, values in read_rows(self._objects, source, needed=needed, after=after):
            try:
                if isinstance(values, InvalidRecord):
                    raise values
                event = _event(check(values), {name: get(values) for name, get in extra.items()},
                              has_user=has_user)  # fmt: skip
                yield place, parse(encode(event), now_s=now_s, future_limit_s=future_limit_s)
            except (InvalidRecord, UnicodeEncodeError) as error:
                yield place, InvalidEvent(str(error))
            except InvalidEvent as error:
                yield place, InvalidEvent(_PATH.sub(r" in \1", str(error)))


def read_events(
    path: Path | str,
    *,
    now_s: float,
    format_: str | None = None,
    as_: Owner = "users",
    future_limit_s: float = 300.0,
    after_line: int = 0,
    options: ReadOptions | None = None,
    on_recognised: Callable[[str], object] = lambda _: None,
) -> Generator[RecordedRow]:
    """Recognise a source and read its events; see `Recording.events`.

    Parameters
    ----------
    on_recognised
        Called with the description of the recognised source.
    """
    recording = Recording(str(path), options or ReadOptions(format=format_ or ""), Objects())
    on_recognised(recording.description)
    yield from recording.events(
        now_s=now_s, as_=as_, future_limit_s=future_limit_s, after=after_line
    )


def _event(checked: CheckedRow, extra: Mapping[str, Any], *, has_user: bool) -> PutEvents:
    values = checked.values
    user = values["USER_ID"]
    source = values.get("EVENT_ATTRIBUTION_SOURCE")
    shown = [item for item in (values.get("IMPRESSION") or "").split("|") if item]
    event = Event(
        values.get("EVENT_TYPE") or EVENT_TYPE,
        values["TIMESTAMP"],
        event_id=extra.get("EVENT_ID"),
        item_id=values.get("ITEM_ID"),
        event_value=values.get("EVENT_VALUE"),
        impression=shown[:MAX_IMPRESSION] or None,
        recommendation_id=values.get("RECOMMENDATION_ID"),
        metric_attribution=None if source is None else MetricAttribution(source),
        properties=extra.get("PROPERTIES"),
    )
    is_known = has_user and not extra.get("ANONYMOUS")
    return PutEvents(
        str(extra.get("SESSION_ID") or user), [event], user_id=user if is_known else None
    )


def no_good_rows(recording: Recording, first: Sequence[tuple[int, str]]) -> UnreadableRecording:
    """The error of a source without a good row, with the first reasons."""
    if not first:
        return UnreadableRecording(f"{recording.source.location}: it has no row that can be used")
    shown = "; ".join(
        f"{recording.source.row_label(place)}: {reason}" for place, reason in first[:3]
    )
    return UnreadableRecording(f"{recording.source.location}: no row is good: {shown}")


def group_into_messages(
    rows: Iterable[tuple[int, PutEvents]], events_per_message: int
) -> Iterator[tuple[PutEvents, int]]:
    """Group neighbouring rows of a session into messages, each with the last line it completes.

    Once a message and those before it are acknowledged, all lines up to that one are. A message is
    given after the row behind it was read.

    >>> from models.events import Event, PutEvents
    >>> rows = [(n, PutEvents("s", [Event("click", 1.0, item_id=str(n))])) for n in (2, 3, 5)]
    >>> [(len(message.event_list), line) for message, line in group_into_messages(rows, 2)]
    [(2, 4), (1, 5)]
    """
    if not 1 <= events_per_message <= MAX_EVENTS:
        raise ValueError(f"events_per_message must be 1 to {MAX_EVENTS}")
    held: PutEvents | None = None
    line = 0
    for line, message in rows:
        merged = _merged(held, message, events_per_message) if held is not None else message
        if held is not None and merged is None:
            yield held, line - 1
        held = merged or message
    if held is not None:
        yield held, line


def _merged(first: PutEvents, second: PutEvents, limit: int) -> PutEvents | None:
    """Two messages as one; None if their sessions differ or they are too long."""
    if len(first.event_list) + len(second.event_list) > limit:
        return None
    merged = msgspec.structs.replace(first, event_list=[*first.event_list, *second.event_list])
    is_same = msgspec.structs.replace(second, event_list=merged.event_list) == merged
    return merged if is_same else None
