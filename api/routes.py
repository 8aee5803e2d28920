"""The native API: a route for each question, five to ten lines each."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

from api.answers import (
    AcceptedShape,
    ErasedShape,
    RecommendationsShape,
    error_response,
    json_response,
    recommendations,
)
from models import events
from models.errors import InvalidEvent, Unavailable
from models.recommender import MAX_RESULTS, Answer
from models.store import CONNECTION_ERRORS

router = APIRouter()

ANSWERS = Counter("recommender_answers_total", "Answers by recipe and level", ["recipe", "level"])
MAX_RANKED = 500

Id = Annotated[str | None, Query(min_length=1, max_length=256)]
Results = Annotated[int, Query(ge=1, le=MAX_RESULTS, description="Items wanted.")]
After = Annotated[
    str | None,
    Query(max_length=128, description="Token of POST /events: wait until they have taken effect."),
]


@router.get("/recommend", response_model=RecommendationsShape, summary="What next for this user?")
async def recommend(
    request: Request,
    user_id: Id = None,
    session_id: Id = None,
    item_id: Id = None,
    num_results: Results = 25,
    exclude_purchased: bool = False,
    reasons: bool = False,
    after: After = None,
) -> Response:
    """Items this user is most likely to want next; someone unknown gets what is trending."""
    services = request.app.state.services
    try:
        reached = await _reached(request, after)
        answer = await services.recommender.recommend(
            user_id=user_id,
            session_id=session_id,
            item_id=item_id,
            k=num_results,
            now_s=services.clock(),
            exclude_purchased=exclude_purchased,
            reasons=reasons,
        )
    except CONNECTION_ERRORS:
        answer, reached = services.recommender.from_cache(k=num_results), None
        if answer is None:
            raise
    return _answered(request, answer, reached)


@router.get("/similar/{item_id}", response_model=RecommendationsShape, summary="Seen together")
async def similar(
    request: Request,
    item_id: Annotated[str, Path(min_length=1, max_length=256)],
    num_results: Results = 25,
    after: After = None,
) -> Response:
    """Items seen together with this one; for an unknown item, what is trending."""
    services = request.app.state.services
    reached = await _reached(request, after)
    answer = await services.recommender.similar(item_id, k=num_results, now_s=services.clock())
    return _answered(request, answer, reached)


@router.get("/trending", response_model=RecommendationsShape, summary="Growing fastest now")
async def trending(request: Request, num_results: Results = 25, after: After = None) -> Response:
    """Items whose rate of events grows most."""
    services = request.app.state.services
    reached = await _reached(request, after)
    answer = await services.recommender.trending(k=num_results, now_s=services.clock())
    return _answered(request, answer, reached)


@router.get("/popular", response_model=RecommendationsShape, summary="Most events of all time")
async def popular(request: Request, num_results: Results = 25, after: After = None) -> Response:
    """Items with the most events of all time."""
    services = request.app.state.services
    reached = await _reached(request, after)
    answer = await services.recommender.popular(k=num_results, now_s=services.clock())
    return _answered(request, answer, reached)


class RankRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items to put in order for a user."""

    item_ids: Annotated[list[events.Id], msgspec.Meta(min_length=1, max_length=MAX_RANKED)]
    user_id: events.Id | None = None
    session_id: events.Id | None = None


@router.post(
    "/rank",
    response_model=RecommendationsShape,
    summary="Put given items in order for a user",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["itemIds"],
                        "properties": {
                            "itemIds": {
                                "type": "array",
                                "items": {"type": "string", "minLength": 1, "maxLength": 256},
                                "minItems": 1,
                                "maxItems": MAX_RANKED,
                            },
                            "userId": {"type": "string", "minLength": 1, "maxLength": 256},
                            "sessionId": {"type": "string", "minLength": 1, "maxLength": 256},
                        },
                    }
                }
            },
        }
    },
)
async def rank(request: Request, after: After = None) -> Response:
    """The given items, the one this user is most likely to want first; unknown ones last."""
    services = request.app.state.services
    try:
        wanted = msgspec.json.decode(await request.body(), type=RankRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return error_response(400, "invalid_request", str(error))
    reached = await _reached(request, after)
    answer = await services.recommender.rank(
        wanted.item_ids,
        user_id=wanted.user_id,
        session_id=wanted.session_id,
        now_s=services.clock(),
    )
    return _answered(request, answer, reached)


@router.post(
    "/events",
    status_code=202,
    response_model=AcceptedShape,
    summary="Send 1 to 10 events of one session",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": msgspec.json.schema(events.PutEvents) | {"$defs": {}},
                    "example": {
                        "sessionId": "s42",
                        "userId": "u7",
                        "eventList": [
                            {"eventType": "click", "itemId": "i9", "sentAt": 1795381719.1}
                        ],
                    },
                }
            },
        }
    },
)
async def put_events(request: Request) -> Response:
    """Answers once Kafka has acknowledged the events; they take effect milliseconds later."""
    services = request.app.state.services
    settings, now_s = services.settings, services.clock()
    message = events.parse(
        await request.body(), now_s=now_s, future_limit_s=settings.future_limit_s
    )
    if message.tracking_id not in (None, settings.tracking_id):
        raise InvalidEvent(f"unknown tracking id {message.tracking_id!r} - at `$.trackingId`")
    after = await services.kafka.publish(msgspec.structs.replace(message, accepted_at=now_s))
    event_ids = [event.event_id for event in message.event_list]
    return json_response({"accepted": len(event_ids), "eventIds": event_ids, "after": after}, 202)


@router.delete("/users/{user_id}", response_model=ErasedShape, summary="Erase a user")
async def erase(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Removes the user's history, sessions and links, and says how much that was."""
    removed = await request.app.state.services.store.erase_user(user_id)
    return json_response({"userId": user_id, **removed})


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Says so."""
    return {"status": "ok"}


@router.get("/readyz", summary="Can it do its work?")
async def readyz(request: Request) -> Response:
    """503 with the names of what is missing: kafka, topics, redis."""
    services = request.app.state.services
    missing = await services.kafka.missing()
    try:
        await services.store.ping()
    except Unavailable:
        missing.append("redis")
    status = {"status": "ok" if not missing else "missing", "missing": missing}
    return json_response(status, 503 if missing else 200)


@router.get("/metrics", summary="Prometheus metrics")
async def metrics() -> Response:
    """The process's metrics as text."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _reached(request: Request, after: str | None) -> bool | None:
    if after is None:
        return None
    services = request.app.state.services
    reached: bool = await services.effects.reached(after, wait_s=services.settings.after_timeout_s)
    return reached


def _answered(request: Request, answer: Answer, reached: bool | None) -> Response:
    services = request.app.state.services
    recommendation_id = services.new_id()
    services.impressions.log(recommendation_id, [item.item_id for item in answer.items])
    ANSWERS.labels(answer.recipe, answer.level).inc()
    return json_response(
        recommendations(answer, recommendation_id, now_s=services.clock(), reached=reached)
    )
