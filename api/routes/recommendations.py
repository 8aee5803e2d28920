"""Routes that answer with items: recommendations, similar items, top lists, rankings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response
from starlette.types import Receive

from api.dependencies import Services
from api.openapi import documented
from api.schemas import (
    ListParams,
    ProfilingParams,
    Recommendations,
    RecommendParams,
    encode,
    encoded_response,
    parse_query,
    recommendations_body,
)
from models import events
from models.errors import InvalidRequest, Overloaded, Unavailable
from models.serving.answers import Answer
from models.state.redis_errors import AWAY_ERRORS

router = APIRouter()

AnswerRoute = Callable[[Services, bytes, Receive], Awaitable[bytes]]
"""Makes the JSON body of an answer from a query string; `Receive` tells if the client leaves."""

FAST_ROUTES: dict[str, AnswerRoute] = {}
"""Routes by path that need only the query string of a request; see `api.fast_path`."""

MAX_RANKED = 500


def list_route(
    path: str, kind: type[ListParams], summary: str
) -> Callable[[AnswerRoute], AnswerRoute]:
    """Registers a route that answers with a list, with FastAPI and in `FAST_ROUTES`."""

    def register(answering: AnswerRoute) -> AnswerRoute:
        async def endpoint(request: Request) -> Response:
            services, raw = request.app.state.services, request.scope["query_string"]
            body = await answering(services, raw, request.receive)
            return encoded_response(body)

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
    """Items that this user is most likely to want next; a new user gets trending items."""
    asked = parse_query(query_string, RecommendParams)
    profiling = asked.profiling == "on"
    if asked.exclude_purchased and not profiling:
        raise InvalidRequest("exclude_purchased needs what was bought, which profiling=off forbids")
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
                profiling=profiling,
            )
        if services.shadow is not None and asked.user_id is not None and profiling:
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
    return _answered(services, answer, asked, reached)


@list_route("/trending", ListParams, "Growing fastest now")
async def trending(services: Services, query_string: bytes, receive: Receive) -> bytes:
    """Items whose rate of events grows most: a short-term count relative to a long-term one."""
    asked = parse_query(query_string, ListParams)
    reached = await services.await_effect(asked, receive)
    with services.redis_gate:
        answer = await services.recommender.trending(k=asked.num_results, now_s=services.clock())
    return _answered(services, answer, asked, reached)


@list_route("/popular", ListParams, "Most events of all time")
async def popular(services: Services, query_string: bytes, receive: Receive) -> bytes:
    """Items with the most events of all time."""
    asked = parse_query(query_string, ListParams)
    reached = await services.await_effect(asked, receive)
    with services.redis_gate:
        answer = await services.recommender.popular(k=asked.num_results, now_s=services.clock())
    return _answered(services, answer, asked, reached)


@router.get("/similar/{item_id}", **documented(Recommendations, "Seen together", query=ListParams))
async def similar(
    request: Request, item_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Items co-visited with this one; for an unknown item, trending items."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], ListParams)
    reached = await services.await_effect(asked, request.receive)
    k, now_s = asked.num_results, services.clock()
    with services.redis_gate:
        answer = await services.recommender.similar(item_id, k=k, now_s=now_s)
    return encoded_response(_answered(services, answer, asked, reached))


class RankRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items to rank for a user."""

    item_ids: Annotated[list[events.Id], msgspec.Meta(min_length=1, max_length=MAX_RANKED)]
    user_id: events.Id | None = None
    session_id: events.Id | None = None


@router.post(
    "/rank",
    **documented(
        Recommendations,
        "Put given items in order for a user",
        query=ProfilingParams,
        body=RankRequest,
        example={"itemIds": ["i9", "i3"], "userId": "u7"},
    ),
)
async def rank(request: Request) -> Response:
    """The given items, the likeliest for this user first, unknown items last."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], ProfilingParams)
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
            profiling=asked.profiling == "on",
        )
    return encoded_response(_answered(services, answer, asked, reached))


def _answered(
    services: Services, answer: Answer, asked: ProfilingParams, reached: bool | None
) -> bytes:
    recommendation_id = services.new_id()
    services.record_served(
        recommendation_id, answer, services.store, is_kept=asked.profiling == "on"
    )
    now_s = services.clock()
    return encode(recommendations_body(answer, recommendation_id, now_s=now_s, reached=reached))
