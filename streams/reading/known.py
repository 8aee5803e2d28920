"""The formats that are known; how to add one stands in `formats`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.formats import SHAPES, Format, Sample
from streams.reading.research import RESEARCH
from streams.reading.shops import SHOPS

_RATINGS = {
    "USER_ID": "userId",
    "ITEM_ID": "movieId",
    "TIMESTAMP": "timestamp",
    "EVENT_VALUE": "rating",
}
_RATING = {"EVENT_TYPE": "rating"}
_RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
_VISITS = {"USER_ID": "session", "ITEM_ID": "item", "TIMESTAMP": "timestamp"}


def _put_events(sample: Sample) -> str:
    is_so = sample.has("eventList") and isinstance(sample.rows[0]["eventList"], list)
    return "messages with an eventList" if is_so else ""


def _message(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    events, user, session = (record.get(key) for key in ("eventList", "userId", "sessionId"))
    if not isinstance(events, list) or not events:
        raise InvalidRecord("eventList: not a list of events")
    if not session:
        raise InvalidRecord("sessionId: empty")
    yield {**record, "owner": user or session, "anonymous": not user}


def _otto(sample: Sample) -> str:
    return "sessions with their events" if sample.has("session", "events") else ""


def _session(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(record.get("events"), list):
        raise InvalidRecord("events: not a list of events")
    yield record


FORMATS: tuple[Format, ...] = (
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
        each="eventList",
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
        "movielens-data",
        "MovieLens u.data",
        columns=_RATING_COLUMNS,
        fields=_RATINGS,
        constants=_RATING,
        file_names=("u.data",),
        separator="\t",
        has_header=False,
    ),
    Format(
        "movielens-csv",
        "MovieLens ratings.csv",
        columns=_RATING_COLUMNS,
        fields=_RATINGS,
        constants=_RATING,
    ),
    Format(
        "movielens-dat",
        "MovieLens ratings.dat",
        columns=_RATING_COLUMNS,
        fields=_RATINGS,
        constants=_RATING,
        file_names=("ratings.dat",),
        separator="::",
        has_header=False,
    ),
    Format(
        "movielens-movies",
        "MovieLens movies.dat",
        columns=("movieId", "title", "genres"),
        fields={"ITEM_ID": "movieId"},
        file_names=("movies.dat",),
        separator="::",
        has_header=False,
        dataset="items",
    ),
    Format(
        "movielens-users",
        "MovieLens users.dat",
        columns=("userId", "gender", "age", "occupation", "zipCode"),
        fields={"USER_ID": "userId"},
        file_names=("users.dat",),
        separator="::",
        has_header=False,
        dataset="users",
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
        each="events",
        rows=_session,
        fits=_otto,
        has_users=False,
    ),
    Format(
        "retailrocket",
        "RetailRocket events.csv",
        columns=("timestamp", "visitorid", "event", "itemid", "transactionid"),
        fields={
            "USER_ID": "visitorid",
            "ITEM_ID": "itemid",
            "TIMESTAMP": "timestamp",
            "EVENT_TYPE": "event",
        },
        types={name: name for name in ("view", "addtocart", "transaction")},
    ),
    Format(
        "session-rec",
        "session-rec's prepared sets",
        columns=("SessionId", "ItemId", "Time"),
        fields={"USER_ID": "SessionId", "ITEM_ID": "ItemId", "TIMESTAMP": "Time"},
        constants={"EVENT_TYPE": "click"},
        has_users=False,
    ),
    Format(
        "yoochoose-clicks",
        "YooChoose yoochoose-clicks.dat",
        columns=("session", "timestamp", "item", "category"),
        fields=_VISITS,
        constants={"EVENT_TYPE": "click"},
        file_names=("-clicks.dat",),
        separator=",",
        has_header=False,
        has_users=False,
    ),
    Format(
        "yoochoose-buys",
        "YooChoose yoochoose-buys.dat",
        columns=("session", "timestamp", "item", "price", "quantity"),
        fields=_VISITS,
        constants={"EVENT_TYPE": "purchase"},
        file_names=("-buys.dat",),
        separator=",",
        has_header=False,
        has_users=False,
    ),
    *RESEARCH,
    *SHOPS,
)

NAMES = (*SHAPES, *(each.name for each in FORMATS))
"""What `--format` takes."""


def check_name(name: str) -> None:
    """Raise `UnreadableRecording` unless a format has this name, or it is empty."""
    if name and name not in NAMES:
        raise UnreadableRecording(f"no format {name!r}: there are {', '.join(NAMES)}")
