"""What the API says: the shapes of answers and of its one kind of error."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from models.answers import Answer


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ReasonShape(_Shape):
    """Why an item is there: an event of the user, or a list that the item heads."""

    source: str = Field(
        description="event, category, trending, popular, day, week, recent, new, history"
    )
    item_id: str | None = Field(None, description="The item of the causing event.")
    event_type: str | None = None
    occurred_at: float | None = Field(None, description="Unix seconds.")
    share: float | None = Field(None, description="Part of the item's co-visitation score.")


class RecommendationShape(_Shape):
    """One recommended item."""

    item_id: str
    score: float = Field(description="0 to 1; comparable within one answer.")
    reasons: list[ReasonShape] = Field([], description="Only where asked for.")


class FreshnessShape(_Shape):
    """How far the answer knows what has happened."""

    user_event_at: float | None = Field(
        description="When this user's newest event in effect was accepted, Unix seconds."
    )
    newest_event_age_s: float | None = Field(
        description="Age of the newest event in effect, of anybody."
    )
    after_reached: bool | None = Field(
        None, description="Whether the events of ?after= are in effect; null where not asked."
    )


class RecommendationsShape(_Shape):
    """An answer: items, best first."""

    recommendation_id: str = Field(description="Send it with the clicks that follow.")
    recipe: str
    level: str = Field(description="ranked, retrieved or trending: the rung that answered.")
    items: list[RecommendationShape]
    freshness: FreshnessShape


class AcceptedShape(_Shape):
    """Events that Kafka has acknowledged."""

    accepted: int
    event_ids: list[str]
    after: str = Field(description="Token for ?after=: wait until these events have taken effect.")


class AcceptedRecordsShape(_Shape):
    """Records that Kafka has acknowledged."""

    accepted: int
    after: str = Field(description="Token for ?after=: wait until these records are in effect.")


class ItemShape(_Shape):
    """What is known of an item; times in Unix seconds."""

    item_id: str
    properties: dict[str, Any] | None = Field(description="As they were put; null if never.")
    created_at: float | None = Field(
        description="By its properties, or when it was first heard of; null without a record."
    )
    updated_at: float | None = Field(description="Of the newest record.")
    events: int
    purchases: int
    first_event_at: float | None
    last_event_at: float | None


class ErasedShape(_Shape):
    """What was removed of a user."""

    user_id: str
    events: int
    sessions: int
    links: int
    records: int = Field(description="1 if there was metadata.")


class TrackerShape(_Shape):
    """What became of a tracker's events."""

    tracking_id: str
    forwarded: int = Field(description="Events that Amazon Personalize took.")
    refused: int = Field(description="Events that it refused; they are in the dead letters.")
    waiting: int = Field(description="Events that were read from Kafka and not answered for.")
    oldest_waiting_age_s: float


class ForwardingShape(_Shape):
    """The trackers whose events are forwarded."""

    trackers: list[TrackerShape]


class ErrorBody(BaseModel):
    """What went wrong."""

    type: str = Field(description="A word to act on, such as invalid_request or unavailable.")
    message: str = Field(description="A sentence to read.")


class ErrorShape(BaseModel):
    """Every error of this API."""

    error: ErrorBody


RETRY_AFTER_S = 1
"""When a client may try again what is refused for now."""

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorShape, "description": "The request breaks a rule; the message says which."},
    413: {"model": ErrorShape, "description": "The body is too large."},
    429: {"model": ErrorShape, "description": "Too many wait already; Retry-After says when."},
    503: {"model": ErrorShape, "description": "Kafka or Redis does not answer; try again."},
}

encode = msgspec.json.Encoder().encode
"""JSON, without the cost of validating what this service made itself."""


def json_response(content: object, status: int = 200) -> Response:
    """A response of that JSON."""
    return Response(encode(content), status, media_type="application/json")


def error_response(status: int, kind: str, message: str) -> Response:
    """The one shape of an error; of one that passes by itself, with when to come again."""
    response = json_response({"error": {"type": kind, "message": message}}, status)
    if status in {429, 503}:
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


def recommendations(
    answer: Answer, recommendation_id: str, *, now_s: float, reached: bool | None
) -> dict[str, Any]:
    """An answer as `RecommendationsShape` describes it."""
    newest = answer.newest_accepted_at
    return {
        "recommendationId": recommendation_id,
        "recipe": answer.recipe,
        "level": answer.level,
        "items": answer.items,
        "freshness": {
            "userEventAt": answer.user_accepted_at or None,
            "newestEventAgeS": round(max(0.0, now_s - newest), 3) if newest else None,
            "afterReached": reached,
        },
    }
