"""Routes that answer with items: recommendations, similar items, top lists, rankings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Path, Request, Response
from starlette.types import Receive

from api.dependencies import Services
from api.openapi import documented
from api.request_params import (
    Boosts,
    ContextParam,
    Excluded,
    Hides,
    ListParams,
    ProfilingParams,
    PropertyNames,
    RecommendParams,
    make_rules,
    parse_body,
    parse_query,
)
from api.schemas import Recommendations, encode, encoded_response, recommendations_body
from models import events
from models.errors import InvalidInput, InvalidRequest, Overloaded, Unavailable
from models.serving.answers import Answer
from models.serving.item_filters import with_properties
from models.serving.rules import Ask, Asker, Rules, answer_by_rules
from models.state.histories import History
from models.state.redis_errors import AWAY_ERRORS

router = APIRouter()

AnswerRoute = Callable[[Services, bytes, Receive], Awaitable[bytes]]
"""Makes the JSON body of an answer from a query string; `Receive` tells if the client leaves."""

FAST_ROUTES: dict[str, AnswerRoute] = {}
"""Routes by path that need only the query string of a request; see `api.fast_path`."""

MAX_RANKED = 500

NEEDS_PROFILING = "needs what the user did or is, which profiling=off forbids"

EXAMPLE = {"num_results": 10, "filter": "brand:acme;price<20", "exclude": ["i1"]}

ItemPath = Annotated[str, Path(min_length=1, max_length=256)]

P = TypeVar("P", bound=ListParams)


def list_route(
    path: str, kind: type[P], summary: str
) -> Callable[
    [Callable[[Services, P, Receive], Awaitable[bytes]]],
    Callable[[Services, P, Receive], Awaitable[bytes]],
]:
    """Registers a route that answers with a list, with FastAPI and in `FAST_ROUTES`.

    By GET its parameters are in the query string, by POST in a JSON body.
    """

    def register(
        answering: Callable[[Services, P, Receive], Awaitable[bytes]],
    ) -> Callable[[Services, P, Receive], Awaitable[bytes]]:
        async def by_query(services: Services, raw: bytes, receive: Receive) -> bytes:
            return await answering(services, parse_query(raw, kind), receive)

        async def get(request: Request) -> Response:
            raw = request.scope["query_string"]
            body = await by_query(request.app.state.services, raw, request.receive)
            return encoded_response(body)

        async def post(request: Request) -> Response:
            asked = parse_body(await request.body(), kind)
            body = await answering(request.app.state.services, asked, request.receive)
            return encoded_response(body)

        shown: dict[str, Any] = {"description": answering.__doc__, "name": answering.__name__}
        by_body = documented(
            Recommendations, f"{summary} Asked by a body.", body=kind, example=EXAMPLE
        )
        router.add_api_route(path, get, **shown, **documented(Recommendations, summary, query=kind))
        shown |= {"name": f"{answering.__name__}_by_body", "methods": ["POST"]}
        router.add_api_route(path, post, **shown, **by_body)
        FAST_ROUTES[path] = by_query
        return answering

    return register


@list_route("/recommend", RecommendParams, "What next for this user?")
async def recommend(services: Services, asked: RecommendParams, receive: Receive) -> bytes:
    """Items that this user is most likely to want next; a new user gets trending items."""
    profiling, recommender = asked.profiling == "on", services.recommender
    if asked.exclude_purchased and not profiling:
        raise InvalidRequest(f"exclude_purchased {NEEDS_PROFILING}")
    rules = asked.rules(asked.num_results)
    asker = Asker(asked.user_id, asked.session_id, asked.item_id)
    reached: bool | None = None

    async def ask(k: int, history: History | None = None) -> Answer:
        return await recommender.recommend(
            user_id=asked.user_id,
            session_id=asked.session_id,
            item_id=asked.item_id,
            k=k,
            now_s=services.clock(),
            exclude_purchased=asked.exclude_purchased,
            reasons=asked.reasons,
            objective=asked.objective,
            context=asked.context,
            profiling=profiling,
            history=history,
        )

    try:
        reached = await services.await_effect(asked, receive)
        started_s = time.perf_counter()
        with services.redis_gate:
            answer = await _ruled(
                services,
                ask,
                rules,
                asked.num_results,
                asker,
                asked.properties,
                profiling=profiling,
            )
        is_plain = rules is None and profiling
        if services.shadow is not None and asked.user_id is not None and is_plain:
            services.shadow.compare(
                asked.user_id,
                [item.item_id for item in answer.items],
                k=asked.num_results,
                took_s=time.perf_counter() - started_s,
            )
    except Overloaded:
        raise
    except (Unavailable, *AWAY_ERRORS):
        # Rules cannot be kept without Redis: what was taken out must not come back.
        fallback = recommender.from_cache(k=asked.num_results) if rules is None else None
        if fallback is None:
            raise
        answer = fallback
    return _answered(services, answer, asked, reached)


@list_route("/trending", ListParams, "Growing fastest now")
async def trending(services: Services, asked: ListParams, receive: Receive) -> bytes:
    """Items whose rate of events grows most: a short-term count relative to a long-term one."""

    async def ask(k: int, _: History | None = None) -> Answer:
        return await services.recommender.trending(k=k, now_s=services.clock())

    return await _list(services, asked, receive, ask)


@list_route("/popular", ListParams, "Most events of all time")
async def popular(services: Services, asked: ListParams, receive: Receive) -> bytes:
    """Items with the most events of all time."""

    async def ask(k: int, _: History | None = None) -> Answer:
        return await services.recommender.popular(k=k, now_s=services.clock())

    return await _list(services, asked, receive, ask)


@router.get("/similar/{item_id}", **documented(Recommendations, "Seen together", query=ListParams))
async def similar(request: Request, item_id: ItemPath) -> Response:
    """Items co-visited with this one; for an unknown item, trending items."""
    asked = parse_query(request.scope["query_string"], ListParams)
    return await _similar(request, item_id, asked)


@router.post(
    "/similar/{item_id}",
    **documented(
        Recommendations, "Seen together, asked by a body", body=ListParams, example=EXAMPLE
    ),
)
async def similar_by_body(request: Request, item_id: ItemPath) -> Response:
    """Items co-visited with this one; for an unknown item, trending items."""
    return await _similar(request, item_id, parse_body(await request.body(), ListParams))


async def _similar(request: Request, item_id: str, asked: ListParams) -> Response:
    services: Services = request.app.state.services

    async def ask(k: int, _: History | None = None) -> Answer:
        return await services.recommender.similar(item_id, k=k, now_s=services.clock())

    body = await _list(services, asked, request.receive, ask, item_id=item_id)
    return encoded_response(body)


class RankRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items to rank for a user."""

    item_ids: Annotated[list[events.Id], msgspec.Meta(min_length=1, max_length=MAX_RANKED)]
    user_id: events.Id | None = None
    session_id: events.Id | None = None
    filter: str | None = None
    exclude: Excluded = []
    hide: Hides = []
    boost: Boosts = []
    properties: PropertyNames = []
    context: ContextParam = {}


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
    wanted = parse_body(await request.body(), RankRequest)
    profiling = asked.profiling == "on"
    item_ids = list(dict.fromkeys(wanted.item_ids))
    k = len(item_ids)
    rules = make_rules(wanted.filter, wanted.exclude, wanted.hide, wanted.boost, (), k)
    asker = Asker(wanted.user_id, wanted.session_id)

    async def ask(_: int, __: History | None = None) -> Answer:
        return await services.recommender.rank(
            item_ids,
            user_id=wanted.user_id,
            session_id=wanted.session_id,
            now_s=services.clock(),
            context=wanted.context,
            profiling=profiling,
        )

    reached = await services.await_effect(asked, request.receive)
    with services.redis_gate:
        answer = await _ruled(
            services, ask, rules, k, asker, wanted.properties, profiling=profiling, refills=False
        )
    return encoded_response(_answered(services, answer, asked, reached))


