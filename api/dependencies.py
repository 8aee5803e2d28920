"""Services that the routes share, made once with the application."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Protocol, TypeVar

import msgspec
from prometheus_client import Counter, Gauge
from starlette.types import Receive, Scope

from api.access.callers import Caller
from api.event_tail import EventTail
from api.impressions import ImpressionLog
from api.live_figures import LiveFeed
from api.read_your_writes import ReadYourWrites
from api.request_params import AfterParams, ListParams, RankRequest, RecommendParams
from api.schemas import ResponseBody
from api.served_log import NO_PLACE, ServedLog, ServedPlace
from api.server.admission import Gate
from models.audit_entries import MAX_TARGETS, AuditEntry
from models.errors import Unavailable
from models.events import Erasure, PutEvents
from models.kafka_operations import (
    FoundEvents,
    LetterPlace,
    ReplayResult,
    StreamStatus,
    TailedEvent,
    WaitingLetter,
)
from models.metadata_records import Properties, RecordKind
from models.printable import excerpt
from models.serving.answers import Answer
from models.serving.merchandising.experiments import ExperimentCache
from models.serving.merchandising.named_things import check_names, with_saved_filters
from models.serving.merchandising.placements import (
    Configuration,
    PlacementCache,
    PlacementRule,
    check_configuration,
    segments_named,
)
from models.serving.merchandising.questions import Question
from models.serving.merchandising.rule_members import saved_filter_names, with_expressions
from models.serving.merchandising.rules import Asker
from models.serving.merchandising.segments import Segments
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations.memory import read_memory, risks, shortages
from models.state.shards.sharded_store import absent_shards
from models.state.store import Store
from models.state.tenants import Tenants
from models.tokens import TopicKind

if TYPE_CHECKING:
    from api.shadow_comparison import ShadowComparison

MAX_KAFKA_OPERATIONS = 4
"""Requests that may wait for dead letters at once: each reads all that wait."""

ANSWERS = Counter("recommender_answers_total", "Answers by recipe and level", ["recipe", "level"])


ABSENT_SHARDS = Gauge(
    "recommender_absent_shards", "Shards that do not answer, without which answers are given"
)


@functools.cache
def _answers(recipe: str, level: str) -> Counter:
    """One series of `ANSWERS`, cached: the look-up by label costs more than the count."""
    return ANSWERS.labels(recipe, level)


class EventPublisher(Protocol):
    """Kafka as the API uses it; implemented by `streams.kafka.producing.publisher`."""

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

    def put_served(self, messages: Sequence[tuple[bytes, bytes]], /) -> Awaitable[None]:
        """Send keys and values to the topic of served lists; raises as `publish` does."""

    def audit(self, entry: AuditEntry, /) -> Awaitable[None]:
        """Write an entry of the audit log; raises `Unavailable` as `publish` does."""

    def audit_entries(self, n: int, /) -> Awaitable[list[AuditEntry]]:
        """The newest entries of the audit log, n at most, oldest first; raises `Unavailable`."""

    def incarnations(self) -> Awaitable[Mapping[TopicKind, str]]:
        """Incarnations of the topics ``clicks``, ``purchases``, ``items`` and ``users``."""

    def missing(self) -> Awaitable[list[str]]:
        """Reasons why nothing can be sent, in words; empty if it can."""

    def close(self) -> Awaitable[None]:
        """Disconnect, once each message under way is acknowledged or given up."""


class KafkaOperations(Protocol):
    """Kafka operations of the console; implemented by `streams.operations.kafka_console`."""

    def letters(self, most: int, /) -> Awaitable[list[WaitingLetter]]:
        """The oldest dead letters that wait; raises `Unavailable`."""

    def replay(self, places: Collection[LetterPlace], /) -> Awaitable[ReplayResult]:
        """Send these dead letters to their topics again; raises `Unavailable`."""

    def discard(self, places: Collection[LetterPlace], /) -> Awaitable[int]:
        """Let these dead letters be; the number of them; raises `Unavailable`."""

    def status(self, *, now_s: float) -> Awaitable[StreamStatus]:
        """The state of the stream; raises `Unavailable`."""

    def find_events(self, event_id: str, /) -> Awaitable[FoundEvents]:
        """Events of an id among the newest messages; raises `Unavailable`."""

    def tail(self, show: Callable[[list[TailedEvent]], None], /) -> Callable[[], None]:
        """Have events shown in a thread as they come, until the answer is called."""


class SavedFilter(ResponseBody, frozen=True):
    """A saved filter of items or users."""

    name: str
    filter: str
    created_at: Annotated[float, msgspec.Meta(description="Unix seconds.")]
    updated_at: Annotated[float, msgspec.Meta(description="Unix seconds.")]


class NamedFilters(Protocol):
    """The saved filters of the settings' group; implemented by `api.personalize.saved_filters`."""

    def expression(self, name: str, /) -> Awaitable[str]:
        """The expression of a filter, at most `cache_s` old.

        Raises
        ------
        InvalidRequest
            There is none of that name.
        """

    def all(self) -> Awaitable[list[SavedFilter]]:
        """All filters of the group."""

    def put(self, name: str, expression: str, /) -> Awaitable[SavedFilter]:
        """Create or replace a filter; raises `InvalidRequest` if that is not allowed."""

    def delete(self, name: str, /) -> Awaitable[bool]:
        """Delete a filter; False if there is none."""


