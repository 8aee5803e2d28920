"""The formats that are known; how to add one stands in `formats`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.formats import SHAPES, FileSample, Format
from streams.reading.research_formats import RESEARCH_FORMATS
from streams.reading.shop_formats import SHOP_FORMATS


def _put_events(sample: FileSample) -> str:
    is_so = sample.has("eventList") and isinstance(sample.rows[0]["eventList"], list)
    return "messages with an eventList" if is_so else ""


def _message(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    user, session = record.get("userId"), record.get("sessionId")
    _check_list(record, "eventList")
    if not session:
        raise InvalidRecord("sessionId: empty")
    yield {**record, "owner": user or session, "anonymous": not user}


def _otto(sample: FileSample) -> str:
    return "sessions with their events" if sample.has("session", "events") else ""


def _session(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    _check_list(record, "events")
    yield record


def _check_list(record: Mapping[str, Any], key: str) -> None:
    """Raise `InvalidRecord` unless there is something in a record's list of events."""
    if not isinstance(record.get(key), list) or not record[key]:
        raise InvalidRecord(f"{key}: no list of events")


_EVENT_FORMATS = (
    Format(
        "put-events",
        "PutEvents messages, one a line",
        fields={
            "USER_ID": "owner",
            "ITEM_ID": "eventList.itemId",
            "TIMESTAMP": "eventList.sentAt",
            "EVENT_TYPE": "eventList.eventType",
            "EVENT_VALUE": "eventList.eventValue",
            "IMPRESSION": "eventList.impression",
            "RECOMMENDATION_ID": "eventList.recommendationId",
            "EVENT_ATTRIBUTION_SOURCE": "eventList.metricAttribution.eventAttributionSource",
        },
        list_column="eventList",
        rows=_message,
        fits=_put_events,
        extra={
            "SESSION_ID": "sessionId",
            "EVENT_ID": "eventList.eventId",
            "PROPERTIES": "eventList.properties",
            "ANONYMOUS": "anonymous",
        },
        optional=frozenset({"ITEM_ID"}),
    ),
    Format(
        "otto",
        "OTTO sessions, one a line",
        fields={
            "USER_ID": "session",
            "ITEM_ID": "events.aid",
            "TIMESTAMP": "events.ts",
            "EVENT_TYPE": "events.type",
        },
        types={"clicks": "click", "carts": "cart", "orders": "purchase"},
        list_column="events",
        rows=_session,
        fits=_otto,
        has_users=False,
    ),
)

FORMATS: tuple[Format, ...] = (*_EVENT_FORMATS, *RESEARCH_FORMATS, *SHOP_FORMATS)

NAMES = (*SHAPES, *(each.name for each in FORMATS))
"""What `--format` takes."""


def check_format_name(name: str) -> None:
    """Raise `UnreadableRecording` unless a format has this name, or it is empty."""
    if name and name not in NAMES:
        raise UnreadableRecording(f"no format {name!r}: there are {', '.join(NAMES)}")


def format_named(name: str) -> Format | None:
    """The format of a name; `None` if it is none of these."""
    return next((each for each in FORMATS if each.name == name), None)
