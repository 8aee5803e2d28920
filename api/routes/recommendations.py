"""Routes that answer with items: recommendations, similar items, top lists, rankings."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Path, Request, Response
from starlette.types import Receive

from api.dependencies import Services
from api.openapi import documented
from api.request_params import (
    ListParams,
    ProfilingParams,
    RankRequest,
    RecommendParams,
    parse_body,
    parse_query,
)
from api.schemas import Recommendations, encode, encoded_response, recommendations_body
from api.served_log import NO_PLACE, ServedPlace
from models.errors import InvalidRequest, Overloaded, Unavailable
from models.serving.answer_options import AnswerOptions
from models.serving.answers import Answer, AnsweredPlacement, RecipeName
from models.serving.item_values import with_properties
from models.serving.merchandising.experiments import ChosenConfiguration, configuration_for
from models.serving.merchandising.placements import (
    NO_CONFIGURATION,
    Placement,
)
from models.serving.merchandising.questions import (
    NEEDS_PROFILING,
    Question,
    answer_question,
    combined_rules,
    ruled_answer,
)
from models.serving.merchandising.rule_members import make_rules
from models.serving.merchandising.rules import Asker, Rules
from models.serving.stage_times import StageTimes, measured_stages, stage_reached
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.histories import History

router = APIRouter()

AnswerRoute = Callable[[Services, bytes, Receive], Awaitable[bytes]]
"""Makes the JSON body of an answer from a query string; `Receive` tells if the client leaves."""

FAST_ROUTES: dict[str, AnswerRoute] = {}
"""Routes by path that need only the query string of a request; see `api.fast_path`."""

DEFAULT_K = NO_CONFIGURATION.num_results
"""Items of an answer where neither the question nor a placement says."""

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
    """Items that this user is most likely to want next; a new user gets trending items.

    With a placement, the list of its recipe.
    """
    asked = await services.with_filters(asked)
    profiling = asked.profiling == "on"
    if asked.exclude_purchased and not profiling:
        raise InvalidRequest(f"exclude_purchased {NEEDS_PROFILING}")
    question = Question(
        Asker(asked.user_id, asked.session_id, asked.item_id),
        services.clock(),
        asked.objective,
        asked.exclude_purchased,
        asked.reasons,
        asked.context,
        profiling,
    )
    with measured_stages(time.perf_counter, is_wanted=asked.timing) as times:
        return await _recommend(services, asked, question, receive, times)


async def _recommend(
    services: Services,
    asked: RecommendParams,
    question: Question,
    receive: Receive,
    times: StageTimes | None,
) -> bytes:
    """The body of the answer; trending items as last read where Redis is away."""
    recommender, profiling = services.recommender, question.profiling
    rules = asked.rules(asked.num_results or DEFAULT_K) if asked.placement is None else None
    is_plain = asked.placement is None and rules is None
    reached: bool | None = None
    place = NO_PLACE
    try:
        reached = await services.await_effect(asked, receive)
        stage_reached("wait")
        started_s = time.perf_counter()
        answer, place = await _list_answer(services, asked, question, rules)
        if services.shadow is not None and asked.user_id is not None and is_plain and profiling:
            services.shadow.compare(
                asked.user_id,
                [item.item_id for item in answer.items],
                k=asked.num_results or DEFAULT_K,
                took_s=time.perf_counter() - started_s,
            )
    except Overloaded:
        raise
    except (Unavailable, *AWAY_ERRORS):
        # Rules cannot be kept without Redis: what was taken out must not come back.
        k, now_s = asked.num_results or DEFAULT_K, services.clock()
        cached = recommender.from_cache(k=k, now_s=now_s) if is_plain else None
        if cached is None:
            raise
        answer = cached
    return _answered(services, answer, asked, reached, question.asker, place, times)


@list_route("/trending", ListParams, "Growing fastest now")
async def trending(services: Services, asked: ListParams, receive: Receive) -> bytes:
    """Items whose rate of events grows most: a short-term count relative to a long-term one."""
    return await _list(services, asked, receive, "trending-now")


@list_route("/popular", ListParams, "Most events of all time")
async def popular(services: Services, asked: ListParams, receive: Receive) -> bytes:
    """Items with the most events of all time."""
    return await _list(services, asked, receive, "popularity-count")


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
    body = await _list(services, asked, request.receive, "similar-items", item_id=item_id)
    return encoded_response(body)


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
    wanted = await services.with_filters(parse_body(await request.body(), RankRequest))
    profiling = asked.profiling == "on"
    item_ids = list(dict.fromkeys(wanted.item_ids))
    k = len(item_ids)
    rules = make_rules(
        wanted.filter,
        wanted.exclude,
        wanted.hide,
        wanted.boost,
        (),
        wanted.cap,
        wanted.diversity,
        k=k,
        values=wanted.filter_values,
    )
    with measured_stages(time.perf_counter, is_wanted=asked.timing) as times:
        reached = await services.await_effect(asked, request.receive)
        stage_reached("wait")
        recommender, now_s = services.recommender, services.clock()
        question = Question(Asker(wanted.user_id, wanted.session_id), now_s, profiling=profiling)
        with services.redis_gate:
            placement, met = await _placed(services, wanted.placement, question)
            configuration = met.configuration
            question = await services.with_segments(question, configuration)
            if configuration.recipe is not None:
                text = f"the placement has the recipe {configuration.recipe}: this route ranks"
                raise InvalidRequest(text)

            async def ask(_: int, history: History | None = None) -> Answer:
                return await recommender.rank(
                    item_ids,
                    user_id=wanted.user_id,
                    session_id=wanted.session_id,
                    now_s=now_s,
                    objective=configuration.objective,
                    options=AnswerOptions(ranker=configuration.ranker),
                    context=wanted.context,
                    profiling=profiling,
                    history=history,
                )

            rules = combined_rules(configuration, rules, question, k=k)
            if rules is not None:
                # A pin would bring in what was not given.
                rules = msgspec.structs.replace(rules, pins={})
            answer = await ruled_answer(recommender, ask, rules, question, k=k, refills=False)
            stage_reached("arrange")
            answer = await with_properties(recommender, answer, wanted.properties, now_s=now_s)
            stage_reached("properties")
        return encoded_response(
            _answered(
                services,
                _named(answer, placement, met),
                asked,
                reached,
                question.asker,
                _served_place(placement, met),
                times,
            )
        )


async def _list(
    services: Services,
    asked: ListParams,
    receive: Receive,
    route: RecipeName,
    *,
    item_id: str | None = None,
) -> bytes:
    """The body of a list that does not depend on the user, but for its rules."""
    asked = await services.with_filters(asked)
    # Its errors come before any wait.
    rules = asked.rules(asked.num_results or DEFAULT_K) if asked.placement is None else None
    asker, profiling = Asker(asked.user_id, asked.session_id, item_id), asked.profiling == "on"
    question = Question(asker, services.clock(), profiling=profiling)
    with measured_stages(time.perf_counter, is_wanted=asked.timing) as times:
        reached = await services.await_effect(asked, receive)
        stage_reached("wait")
        answer, place = await _list_answer(services, asked, question, rules, route)
        return _answered(services, answer, asked, reached, asker, place, times)


async def _list_answer(
    services: Services,
    asked: ListParams,
    question: Question,
    rules: Rules | None,
    route: RecipeName | None = None,
) -> tuple[Answer, ServedPlace]:
    """The answer by the question's placement and rules, with the properties asked for.

    And where it was asked for, for the log of served lists. `rules` are those of a question without
    a placement, which may say how long the answer is.
    """
    # The moment of the answer, after any wait.
    recommender, question = services.recommender, question._replace(now_s=services.clock())
    with services.redis_gate:
        placement, met = await _placed(services, asked.placement, question)
        configuration = met.configuration
        question = await services.with_segments(question, configuration)
        k = asked.num_results or configuration.num_results
        if placement is not None:
            rules = asked.rules(k)
        answer = await answer_question(
            recommender, question, configuration, rules, k=k, route=route
        )
        stage_reached("arrange")
        answer = await with_properties(recommender, answer, asked.properties, now_s=question.now_s)
        stage_reached("properties")
    return _named(answer, placement, met), _served_place(placement, met)


async def _placed(
    services: Services, name: str | None, question: Question
) -> tuple[Placement | None, ChosenConfiguration]:
    """The placement of this name, and what the question meets there.

    Who is not to be profiled is in no experiment.
    """
    if name is None:
        return None, ChosenConfiguration(NO_CONFIGURATION)
    placement = await services.placements.get(name, question.now_s)
    experiment = await services.experiments.running(name, question.now_s)
    user = question.asker.user_id or question.asker.session_id
    met = configuration_for(placement, experiment, user if question.profiling else None)
    configuration = await services.with_filters_of(met.configuration)
    return placement, met._replace(configuration=configuration)


def _served_place(placement: Placement | None, met: ChosenConfiguration) -> ServedPlace:
    if placement is None:
        return NO_PLACE
    one = met.experiment
    if one is None:
        return ServedPlace(placement.name, placement.version)
    return ServedPlace(
        placement.name, placement.version, met.arm, one.id, one.plan.horizon_s, one.bucket_s
    )


def _named(answer: Answer, placement: Placement | None, met: ChosenConfiguration) -> Answer:
    """The answer with the placement that it was made for."""
    if placement is None:
        return answer
    caption = met.configuration.caption
    shown = AnsweredPlacement(placement.name, placement.version, caption, met.arm)
    return msgspec.structs.replace(answer, placement=shown)


def _answered(
    services: Services,
    answer: Answer,
    asked: ProfilingParams,
    reached: bool | None,
    asker: Asker,
    place: ServedPlace,
    times: StageTimes | None,
) -> bytes:
    recommendation_id = services.new_id()
    services.record_served(
        recommendation_id,
        answer,
        services.store,
        asker=asker,
        place=place,
        is_kept=asked.profiling == "on",
    )
    now_s = services.clock()
    body = recommendations_body(
        answer, recommendation_id, now_s=now_s, reached=reached, times=times
    )
    return encode(body)
