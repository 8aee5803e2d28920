"""Schemas of the native API's answers, and the one shape of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Response
from msgspec import Meta

from models.kafka_operations import WaitingLetter
from models.key_figures import KeyFigures
from models.metadata_records import Value
from models.serving.answers import Answer, AnsweredPlacement, Recommendation, ServingLevel
from models.serving.stage_times import StageTimes
from models.state.operations.figure_sums import FigureStep
from models.state.users.erasure_receipts import ErasureReceipt


class ResponseBody(msgspec.Struct, frozen=True, rename="camel"):
    """A JSON body that the API sends; the API reference shows its schema."""


class Freshness(ResponseBody, frozen=True):
    """The age of the events that the answer is based on."""

    user_event_at: Annotated[
        float | None,
        Meta(description="Time at which this user's newest event in effect was accepted, Unix s."),
    ]
    newest_event_age_s: Annotated[
        float | None, Meta(description="Age of the newest event in effect, of any user.")
    ]
    after_reached: Annotated[
        bool | None,
        Meta(description="True if the events of ?after= are in effect; null without ?after=."),
    ]


class Recommendations(ResponseBody, frozen=True):
    """Recommended items, best first."""

    recommendation_id: Annotated[str, Meta(description="Send it with the clicks that follow.")]
    recipe: Annotated[
        str, Meta(description="The recipe of the list, such as user-personalization.")
    ]
    level: Annotated[
        ServingLevel,
        Meta(
            description="How much stood behind the answer: ranked, retrieved (order not learned),"
            " trending, or cached (last known trending items, because Redis is away)."
        ),
    ]
    items: list[Recommendation]
    freshness: Freshness
    placement: AnsweredPlacement | msgspec.UnsetType = msgspec.UNSET
    stages_ms: Annotated[
        dict[str, float] | msgspec.UnsetType,
        Meta(
            description="With timing=true: milliseconds of each stage: wait (for the token), read"
            " (the state), candidates, features, scores, arrange (order, rules, names), reasons,"
            " properties. What a list does not need it does not have."
        ),
    ] = msgspec.UNSET


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
    """Metadata and counts of an item; times in Unix seconds."""

    item_id: str
    properties: Annotated[
        dict[str, Value] | None, Meta(description="Metadata as it was put; null if there is none.")
    ]
    created_at: Annotated[
        float | None,
        Meta(
            description="By its metadata, or the time of its first record; null without a record."
        ),
    ]
    updated_at: Annotated[float | None, Meta(description="Time of the newest record.")]
    is_hidden: Annotated[
        bool, Meta(description="True if its property HIDDEN keeps it out of every answer.")
    ]
    events: int
    purchases: int
    first_event_at: float | None
    last_event_at: float | None
    rates: Annotated[
        dict[str, float],
        Meta(
            description="Events an hour, weighted by type, of late: means that decay with a"
            " half-life of an hour, day, week, month. Empty without events."
        ),
    ]


class ListedItem(ResponseBody, frozen=True):
    """An item of a list, with its metadata; times in Unix seconds."""

    item_id: str
    properties: dict[str, Value]
    created_at: float
    updated_at: float
    is_hidden: bool


class Items(ResponseBody, frozen=True):
    """A page of items."""

    items: list[ListedItem]
    cursor: Annotated[str | None, Meta(description="For the next page; null if there is none.")]


class UserEvent(ResponseBody, frozen=True):
    """An event of a user's history."""

    item_id: Annotated[str | None, Meta(description="null for an event without an item.")]
    event_type: Annotated[str | None, Meta(description="null if its type has no name of its own.")]
    occurred_at: Annotated[float, Meta(description="Unix seconds.")]


class User(ResponseBody, frozen=True):
    """Metadata and newest events of a user; times in Unix seconds."""

    user_id: str
    properties: Annotated[dict[str, Value] | None, Meta(description="null without metadata.")]
    event_count: Annotated[int, Meta(description="Events ever applied.")]
    accepted_at: Annotated[
        float | None, Meta(description="When the newest event was accepted; null without one.")
    ]
    events: Annotated[list[UserEvent], Meta(description="The newest first.")]
    sessions: Annotated[list[str], Meta(description="Linked to the user, the oldest link first.")]


class ServedItem(ResponseBody, frozen=True):
    """An item of a list that was served, and what came of it."""

    item_id: Annotated[str, Meta(description="Empty if the item is known no more.")]
    source: Annotated[
        str,
        Meta(
            description="Of its first reason, as in an answer; the level, ranked or retrieved,"
            " where reasons were not asked for."
        ),
    ]
    is_clicked: bool
    is_bought: bool
    value: Annotated[float, Meta(description="Sum of eventValue of what followed.")]


class ServedListOfUser(ResponseBody, frozen=True):
    """A list that was served to a user."""

    recommendation_id: str
    served_at: Annotated[float, Meta(description="Unix seconds.")]
    session_id: Annotated[
        str | None, Meta(description="If it was served to this session, which named no user.")
    ]
    placement: Annotated[str, Meta(description="Empty without one.")]
    arm: Annotated[str, Meta(description="Of an experiment; empty without one.")]
    recipe: str
    items: list[ServedItem]


class UserLists(ResponseBody, frozen=True):
    """Lists that were served to a user lately."""

    user_id: str
    lists: Annotated[list[ServedListOfUser], Meta(description="The newest first.")]