class GatedPublisher:
    """A publisher that bounds the requests that wait for Kafka, by gates."""

    def __init__(self, publisher: EventPublisher, gate: Gate, reading: Gate) -> None:
        self._publisher, self._gate, self._reading = publisher, gate, reading
        self.incarnations = publisher.incarnations
        self.missing = publisher.missing
        self.audit = publisher.audit
        self.put_served = publisher.put_served
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

    async def audit_entries(self, n: int, /) -> list[AuditEntry]:
        """The newest entries, or raise `Overloaded` at once if the gate is full."""
        with self._reading:
            return await self._publisher.audit_entries(n)


class ReadinessCheck:
    """Checks that Kafka and Redis can be used; simultaneous requests share one check."""

    def __init__(self, publisher: EventPublisher, store: Store) -> None:
        self._publisher = publisher
        self._store = store
        self._checking: asyncio.Task[tuple[list[str], list[str]]] | None = None
        ABSENT_SHARDS.set_function(lambda: len(absent_shards(store)))

    async def check(self) -> tuple[list[str], list[str]]:
        """Reasons not to be ready, and warnings for an operator, both in words."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._check_once())
        return await asyncio.shield(self._checking)

    async def _check_once(self) -> tuple[list[str], list[str]]:
        missing = list(await self._publisher.missing())
        try:
            await self._store.ping()
            if absent := absent_shards(self._store):
                return missing, [f"redis: the servers of {', '.join(absent)} are away"]
            memory = await read_memory(self._store.redis)
        except (Unavailable, *AWAY_ERRORS):
            return [*missing, "redis"], []
        return [*missing, *(f"redis: {text}" for text in shortages(memory))], risks(memory)


A = TypeVar("A", ListParams, RecommendParams, RankRequest, PlacementRule)
"""A struct whose members name filters."""


@dataclass(frozen=True)
class Services:
    """Services of the routes; store and recommender are those of the settings' group.

    Attributes
    ----------
    redis_gate
        Bounds the requests that wait for Redis.
    served_log
        Sends served lists to Kafka; None where outcomes are not counted.
    shadow
        Comparison of answers with an AWS campaign; None without one.
    kafka, tail, kafka_gate
        Dead letters, the tail of events, and the bound on requests that wait for them; None
        where the process has no access.
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
    placements: PlacementCache
    segments: Segments
    filters: NamedFilters
    experiments: ExperimentCache
    clock: Callable[[], float]
    new_id: Callable[[], str]
    shadow: ShadowComparison | None = None
    kafka: KafkaOperations | None = None
    tail: EventTail | None = None
    kafka_gate: Gate = field(
        default_factory=lambda: Gate(MAX_KAFKA_OPERATIONS, "operations", "Kafka")
    )
    served_log: ServedLog | None = None

    async def await_effect(self, asked: AfterParams, receive: Receive) -> bool | None:
        """Wait for the events of ?after=; True once in effect, None without ?after=."""
        if asked.after is None:
            return None
        wait_s = self.settings.after_timeout_s
        return await self.read_your_writes.wait(asked.after, wait_s=wait_s, receive=receive)

    async def with_filters(self, asked: A) -> A:
        """A question with the expressions of saved filters in place of their names.

        Raises
        ------
        InvalidRequest
            There is no filter of a name.
        """
        if asked.filter is None and not asked.boost:
            return asked
        names = saved_filter_names(asked.filter, asked.boost)
        if not names:
            return asked
        with self.redis_gate:
            expressions = {name: await self.filters.expression(name) for name in names}
        members = with_expressions(asked.filter, asked.boost, expressions)
        return msgspec.structs.replace(asked, **members)

    async def with_filters_of(self, configuration: Configuration) -> Configuration:
        """A configuration with those of its rules; as `with_filters`."""
        if not any(saved_filter_names(one.filter, one.boost) for one in configuration.rules):
            return configuration
        with self.redis_gate:
            return await with_saved_filters(configuration, self.filters.expression)

    async def checked(self, configuration: Configuration) -> Configuration:
        """A configuration that may be saved, with those of its filters that are named.

        Raises
        ------
        InvalidRequest
            With the place, the rule that is broken, or what it names and there is not.
        """
        found = await self.with_filters_of(configuration)
        check_configuration(found)
        with self.redis_gate:
            await check_names(self.store, found)
        return found

    async def with_segments(self, question: Question, *configurations: Configuration) -> Question:
        """The question with the user's segments, among those that the rules are for."""
        user_id = question.asker.user_id
        names = [name for one in configurations for name in segments_named(one)]
        if not names or user_id is None or not question.profiling:
            return question
        found = await self.segments.of_user(user_id, names, question.now_s)
        return question._replace(segments=found)

    async def audit_reading(
        self, scope: Scope, action: str, targets: Sequence[str], group: str
    ) -> None:
        """As `audit`, for what only reads; without callers that can be told apart, nothing."""
        caller: Caller = scope["caller"]
        if caller.id:
            await self.audit(scope, action, targets, group)

    async def audit(self, scope: Scope, action: str, targets: Sequence[str], group: str) -> None:
        """Write who is about to change what, also of an API that is open to everybody.

        It comes before the change, which is not made where it cannot be written.
        """
        caller: Caller = scope["caller"]
        address = scope["client"][0] if scope.get("client") else ""
        named = [excerpt(one.encode(errors="replace"), 256) for one in targets[:MAX_TARGETS]]
        await self.publisher.audit(
            AuditEntry(self.clock(), caller.id, caller.name, action, group, named, address)
        )

    async def close(self) -> None:
        """End what runs in the background."""
        await self.read_your_writes.close()
        await self.impressions.close()
        await self.live.close()
        if self.served_log is not None:
            await self.served_log.close()
        if self.tail is not None:
            self.tail.close()
        if self.shadow is not None:
            await self.shadow.close()

    def record_served(
        self,
        recommendation_id: str,
        answer: Answer,
        store: Store,
        item_ids: Sequence[str] | None = None,
        *,
        asker: Asker,
        place: ServedPlace = NO_PLACE,
        is_kept: bool = True,
    ) -> None:
        """Count a served list, and, if it is kept, log it as an impression.

        It is logged in its group's store, and in Kafka with whom it was for.

        Parameters
        ----------
        item_ids
            The served items; by default all items of the answer.
        place
            Where it was asked for.
        """
        if is_kept:
            self.impressions.log(store, recommendation_id, answer, item_ids)
            if self.served_log is not None:
                group = store.settings.group
                self.served_log.log(group, recommendation_id, answer, item_ids, asker, place)
        _answers(answer.recipe, answer.level).inc()
