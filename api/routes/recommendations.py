"""The native API: a route for each question, five to ten lines each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive

from api.dependencies import Services
from api.openapi import ANY_ERROR, INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.query_params import AfterParams, ListParams, RecommendParams, query
from api.schemas import (
    Accepted,
    Erased,
    Health,
    Readiness,
    Recommendations,
    encode,
    json_response,
    recommendations_body,
)
from models import events
from models.errors import InvalidEvent, InvalidRequest, Overloaded, TooManyWaiting, Unavailable
from models.serving.answers import Answer
from models.state.redis_errors import AWAY_ERRORS
from models.state.stuck_readers import StuckReader, reported

router = APIRouter()

AnswerRoute = Callable[[Services, bytes, Receive], Awaitable[bytes]]
"""Makes the body of an answer, JSON, from a query string; `Receive` tells when the client goes."""

FAST_ROUTES: dict[str, AnswerRoute] = {}
"""By path, the routes that need nothing of a request but its query string; see `api.fast_path`."""

MAX_RANKED = 500


def list_route(
    path: str, kind: type[ListParams], summary: str
) -> Callable[[AnswerRoute], AnswerRoute]:
    """Registers the route of a question for a list, as one of the `FAST_ROUTES` too."""

    def register(answering: AnswerRoute) -> AnswerRoute:
        async def endpoint(request: Request) -> Response:
            services, raw = request.app.state.services, request.scope["query_string"]
            body = await answering(services, raw, request.receive)
            return Response(body, media_type="application/json")

        router.add_api_route(
            path,
            endpoint,
            description=answering.__doc__,
            name=answering.__name__,
            **documented(Recommendations, summary, query=kind),
        )
        FAST_ROUTES[path] = answering
        return answering

    return register


@list_route("/recommend", RecommendParams, "What next for this user?")
async def recommend(services: Services, query_string: bytes, receive: Receive) -> bytes:
    """Items this user is most likely to want next; someone unknown gets what is trending."""
    asked = query(query_string, RecommendParams)
    reached: bool | None = None
    try:
        reached = await services.await_effect(asked, receive)
        started_s = time.perf_counter()
        with services.redis_gate:
            answer = await services.recommender.recommend(
                user_id=asked.user_id,
                session_id=asked.session_id,
                item_id=asked.item_id,
                k=asked.num_results,
                now_s=services.clock(),
                exclude_purchased=asked.exclude_purchased,
                reasons=asked.reasons,
                objective=asked.objective,
            )
        if services.shadow is not None and asked.user_id is not None:
            services.shadow.compare(
                asked.user_id,
                [item.item_id for item in answer.items],
                k=asked.num_results,
                took_s=time.perf_counter() - started_s,
            )
    except Overloaded:
        raise
    except (Unavailable, *AWAY_ERRORS):
        fallback = services.recommender.from_cache(k=asked.num_results)
        if fallback is None:
            raise
        answer = fallback
    return _answered(services, answer, reached)


@list_route("/trending", ListParams, "Growing fastest now")
async def trending(services: Services, query_string: bytes, receive: Receive) -> bytes:
    """Items whose rate of events grows most."""
    asked = query(query_string, ListParams)
    reached = await services.await_effect(asked, receive)
    with services.redis_gate:
        answer = await services.recommender.trending(k=asked.num_results, now_s=services.clock())
    return _answered(services, answer, reached)


@list_route("/popular", ListParams, "Most events of all time")
async def popular(services: Services, query_string: bytes, receive: Receive) -> bytes:
    """Items with the most events of all time."""
    asked = query(query_string, ListParams)
    reached = await services.await_effect(asked, receive)
    with services.redis_gate:
        answer = await services.recommender.popular(k=asked.num_results, now_s=services.clock())
    return _answered(services, answer, reached)


@router.get("/similar/{item_id}", **documented(Recommendations, "Seen together", query=ListParams))
async def similar(
    request: Request, item_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Items seen together with this one; for an unknown item, what is trending."""
    services: Services = request.app.state.services
    asked = query(request.scope["query_string"], ListParams)
    reached = await services.await_effect(asked, request.receive)
    k, now_s = asked.num_results, services.clock()
    with services.redis_gate:
        answer = await services.recommender.similar(item_id, k=k, now_s=now_s)
    return Response(_answered(services, answer, reached), media_type="application/json")


class RankRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items to put in order for a user."""

    item_ids: Annotated[list[events.Id], msgspec.Meta(min_length=1, max_length=MAX_RANKED)]
    user_id: events.Id | None = None
    session_id: events.Id | None = None


@router.post(
    "/rank",
    **documented(
        Recommendations,
        "Put given items in order for a user",
        query=AfterParams,
        body=RankRequest,
        example={"itemIds": ["i9", "i3"], "userId": "u7"},
    ),
)
async def rank(request: Request) -> Response:
    """The given items, the one this user is most likely to want first; unknown ones last."""
    services: Services = request.app.state.services
    asked = query(request.scope["query_string"], AfterParams)
    try:
        wanted = msgspec.json.decode(await request.body(), type=RankRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(error)) from error
    reached = await services.await_effect(asked, request.receive)
    with services.redis_gate:
        answer = await services.recommender.rank(
            wanted.item_ids,
            user_id=wanted.user_id,
            session_id=wanted.session_id,
            now_s=services.clock(),
        )
    return Response(_answered(services, answer, reached), media_type="application/json")


@router.post(
    "/events",
    **documented(
        Accepted,
        "Send 1 to 10 events of one session",
        status=202,
        body=events.PutEvents,
        example={
            "sessionId": "s42",
            "userId": "u7",
            "eventList": [{"eventType": "click", "itemId": "i9", "sentAt": 1795381719.1}],
        },
    ),
)
async def put_events(request: Request) -> Response:
    """Answers once Kafka has acknowledged the events; they take effect milliseconds later."""
    services: Services = request.app.state.services
    settings, now_s = services.settings, services.clock()
    message = events.parse(
        await request.body(), now_s=now_s, future_limit_s=settings.future_limit_s
    )
    tracking_id = message.tracking_id
    if tracking_id is not None and await services.tenants.group_of(tracking_id) is None:
        raise InvalidEvent(f"unknown tracking id {tracking_id!r} - at `$.trackingId`")
    after = await services.publisher.publish(msgspec.structs.replace(message, accepted_at=now_s))
    event_ids = [event.event_id for event in message.event_list if event.event_id is not None]
    return json_response(Accepted(len(event_ids), event_ids, after), 202)


@router.delete(
    "/users/{user_id}",
    **documented(
        Erased,
        "Erase a user",
        errors=INVALID_REQUEST_ERROR | SERVER_ERRORS,
        other={202: (Erased, "In Kafka, and soon in effect.")},
    ),
)
async def erase(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Removes history, sessions, links and metadata, and says how much of that there was.

    Answers once Kafka has acknowledged the erasure: 200 when it is in effect within
    `RECOMMENDER_AFTER_TIMEOUT_S`, else 202. What was sent before and comes later takes no effect.
    With 503 nothing was promised: ask again.
    """
    services: Services = request.app.state.services
    now_s = services.clock()
    held = await services.store.user_data_counts(user_id, now_s=now_s)
    after = await services.publisher.publish(
        events.Erasure(services.settings.group, user_id, now_s)
    )
    try:
        is_done = await services.read_your_writes.wait(
            after, wait_s=services.settings.after_timeout_s
        )
    except (TooManyWaiting, Unavailable, *AWAY_ERRORS):
        # Whether it is in effect is not known; that it will be is.
        is_done = False
    return json_response(Erased(user_id, **held, after=after), 200 if is_done else 202)


@router.get("/healthz", **documented(Health, "Is the process alive?", errors={}))
async def healthz() -> Response:
    """Says so."""
    return json_response(Health())


@router.get(
    "/readyz",
    **documented(
        Readiness,
        "Can it do its work?",
        errors={},
        other={503: (Readiness, "Something is missing.")},
    ),
)
async def readyz(request: Request) -> Response:
    """503 with the names of what is missing: kafka, topics, redis, or room in it.

    `unreadable` names the partitions whose next message cannot be decoded: all others go on, so
    they are no reason for 503. `warnings` are what an operator should see to, though all works.
    """
    services: Services = request.app.state.services
    missing, warnings = await services.readiness.check()
    stuck: list[StuckReader] = []
    # Where Redis is away, it is among what is missing.
    with contextlib.suppress(*AWAY_ERRORS):
        store = services.store
        stuck = await reported(store.redis, store.settings.group, now_s=services.clock())
    answer = Readiness(
        "missing" if missing else "ok", missing, [str(one) for one in stuck], warnings
    )
    return json_response(answer, 503 if missing else 200)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=ANY_ERROR,
    summary="Prometheus metrics",
)
async def metrics() -> Response:
    """The process's metrics as text."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _answered(services: Services, answer: Answer, reached: bool | None) -> bytes:
    recommendation_id = services.new_id()
    services.record_served(recommendation_id, answer, services.store)
    now_s = services.clock()
    return encode(recommendations_body(answer, recommendation_id, now_s=now_s, reached=reached))
