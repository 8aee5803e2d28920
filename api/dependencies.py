"""Services that the routes share, made once with the application."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter
from starlette.types import Receive, Scope

from api.access.callers import Caller
from api.impressions import ImpressionLog
from api.live_figures import LiveFeed
from api.read_your_writes import ReadYourWrites
from api.request_params import AfterParams
from api.server.admission import Gate
from api.shadow_comparison import ShadowComparison
from models.audit_entries import MAX_TARGETS, AuditEntry
from models.errors import Unavailable
from models.events import Erasure, PutEvents
from models.metadata_records import Properties, RecordKind
from models.printable import excerpt
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state.memory import read_memory, risks, shortages
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import Store
from models.state.tenants import Tenants
from models.tokens import TopicKind

ANSWERS = Counter("recommender_answers_total", "Answers by recipe and level", ["recipe", "level"])


@functools.cache
def _answers(recipe: str, level: str) -> Counter:
    """One series of `ANSWERS`, cached: the look-up by label costs more than the count."""
    return ANSWERS.labels(recipe, level)


class EventPublisher(Protocol):
    """Kafka as the API uses it; implemented by `streams.kafka.publisher`."""

    def publish(self, message: PutEvents | Erasure, /) -> Awaitable[str]:
        """Send a valid message; gives its read-your-writes token once Kafka has acknowledged it.

        Raises
        ------
        Unavailable
            Kafka did not acknowledge it in time; `Overloaded` if too many messages wait already.
        """

    def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]], /
    ) -> Awaitable[str]:
        """Send metadata records; gives their token once Kafka has acknowledged all of them.

        A record is an id and its properties, None to remove it; raises as `publish` does.
        """

    def audit(self, entry: AuditEntry, /) -> Awaitable[None]:
        """Write an entry of the audit log; raises `Unavailable` as `publish` does."""

    def incarnations(self) -> Awaitable[Mapping[TopicKind, str]]:
        """Incarnations of the topics ``clicks``, ``purchases``, ``items`` and ``users``."""

    def missing(self) -> Awaitable[list[str]]:
        """Reasons why nothing can be sent, in words; empty if it can."""

    def close(self) -> Awaitable[None]:
        """Disconnect, once each message under way is acknowledged or given up."""


class GatedPublisher:
    """A publisher that bounds the requests that wait for Kafka, by a gate."""

    def __init__(self, publisher: EventPublisher, gate: Gate) -> None:
        self._publisher, self._gate = publisher, gate
        self.incarnations = publisher.incarnations
        self.missing = publisher.missing
        self.audit = publisher.audit
        self.close = publisher.close

    async def publish(self, message: PutEvents | Erasure, /) -> str:
        """Publish, or raise `Overloaded` at once if the gate is full."""
        with self._gate:
            return await self._publisher.publish(message)

    async def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]], /
    ) -> str:
        """Put, or raise `Overloaded` at once if the gate is full."""
        with self._gate:
            return await self._publisher.put(kind, group, records)


class ReadinessCheck:
    """Checks that Kafka and Redis can be used; simultaneous requests share one check."""

    def __init__(self, publisher: EventPublisher, store: Store) -> None:
        self._publisher = publisher
        self._store = store
        self._checking: asyncio.Task[tuple[list[str], list[str]]] | None = None

    async def check(self) -> tuple[list[str], list[str]]:
        """Reasons not to be ready, and warnings for an operator, both in words."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_once())
        return await asyncio.shield(self._checking)

    async def _check_once(self) -> tuple[list[str], list[str]]:
        missing = list(await self._publisher.missing())
        try:
            await self._store.ping()
            memory = await read_memory(self._store.redis)
        except (Unavailable, *AWAY_ERRORS):
            return [*missing, "redis"], []
        return [*missing, *(f"redis: {text}" for text in shortages(memory))], risks(memory)


@dataclass(frozen=True)
class Services:
    """Services of the routes; store and recommender are those of the settings' group.

    Attributes
    ----------
    redis_gate
        Bounds the requests that wait for Redis.
    shadow
        Comparison of answers with an AWS campaign; None without one.
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
    live: LiveFeed
    clock: Callable[[], float]
    new_id: Callable[[], str]
    shadow: ShadowComparison | None = None

    async def await_effect(self, asked: AfterParams, receive: Receive) -> bool | None:
        """Wait for the events of ?after=; True once in effect, None without ?after=."""
        if asked.after is None:
            return None
        wait_s = self.settings.after_timeout_s
        return await self.read_your_writes.wait(asked.after, wait_s=wait_s, receive=receive)

    async def audit(self, scope: Scope, action: str, targets: Sequence[str], group: str) -> None:
        """Write who is about to do what; without callers that can be told apart, nothing.

        It comes before the action, which is not done where it cannot be written.
        """
        caller: Caller = scope["caller"]
        if caller.id:
            address = scope["client"][0] if scope.get("client") else ""
            named = [excerpt(one.encode(errors="replace"), 256) for one in targets[:MAX_TARGETS]]
            await self.publisher.audit(
                AuditEntry(self.clock(), caller.id, caller.name, action, group, named, address)
            )

    def record_served(
        self,
        recommendation_id: str,
        answer: Answer,
        store: Store,
        item_ids: Sequence[str] | None = None,
        *,
        is_kept: bool = True,
    ) -> None:
        """Count a served list, and, if it is kept, log it in its group's store as an impression.

        `item_ids` are the served items; by default all items of the answer.
        """
        if is_kept:
            self.impressions.log(store, recommendation_id, answer, item_ids)
        _answers(answer.recipe, answer.level).inc()
