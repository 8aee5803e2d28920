"""The sessions agent: event messages in, the store's atomic step, examples for the ranker out.

Events of several dataset groups travel in the same topics; a step works for all of them at once,
and no group's events reach another's state.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from prometheus_client import Counter, Histogram

from models import events
from models.arrays import NO_ITEMS
from models.errors import InvalidEvent
from models.ranking import examples
from models.ranking.objectives import applicable
from models.serving.tenants import Tenants
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import Part, PartResult, StoredMessage, shard_of, stored_events
from streams.agents.atomic_batches import AtomicBatches, Publish
from streams.agents.fair_rate import FairRate
from streams.kafka.assignment import Assignment, Partition, PartitionLog, ReceivedMessage
from streams.kafka.dead_letters import FULL

LOG = logging.getLogger(__name__)

CALM_LAG_S, LATE_LAG_S = 0.5, 5.0
LATE_PACE = 0.1
"""Examples are sampled at the full rate up to a calm lag, and at this share of it from a late one
on."""

STEP_EVENTS = 200
"""Events in one atomic step, at most: a longer step would hold up reading requests."""

GATHERED_S = 0.1
"""For so long examples are gathered and then sent together: a broker that gets each of them alone
has as much work with them as with the events."""

EVENT_BYTES = 150
"""What an event takes in a message, about; only to guess the size of a step."""

APPLIED = Counter("recommender_events_total", "Events by what became of them", ["outcome"])
FRESHNESS = Histogram(
    "recommender_freshness_seconds",
    "From the acceptance of a message to its effect",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)
STEP = Histogram("recommender_step_seconds", "Duration of one atomic step")


def watermark_only(arrival: ReceivedMessage) -> StoredMessage:
    """A message without events: it only moves the watermark."""
    _, timestamp_ms, checksum = arrival.witness
    return StoredMessage(arrival.offset, "", "", 0, 0.0, [], "", timestamp_ms, checksum)


def sampling_share(lag_s: float) -> float:
    """Share of the rate of examples for a stream that is so far behind: they shall not hold it up.

    >>> [round(pace(lag_s), 2) for lag_s in (0.1, 2.75, 60.0)]
    [1.0, 0.55, 0.1]
    """
    behind = min(1.0, max(0.0, lag_s - CALM_LAG_S) / (LATE_LAG_S - CALM_LAG_S))
    return 1.0 - (1.0 - LATE_PACE) * behind


class EventAgent(AtomicBatches[StoredMessage]):
    """Applies batches of event messages; one for each worker process."""

    def __init__(
        self, tenants: Tenants, *, publish: Publish, log: PartitionLog, clock: Callable[[], float]
    ) -> None:
        super().__init__(
            tenants,
            publish=publish,
            log=log,
            clock=clock,
            step_size=STEP_EVENTS,
            stage="sessions",
        )
        self._rng = np.random.default_rng()
        self._allowance = FairRate(self.settings.examples_per_s, clock())
        self._gathered: dict[str, list[bytes]] | None = None
        self._offering: asyncio.Task[None] | None = None

    def _size(self, arrival: ReceivedMessage) -> int:
        return max(1, len(arrival.value) // EVENT_BYTES)

    async def _message(self, arrival: ReceivedMessage, assignment: Assignment) -> StoredMessage:
        settings, now_s = self.settings, self._clock()
        try:
            erasure = events.parse_erasure(
                arrival.value, now_s=now_s, future_limit_s=settings.future_limit_s
            )
            if erasure is not None:
                return self._erasure(arrival, erasure)
            message = events.parse(
                arrival.value, now_s=now_s, future_limit_s=settings.future_limit_s
            )
        except InvalidEvent as error:
            named = await self._group_of(events.tracking_id_of(arrival.value), assignment)
            return await self._invalid(arrival, str(error), named or "")
        group = ""
        if message.tracking_id not in (None, settings.tracking_id):
            named = await self._group_of(message.tracking_id, assignment)
            if named is None:
                # Of an assignment that has ended nothing is written: the message comes again.
                is_unknown = not assignment.has_ended
                return (
                    await self._unknown(arrival, message) if is_unknown else watermark_only(arrival)
                )
            group = "" if named == settings.group else named
        _, timestamp_ms, checksum = arrival.witness
        return StoredMessage(
            arrival.offset,
            message.user_id or "",
            message.session_id,
            shard_of(message.session_id),
            # Whoever produces to Kafka directly writes this time: the future would look fresh.
            min(message.accepted_at or now_s, now_s),
            stored_events(
                message.event_list,
                weights=settings.event_weights,
                purchase_types=settings.purchase_types,
            ),
            group,
            timestamp_ms,
            checksum,
        )

    def _erasure(self, arrival: ReceivedMessage, erasure: events.Erasure) -> StoredMessage:
        return watermark_only(arrival)._replace(
            user_id=erasure.user_id,
            accepted_at=erasure.accepted_at,
            group="" if erasure.erase == self.settings.group else erasure.erase,
            erased_at=erasure.accepted_at,
        )

    async def _group_of(self, tracking_id: str | None, assignment: Assignment) -> str | None:
        """Whose events these are; None if nobody's, or if the assignment has ended."""
        if tracking_id is None:
            return self.settings.group
        return await self._on_store(lambda: self.tenants.group_of(tracking_id), assignment)

    async def _unknown(self, arrival: ReceivedMessage, message: events.PutEvents) -> StoredMessage:
        detail = f"unknown tracking id {message.tracking_id!r} - at `$.trackingId`"
        return await self._invalid(arrival, detail, "")

    async def _invalid(self, arrival: ReceivedMessage, detail: str, group: str) -> StoredMessage:
        await self._bury(arrival, "invalid", detail, arrival.value, group=group)
        APPLIED.labels("dead").inc()
        return watermark_only(arrival)

    async def _write(
        self, parts: Sequence[tuple[str, int, list[StoredMessage], int]]
    ) -> list[PartResult]:
        with STEP.time():
            results, counts = await self.store.apply(
                [Part(*part) for part in parts], now_s=self._clock()
            )
        APPLIED.labels("applied").inc(counts["events"])
        APPLIED.labels("duplicate").inc(counts["duplicates"])
        APPLIED.labels("erased").inc(counts["erased"])
        return results

    def _noted(self, messages: Sequence[StoredMessage]) -> None:
        now_s = self._clock()
        for message in messages:
            if message.accepted_at:
                FRESHNESS.observe(max(0.0, now_s - message.accepted_at))

    async def _rest(
        self, arrival: ReceivedMessage, message: StoredMessage, result: PartResult
    ) -> StoredMessage:
        sent = events.parse(arrival.value, now_s=self._clock(), future_limit_s=float("inf"))
        if result.status == "gone":
            self.tenants.forget()
            return await self._unknown(arrival, sent)
        refused = set(result.refused)
        raw = events.encode(
            msgspec.structs.replace(sent, event_list=[sent.event_list[n] for n in result.refused])
        )
        group = message.group or self.settings.group
        await self._bury(arrival, FULL, f"group {group} holds max_items items", raw, group=group)
        APPLIED.labels("dead").inc()
        kept = [event for n, event in enumerate(message.events) if n not in refused]
        return message._replace(events=kept)

    async def _written(
        self,
        assignment: Assignment,
        waiting: dict[Partition, list[StoredMessage]],
        arrivals: Mapping[Partition, list[ReceivedMessage]],
    ) -> bool:
        """One step, with examples from the state before it."""
        chosen = await self._examples(assignment, waiting)
        is_done = await super()._written(assignment, waiting, arrivals)
        if is_done:
            self._offer(chosen)
        return is_done

    async def _examples(
        self, assignment: Assignment, waiting: Mapping[Partition, list[StoredMessage]]
    ) -> dict[str, list[bytes]]:
        """Examples of some of the choices about to be applied, by group."""
        choices = self._choices(assignment, waiting)
        if not choices:
            return {}
        now_s = self._clock()
        try:
            made = await asyncio.gather(*(self._example(*choice, now_s) for choice in choices))
        except AWAY_ERRORS as error:
            LOG.warning("no examples from this step, Redis is away: %s", error)
            return {}
        found: dict[str, list[bytes]] = defaultdict(list)
        for (message, _), example in zip(choices, made, strict=True):
            if example is not None:
                found[message.group].append(examples.encode(example))
        return found

    def _choices(
        self, assignment: Assignment, waiting: Mapping[Partition, list[StoredMessage]]
    ) -> list[tuple[StoredMessage, str]]:
        """Messages to sample: each owner's first of the step, as many as the rate allows."""
        owners: dict[tuple[str, str], tuple[StoredMessage, str]] = {}
        for partition, messages in waiting.items():
            for message in messages:
                owner = (message.group, message.user_id or message.session_id)
                if owner in owners or message.offset <= assignment.readings[partition].applied:
                    continue
                if message.events and message.events[0].item_id:
                    owners[owner] = (message, message.events[0].item_id)
        now_s = self._clock()
        accepted = [m.accepted_at for messages in waiting.values() for m in messages]
        lag_s = now_s - min((at_s for at_s in accepted if at_s), default=now_s)
        wanted = Tally(group for group, _ in owners)
        left = self._allowance.take(wanted, now_s, pace=sampling_share(lag_s))
        choices = list(owners.values())
        self._rng.shuffle(choices)
        # Purchases are few, and only they teach what is bought.
        choices.sort(key=lambda choice: not choice[0].events[0].is_purchase)
        chosen = []
        for message, item_id in choices:
            if left[message.group]:
                left[message.group] -= 1
                chosen.append((message, item_id))
        return chosen

    async def _example(
        self, message: StoredMessage, item_id: str, now_s: float
    ) -> examples.Example | None:
        recommender = self.tenants.recommender(message.group or self.settings.group)
        situation = await recommender.situations.of(
            message.user_id or None,
            message.session_id,
            now_s=now_s,
            barred=NO_ITEMS,
            learning=True,
        )
        return await recommender.situations.example(
            situation,
            item_id,
            applicable(situation.overview.rankers, is_purchase=message.events[0].is_purchase),
            self._rng,
            now_s=now_s,
        )

    def _offer(self, chosen: Mapping[str, Sequence[bytes]]) -> None:
        """Gather examples for a moment and send them; they are a sample.

        What comes while others are on their way is let go.
        """
        if chosen and (self._offering is None or self._offering.done()):
            self._gathered = {}
            self._offering = asyncio.create_task(self._send())
        if self._gathered is not None:
            for group, made in chosen.items():
                self._gathered.setdefault(group, []).extend(made)

    async def _send(self) -> None:
        await asyncio.sleep(GATHERED_S)
        gathered, self._gathered = self._gathered or {}, None
        for group, made in gathered.items():
            await self._publish("examples", made, group.encode() or None)
