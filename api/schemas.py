"""What the API says: answers, and its one kind of error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from fastapi import Response
from msgspec import Meta

from models.metadata_records import Value
from models.serving.answers import Answer, Recommendation, ServingLevel


class ResponseBody(msgspec.Struct, frozen=True, rename="camel"):
    """What an answer is encoded from; the API reference shows the same."""


class Freshness(ResponseBody, frozen=True):
    """How far the answer knows what has happened."""

    user_event_at: Annotated[
        float | None,
        Meta(description="When this user's newest event in effect was accepted, Unix seconds."),
    ]
    newest_event_age_s: Annotated[
        float | None, Meta(description="Age of the newest event in effect, of anybody.")
    ]
    after_reached: Annotated[
        bool | None,
        Meta(description="Whether the events of ?after= are in effect; null where not asked."),
    ]


class Recommendations(ResponseBody, frozen=True):
    """An answer: items, best first."""

    recommendation_id: Annotated[str, Meta(description="Send it with the clicks that follow.")]
    recipe: Annotated[str, Meta(description="What made the list, such as user-personalization.")]
    level: Annotated[
        ServingLevel,
        Meta(
            description="The rung that answered: ranked, retrieved (an order that was not learned),"
            " trending, or cached (trending as last known, for Redis is away)."
        ),
    ]
    items: list[Recommendation]
    freshness: Freshness


class Accepted(ResponseBody, frozen=True):
    """Events that Kafka has acknowledged."""

    accepted: int
    event_ids: list[str]
    after: Annotated[
        str, Meta(description="Token for ?after=: wait until these events have taken effect.")
    ]


class AcceptedRecords(ResponseBody, frozen=True):
    """Records that Kafka has acknowledged."""

    accepted: int
    after: Annotated[
        str, Meta(description="Token for ?after=: wait until these records are in effect.")
    ]


class Item(ResponseBody, frozen=True):
    """What is known of an item; times in Unix seconds."""

    item_id: str
    properties: Annotated[
        dict[str, Value] | None, Meta(description="As they were put; null if never.")
    ]
    created_at: Annotated[
        float | None,
        Meta(
            description="By its properties, or when it was first heard of; null without a record."
        ),
    ]
    updated_at: Annotated[float | None, Meta(description="Of the newest record.")]
    events: int
    purchases: int
    first_event_at: float | None
    last_event_at: float | None


class Erased(ResponseBody, frozen=True):
    """What there was of a user that is erased; what was still on its way is not counted."""

    user_id: str
    events: int
    sessions: int
    links: int
    records: Annotated[int, Meta(description="1 if there was metadata.")]
    after: Annotated[
        str, Meta(description="Token for ?after=: wait until the erasure is in effect.")
    ]


class TrackerStatus(ResponseBody, frozen=True):
    """What became of a tracker's events."""

    tracking_id: str
    forwarded: Annotated[int, Meta(description="Events that Amazon Personalize took.")]
    refused: Annotated[
        int, Meta(description="Events that it refused; they are in the dead letters.")
    ]
    waiting: Annotated[
        int, Meta(description="Events that were read from Kafka and not answered for.")
    ]
    oldest_waiting_age_s: float


class Forwarding(ResponseBody, frozen=True):
    """The trackers whose events are forwarded."""

    trackers: list[TrackerStatus]


class Health(ResponseBody, frozen=True):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody, frozen=True):
    """Whether all is there that the work needs."""

    status: Literal["ok", "missing"]
    missing: Annotated[
        list[str], Meta(description="What is not as it must be, in words: kafka, topics, redis.")
    ]
    unreadable: Annotated[
        list[str],
        Meta(
            description="Where a partition stands still, because what comes next in it cannot be"
            " decoded; all others go on."
        ),
    ]
    warnings: Annotated[
        list[str], Meta(description="What an operator should see to, though all works for now.")
    ]


class ErrorBody(ResponseBody, frozen=True):
    """What went wrong."""

    type: Annotated[
        str, Meta(description="A word to act on, such as invalid_request or unavailable.")
    ]
    message: Annotated[str, Meta(description="A sentence to read.")]


class Error(ResponseBody, frozen=True):
    """Every error of this API."""

    error: ErrorBody


RETRY_AFTER_S = 1
"""When a client may try again what is refused for now."""

encode = msgspec.json.Encoder().encode
"""JSON, without the cost of validating what this service made itself."""


def json_response(content: object, status: int = 200) -> Response:
    """A response of that JSON."""
    return Response(encode(content), status, media_type="application/json")


def error_response(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The one shape of an error; of one that passes by itself, with when to come again."""
    response = json_response(Error(ErrorBody(kind, message)), status)
    response.headers.update(headers or {})
    if status in {429, 503}:
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


def recommendations_body(
    answer: Answer, recommendation_id: str, *, now_s: float, reached: bool | None
) -> Recommendations:
    """The answer as it is sent, and how fresh it is."""
    newest = answer.newest_accepted_at
    age_s = round(max(0.0, now_s - newest), 3) if newest else None
    freshness = Freshness(answer.user_accepted_at or None, age_s, reached)
    return Recommendations(recommendation_id, answer.recipe, answer.level, answer.items, freshness)
