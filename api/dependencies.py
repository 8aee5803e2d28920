"""What the routes work with, handed to them when the application is made."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter
from starlette.types import Receive

from api.impressions import ImpressionLog
from api.query_params import AfterParams
from api.read_your_writes import ReadYourWrites
from api.server.admission import Gate
from api.shadow_comparison import ShadowComparison
from models.errors import Unavailable
from models.events import Erasure, PutEvents
from models.metadata_records import Properties, RecordKind
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.memory import risks, shortages
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import Store
from models.tokens import TopicKind

ANSWERS = Counter("recommender_answers_total", "Answers by recipe and level", ["recipe", "level"])


@functools.cache
def _answers(recipe: str, level: str) -> Counter:
    """One series; looking it up by label costs more than counting."""
    return ANSWERS.labels(recipe, level)


class EventPublisher(Protocol):
    """What the API needs of Kafka; `streams.kafka.publisher` implements it."""

    def publish(self, message: PutEvents | Erasure, /) -> Awaitable[str]:
        """Send a valid message, and give its token once Kafka has acknowledged it.

        Raises
        ------
        Unavailable
            Kafka did not acknowledge it in time; `Overloaded` if too much waits for that already.
        """

    def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]], /
    ) -> Awaitable[str]:
        """Send metadata, and give its token once Kafka has acknowledged all of it.

        Of each record the id and properties, None to remove it; raises as `publish` does.
        """

    def incarnations(self) -> Awaitable[Mapping[TopicKind, str]]:
        """Give the incarnation of the topics ``clicks``, ``purchases``, ``items`` and ``users``."""

    def missing(self) -> Awaitable[list[str]]:
        """Tell why nothing can be sent, in words; empty when all is well."""


class GatedPublisher:
    """A publisher for no more requests at once than a gate lets in."""

    def __init__(self, publisher: EventPublisher, gate: Gate) -> None:
        self._publisher, self._gate = publisher, gate
        self.incarnations = publisher.incarnations
        self.missing = publisher.missing

    async def publish(self, message: PutEvents | Erasure, /) -> str:
        """Publish, or raise `Overloaded` at once."""
        with self._gate:
            return await self._publisher.publish(message)

    async def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]], /
    ) -> str:
        """Put, or raise `Overloaded` at once."""
        with self._gate:
            return await self._publisher.put(kind, group, records)


class ReadinessCheck:
    """Looks whether Kafka and Redis can be used: once for all who ask at the same time."""

    def __init__(self, publisher: EventPublisher, store: Store) -> None:
        self._publisher = publisher
        self._store = store
        self._checking: asyncio.Task[tuple[list[str], list[str]]] | None = None

    async def check(self) -> tuple[list[str], list[str]]:
        """What is not as it must be, and what an operator should see to, in words."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_once())
        return await asyncio.shield(self._checking)

    async def _check_once(self) -> tuple[list[str], list[str]]:
        missing = list(await self._publisher.missing())
        try:
            await self._store.ping()
            memory = await self._store.memory()
        except (Unavailable, *AWAY_ERRORS):
            return [*missing, "redis"], []
        return [*missing, *(f"redis: {text}" for text in shortages(memory))], risks(memory)


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
    publisher: EventPublisher
    redis_gate: Gate
    readiness: ReadinessCheck
    read_your_writes: ReadYourWrites
    impressions: ImpressionLog
    clock: Callable[[], float]
    new_id: Callable[[], str]
    shadow: ShadowComparison | None = None

    async def await_effect(self, asked: AfterParams, receive: Receive) -> bool | None:
        """Whether the events of ?after= are in effect, waiting for it; None where not asked."""
        if asked.after is None:
            return None
        wait_s = self.settings.after_timeout_s
        return await self.read_your_writes.wait(asked.after, wait_s=wait_s, receive=receive)

    def record_served(
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
