"""Formats of events nested in their sessions: PutEvents messages, and OTTO's sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidRecord
from streams.reading.formats.file_format import FileSample, Format


def _put_events(sample: FileSample) -> str:
    is_so = sample.has_paths("eventList") and isinstance(sample.rows[0]["eventList"], list)
    return "messages with an eventList" if is_so else ""


def _message(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    user, session = record.get("userId"), record.get("sessionId")
    _check_list(record, "eventList")
    if not session:
        raise InvalidRecord("sessionId: empty")
    yield {**record, "owner": user or session, "anonymous": not user}


def _otto(sample: FileSample) -> str:
    return "sessions with their events" if sample.has_paths("session", "events") else ""


def _session(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    _check_list(record, "events")
    yield record


def _check_list(record: Mapping[str, Any], key: str) -> None:
    """Raise `InvalidRecord` unless there is something in a record's list of events."""
    if not isinstance(record.get(key), list) or not record[key]:
        raise InvalidRecord(f"{key}: no list of events")


EVENT_FORMATS: tuple[Format, ...] = (
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
        make_rows=_message,
        recognise=_put_events,
        replay_fields={
            "SESSION_ID": "sessionId",
            "EVENT_ID": "eventList.eventId",
            "PROPERTIES": "eventList.properties",
            "ANONYMOUS": "anonymous",
        },
        optional_fields=frozenset({"ITEM_ID"}),
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
        event_types={"clicks": "click", "carts": "cart", "orders": "purchase"},
        list_column="events",
        make_rows=_session,
        recognise=_otto,
        has_users=False,
    ),
)
