"""What the routes work with, handed to them when the application is made."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from prometheus_client import Counter
from starlette.types import Receive

from api.impressions import Impressions
from api.query_params import Waiting
from api.read_your_writes import Effects, LoadIncarnations
from api.server.admission import Gate
from api.shadow_comparison import Shadow
from models.errors import Unavailable
from models.events import Erasure, PutEvents
from models.metadata_records import Kind, Properties
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.memory import risks, shortages
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import Store

ANSWERS = Counter("recommender_answers_total", "Answers by recipe and level", ["recipe", "level"])


@functools.cache
def _answers(recipe: str, level: str) -> Counter:
    """One series; looking it up by label costs more than counting."""
    return ANSWERS.labels(recipe, level)


@dataclass(frozen=True)
class Kafka:
    """What the API needs of Kafka, without knowing it.

    Attributes
    ----------
    publish
        Sends a valid message; gives its token once Kafka has acknowledged, or raises `Unavailable`.
    put
        Sends metadata, by kind (``items`` or ``users``), group, and id and properties of each
        record, None to remove it; gives its token once Kafka has acknowledged all of it, or raises
        `Unavailable`.
    incarnations
        The incarnation of the topics ``clicks``, ``purchases``, ``items`` and ``users``.
    missing
        What is not as it must be, in words; empty when all is well.
    """

    publish: Callable[[PutEvents | Erasure], Awaitable[str]]
    put: Callable[[Kind, str, Sequence[tuple[str, Properties | None]]], Awaitable[str]]
    incarnations: LoadIncarnations
    missing: Callable[[], Awaitable[list[str]]]


class Looking:
    """Looks whether Kafka and Redis can be used: once for all who ask at the same time."""

    def __init__(self, kafka: Kafka, store: Store) -> None:
        self._kafka = kafka
        self._store = store
        self._looking: asyncio.Task[tuple[list[str], list[str]]] | None = None

    async def look(self) -> tuple[list[str], list[str]]:
        """What is not as it must be, and what an operator should see to, in words."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> tuple[list[str], list[str]]:
        missing = list(await self._kafka.missing())
        try:
            await self._store.ping()
            memory = await self._store.memory()
        except (Unavailable, *AWAY_ERRORS):
            return [*missing, "redis"], []
        return [*missing, *(f"redis: {text}" for text in shortages(memory))], risks(memory)


def gated(kafka: Kafka, gate: Gate) -> Kafka:
    """Kafka for no more requests at once than the gate lets in."""

    async def publish(message: PutEvents | Erasure) -> str:
        with gate:
            return await kafka.publish(message)

    async def put(kind: Kind, group: str, records: Sequence[tuple[str, Properties | None]]) -> str:
        with gate:
            return await kafka.put(kind, group, records)

    return replace(kafka, publish=publish, put=put)


@dataclass(frozen=True)
class Services:
    """What the routes work with; store and recommender are those of the settings' group.

    Attributes
    ----------
    answering
        Bounds the requests that wait for Redis.
    shadow
        What answers are compared with; None where they are not.
    """

    settings: Settings
    store: Store
    recommender: Recommender
    tenants: Tenants
    kafka: Kafka
    answering: Gate
    readiness: Looking
    effects: Effects
    impressions: Impressions
    clock: Callable[[], float]
    new_id: Callable[[], str]
    shadow: Shadow | None = None

    async def reached(self, asked: Waiting, receive: Receive) -> bool | None:
        """Whether the events of ?after= are in effect, waiting for it; None where not asked."""
        if asked.after is None:
            return None
        wait_s = self.settings.after_timeout_s
        return await self.effects.reached(asked.after, wait_s=wait_s, receive=receive)

    def serve(
        self,
        recommendation_id: str,
        answer: Answer,
        store: Store,
        item_ids: Sequence[str] | None = None,
    ) -> None:
        """Note that a list is served out of a group's store: count it, and log it in there.

        `item_ids` are what is served, if not given all items of the answer.
        """
        self.impressions.log(store, recommendation_id, answer, item_ids)
        _answers(answer.recipe, answer.level).inc()
