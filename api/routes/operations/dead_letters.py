"""Routes of the stream: its state, what was refused and why, replay and discard."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta

from api.dependencies import KafkaOperations, Services
from api.openapi import documented
from api.request_params import AfterParams, parse_body, parse_query
from api.schemas import DeadLetters, DiscardedLetters, json_response
from models.errors import Unavailable
from models.kafka_operations import LetterPlace, ReplayResult, StreamStatus

MAX_LETTERS = 100

router = APIRouter()


class LettersParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /dead-letters."""

    num_results: Annotated[int, Meta(ge=1, le=MAX_LETTERS, description="The oldest first.")] = 50


class LetterPlaces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dead letters by their places."""

    letters: Annotated[list[LetterPlace], Meta(min_length=1, max_length=MAX_LETTERS)]


EXAMPLE = {"letters": [{"partition": 0, "offset": 17}]}


@router.get(
    "/dead-letters", **documented(DeadLetters, "Dead letters that wait", query=LettersParams)
)
async def dead_letters(request: Request) -> Response:
    """Messages that could not be decoded, validated or applied, with bytes, reason and origin."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], LettersParams)
    await services.await_effect(asked, request.receive)
    with services.kafka_gate:
        found = await _kafka(services).letters(asked.num_results)
    return json_response(DeadLetters(found))


@router.post(
    "/dead-letters/replay",
    **documented(ReplayResult, "Replay dead letters", body=LetterPlaces, example=EXAMPLE),
)
async def replay_dead_letters(request: Request) -> Response:
    """Sends their messages to their topics again; one that fails again is a new dead letter."""
    services: Services = request.app.state.services
    places = parse_body(await request.body(), LetterPlaces).letters
    await services.audit(request.scope, "replay_dead_letters", _named(places), "")
    with services.kafka_gate:
        return json_response(await _kafka(services).replay(places))


@router.post(
    "/dead-letters/discard",
    **documented(DiscardedLetters, "Discard dead letters", body=LetterPlaces, example=EXAMPLE),
)
async def discard_dead_letters(request: Request) -> Response:
    """Lets them be: they wait no longer, and Kafka keeps them for as long as others."""
    services: Services = request.app.state.services
    places = parse_body(await request.body(), LetterPlaces).letters
    await services.audit(request.scope, "discard_dead_letters", _named(places), "")
    with services.kafka_gate:
        return json_response(DiscardedLetters(await _kafka(services).discard(places)))


@router.get("/status", **documented(StreamStatus, "State of the stream"))
async def status(request: Request) -> Response:
    """Lag by partition, dead letters, memory by family of keys: a second of reading Kafka."""
    services: Services = request.app.state.services
    with services.kafka_gate:
        return json_response(await _kafka(services).status(now_s=services.clock()))


def _kafka(services: Services) -> KafkaOperations:
    if services.kafka is None:
        raise Unavailable("this process has no access to dead letters")
    return services.kafka


def _named(places: list[LetterPlace]) -> list[str]:
    return [f"{one.partition}/{one.offset}" for one in places]