async def _list(
    services: Services, asked: ListParams, receive: Receive, ask: Ask, *, item_id: str | None = None
) -> bytes:
    """The body of a list that does not depend on the user, but for its rules."""
    k, asker = asked.num_results, Asker(asked.user_id, asked.session_id, item_id)
    rules, profiling = asked.rules(k), asked.profiling == "on"
    reached = await services.await_effect(asked, receive)
    with services.redis_gate:
        answer = await _ruled(services, ask, rules, k, asker, asked.properties, profiling=profiling)
    return _answered(services, answer, asked, reached)


async def _ruled(
    services: Services,
    ask: Ask,
    rules: Rules | None,
    k: int,
    asker: Asker,
    properties: Sequence[str],
    *,
    profiling: bool,
    refills: bool = True,
) -> Answer:
    """An answer by its rules, with the properties that were asked for."""
    recommender, now_s = services.recommender, services.clock()
    if rules is None:
        answer = await ask(k, None)
    else:
        if rules.reads_user and not profiling:
            raise InvalidRequest(f"hide, and a filter of what the user did, {NEEDS_PROFILING}")
        if not profiling:
            asker = asker._replace(user_id=None, session_id=None)
        if rules.reads_user and asker.user_id is None and asker.session_id is None:
            raise InvalidRequest("hide, and a filter of what the user did, need a user or session")
        try:
            answer = await answer_by_rules(
                recommender, rules, ask, k=k, asker=asker, now_s=now_s, refills=refills
            )
        except InvalidInput as error:
            raise InvalidRequest(str(error)) from error
    return await with_properties(recommender, answer, properties, now_s=now_s)


def _answered(
    services: Services, answer: Answer, asked: ProfilingParams, reached: bool | None
) -> bytes:
    recommendation_id = services.new_id()
    services.record_served(
        recommendation_id, answer, services.store, is_kept=asked.profiling == "on"
    )
    now_s = services.clock()
    return encode(recommendations_body(answer, recommendation_id, now_s=now_s, reached=reached))