class EventPosition(ResponseBody, frozen=True):
    """Topic, partition and offset of an event or a record."""

    topic: Annotated[
        Literal["clicks", "purchases", "items", "users"], Meta(description="Kind of its topic.")
    ]
    partition: int
    offset: int


class EventPath(ResponseBody, frozen=True):
    """Positions of accepted events in Kafka, and whether they are in effect."""

    positions: list[EventPosition]
    is_in_effect: Annotated[bool, Meta(description="True if answers hold them.")]
    waited_ms: Annotated[float, Meta(description="How long this request waited for that.")]


class LiveFigures(ResponseBody, frozen=True):
    """Counts of a group at a moment; a message of /live."""

    at: Annotated[float, Meta(description="Unix seconds.")]
    events: int
    purchases: int
    items: int
    users: int
    sessions: int
    newest_event_age_s: Annotated[
        float | None, Meta(description="Age of the newest event in effect; null without one.")
    ]


class Figures(ResponseBody, frozen=True):
    """Key figures over time."""

    step: FigureStep
    step_s: int
    points: Annotated[list[KeyFigures], Meta(description="The oldest first; the last one goes on.")]


class DeadLetters(ResponseBody, frozen=True):
    """Dead letters that were neither replayed nor discarded, the oldest first."""

    letters: list[WaitingLetter]


class DiscardedLetters(ResponseBody, frozen=True):
    """Number of dead letters that wait no longer."""

    discarded: int


class SettingInEffect(ResponseBody, frozen=True):
    """A setting of the process."""

    name: str
    value: Annotated[Any, Meta(description="A secret is shown as such, and not itself.")]
    origin: Annotated[str, Meta(description="default, a variable of the environment, or a file.")]
    description: str


class SettingsInEffect(ResponseBody, frozen=True):
    """All settings of the process."""

    settings: list[SettingInEffect]


class Erased(ResponseBody, frozen=True):
    """Data of an erased user, counted when the erasure was sent; later events are not counted."""

    user_id: str
    events: int
    sessions: int
    links: int
    records: Annotated[int, Meta(description="1 if the user had metadata.")]
    after: Annotated[
        str, Meta(description="Token for ?after=: wait until the erasure is in effect.")
    ]
    receipt: ErasureReceipt


class TrackerStatus(ResponseBody, frozen=True):
    """Counts of a tracker's events by outcome."""

    tracking_id: str
    forwarded: Annotated[int, Meta(description="Events that Amazon Personalize accepted.")]
    refused: Annotated[
        int, Meta(description="Events that it refused; they are in the dead letters.")
    ]
    waiting: Annotated[int, Meta(description="Events read from Kafka that have no answer yet.")]
    oldest_waiting_age_s: float


class Forwarding(ResponseBody, frozen=True):
    """The trackers whose events are forwarded."""

    trackers: list[TrackerStatus]


class Health(ResponseBody, frozen=True):
    """Liveness of the process."""

    status: Literal["ok"] = "ok"


class Readiness(ResponseBody, frozen=True):
    """Readiness of the process: the servers and topics that it needs."""

    status: Literal["ok", "missing"]
    missing: Annotated[
        list[str],
        Meta(description="Servers and topics that cannot be used, in words: kafka, topics, redis."),
    ]
    unreadable: Annotated[
        list[str],
        Meta(
            description="Partitions that stand still because their next message cannot be decoded;"
            " all others go on."
        ),
    ]
    warnings: Annotated[
        list[str],
        Meta(description="Conditions that an operator should correct, though the process works."),
    ]


class ErrorBody(ResponseBody, frozen=True):
    """Type and text of an error."""

    type: Annotated[
        str, Meta(description="A word for programs, such as invalid_request or unavailable.")
    ]
    message: Annotated[str, Meta(description="A sentence for people.")]


class Error(ResponseBody, frozen=True):
    """An error of the native API; all have this shape."""

    error: ErrorBody


RETRY_AFTER_S = 1
"""Seconds after which a client may repeat a request that was refused for now."""

encode = msgspec.json.Encoder().encode
"""Encodes JSON without validation, which the service's own structs do not need."""


NOT_STORED: Mapping[str, str] = {"cache-control": "no-store"}
"""Header of answers: a cache could give them to callers who may not have them."""


def json_response(content: object, status: int = 200) -> Response:
    """A response with this content as JSON."""
    return encoded_response(encode(content), status)


def encoded_response(body: bytes, status: int = 200) -> Response:
    """A response with this JSON."""
    return Response(body, status, NOT_STORED, "application/json")


def error_response(
    status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The response of an error; temporary ones (429, 503) carry Retry-After."""
    response = json_response(Error(ErrorBody(kind, message)), status)
    if status in {429, 503}:
        response.headers["retry-after"] = str(RETRY_AFTER_S)
    response.headers.update(headers or {})
    return response


def recommendations_body(
    answer: Answer,
    recommendation_id: str,
    *,
    now_s: float,
    reached: bool | None,
    times: StageTimes | None = None,
) -> Recommendations:
    """The body of an answer, with its freshness."""
    newest = answer.newest_accepted_at
    age_s = round(max(0.0, now_s - newest), 3) if newest else None
    freshness = Freshness(answer.user_accepted_at or None, age_s, reached)
    placement = answer.placement or msgspec.UNSET
    stages_ms: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    if times is not None:
        stages_ms = {stage: round(1000 * took_s, 3) for stage, took_s in times.took_s.items()}
    return Recommendations(
        recommendation_id,
        answer.recipe,
        answer.level,
        answer.items,
        freshness,
        placement,
        stages_ms,
    )
