"""Catch-up of the ranker: examples of events that came faster than they could teach.

While events come at full speed, examples are made of few of them (`example_sampling`), and once
they are in effect it is too late: an example has the candidates of the state before its event. So,
once the stream is calm, a worker reads the group's newest events out of the histories and applies
them again, in order of time, to a scratch copy of the state that begins empty, with an example
before every so many of them: as in evaluation. The ranker agent learns these as any others.

It has a bounded share of one core, waits while events are late, and begins only where a group's
ranker has learned from few of many events. Users have numbers in the copy, not names. The copy is
erased at the end; what a killed worker leaves, by the next worker that learns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec
import numpy as np
from prometheus_client import Counter, Gauge

from models.action_groups import is_actions_group
from models.events import event_hash
from models.ranking import examples
from models.ranking.champions import stored_champions
from models.ranking.objectives import rankers_for
from models.retrieval.candidates import TOP_LIST_SIZES
from models.serving.cached.cache import StateCache
from models.serving.factor_renewal import is_due, renew_factors
from models.serving.recommenders import REGISTERED_CACHE_SHARE, Recommenders
from models.serving.snapshots import Snapshots
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.event_types import EventTypes
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.operations.catch_ups import (
    CatchUpState,
    copy_of,
    is_copy_there,
    save_catch_up,
    stored_catch_up,
)
from models.state.operations.memory import read_memory
from models.state.store import Store
from models.state.stored_factors import NEVER_LEARNED
from models.state.stored_ranker import load_ranker
from models.state.users.interactions import Interaction, histories
from streams.agents.contracts import Publish
from streams.agents.learning.rests import Rests

LOG = logging.getLogger(__name__)

CHECK_EVERY_S = 10.0

MIN_EVENTS = 1000
"""Events of a group from which on a catch-up pays."""

TAUGHT_SHARE = 0.1
"""Examples for each event from which on a ranker has kept up with the stream."""

GROWTH = 2.0
"""A group that was caught up with is due again once it has this many times the events."""

STEP_EVENTS = 100
"""Events of one step on the copy, at most: a longer one would hold up requests."""

PUBLISHED_TOGETHER = 50
"""Examples produced at once."""

EVENT_BYTES = 600
"""Memory of Redis that an event takes in the copy, at most."""

FULL_SHARE = 0.8
"""Share of Redis' memory beyond which no copy is made."""

LEFT = Gauge("recommender_catch_up_events", "Kept events that the ranker has yet to catch up with")
MADE = Counter("recommender_catch_up_examples_total", "Examples made while catching up")


class _Superseded(Exception):
    """Another worker has begun the same catch-up, this one learns no more, or the group is gone."""


class CatchUp:
    """Makes examples of kept events for the groups whose rankers need them; one for each worker.

    Parameters
    ----------
    publish
        Produces to the topic of examples.
    clock
        The present in Unix seconds.
    is_late
        True while events wait, and this must.

    Attributes
    ----------
    is_learner
        Whether this worker has the partition of examples: one at a time catches up.
    """

    def __init__(
        self,
        recommenders: Recommenders,
        *,
        publish: Publish,
        clock: Callable[[], float],
        is_late: Callable[[], bool],
    ) -> None:
        self.is_learner = False
        self._recommenders = recommenders
        self._tenants = recommenders.tenants
        self._settings = self._tenants.settings
        self._publish = publish
        self._clock = clock
        self._is_late = is_late
        self._rests = Rests(self._settings.catch_up_share, is_late)

    async def run(self) -> None:
        """Look for groups to catch up with, for ever."""
        while self._settings.catch_up_examples:
            await asyncio.sleep(CHECK_EVERY_S)
            if self.is_learner and not self._is_late():
                await self.check()

    async def check(self) -> None:
        """Catch up with all groups that are due, one after the other."""
        try:
            for group in sorted(await self._tenants.groups()):
                if not is_actions_group(group):
                    await self._check(group)
        except AWAY_ERRORS as error:
            LOG.warning("the ranker does not catch up, Redis is away: %s", error)
        except _Superseded:
            LOG.info("a catch-up ends early: another worker learns now, or the group is gone")

    async def _check(self, group: str) -> None:
        store = self._tenants.store(group)
        scratch = copy_of(store)
        if await is_copy_there(scratch):
            await self._tenants.erase(scratch.settings.group)
        state = await self._due(store)
        if state is None:
            return
        try:
            await self._catch_up(group, store, scratch, state)
        finally:
            LEFT.set(0)
            await self._tenants.erase(scratch.settings.group)

    async def _due(self, store: Store) -> CatchUpState | None:
        """The catch-up to begin with, if one is due and Redis has room for its copy."""
        n_events = int((await store.counts()).get("events", 0))
        ranker = await load_ranker(store)
        wanted = missing_examples(self._settings, n_events, ranker)
        if not wanted:
            return None
        n_kept = min(n_events, self._settings.catch_up_events)
        memory = await read_memory(store.redis)
        if memory.limit_bytes and (
            memory.used_bytes + EVENT_BYTES * n_kept > FULL_SHARE * memory.limit_bytes
        ):
            LOG.warning("the ranker does not catch up: Redis has no room for a copy of the state")
            return None
        return CatchUpState(n_events, wanted=wanted)

    async def _catch_up(
        self, group: str, store: Store, scratch: Store, state: CatchUpState
    ) -> None:
        self._rests.begin()
        events = await self._newest_events(store)
        choices = chosen(events, state.wanted)
        state = msgspec.structs.replace(state, known=len(events))
        await self._save(store, state)
        key = None if group == self._settings.group else group.encode()
        made: list[bytes] = []
        async for done, example in self._examples(group, scratch, events, choices):
            if example is not None:
                made.append(examples.encode(example))
            state = msgspec.structs.replace(state, done=done)
            if len(made) >= PUBLISHED_TOGETHER or done == len(events):
                await self._publish(made, key)
                await self._check_group(group)
                MADE.inc(len(made))
                state = msgspec.structs.replace(state, examples=state.examples + len(made))
                made = []
                await self._save(store, state)

    async def _newest_events(self, store: Store) -> list[Interaction]:
        """The newest `catch_up_events` of the kept events, in order of time."""
        most = self._settings.catch_up_events
        found: list[Interaction] = []
        number = 0
        async for _, own, _ in histories(store):
            found += [one._replace(user=str(number)) for one in own if not one.is_negative]
            number += 1
            if len(found) > 1.25 * most:
                found = newest(found, most)
            await self._pause()
        return newest(found, most)

    async def _examples(
        self, group: str, scratch: Store, events: Sequence[Interaction], choices: set[int]
    ) -> AsyncIterator[tuple[int, examples.Example | None]]:
        """Apply the events to the copy; the number of those done, with each example or step."""
        writer = _ScratchWriter(scratch)
        cache = StateCache(scratch, share=REGISTERED_CACHE_SHARE, list_sizes=TOP_LIST_SIZES)
        snapshots = Snapshots(scratch, cache)
        rng = np.random.default_rng()
        waiting: list[Interaction] = []
        factors, most = NEVER_LEARNED, self._settings.factor_events
        for number, event in enumerate(events):
            is_chosen = number in choices
            if waiting and (is_chosen or len(waiting) == STEP_EVENTS):
                await writer.apply(waiting)
                waiting = []
                yield number, None
                await self._pause()
                # As the examples of a worker that saw the events one by one would have them.
                if most and is_due(number, factors, now_s=event.at_s):
                    factors = await renew_factors(
                        scratch, number, most_events=most, now_s=event.at_s, pause=self._pause,
                        in_thread=True,
                    )  # fmt: skip
            if is_chosen:
                reading = snapshots.for_learning(event.user, None, now_s=event.at_s)
                snapshot, taken = await snapshots.with_index(reading, event.item)
                choice = await snapshots.choice(snapshot, snapshot.candidates(), taken)
                await cache.settle()
                if choice is not None:
                    shared = await self._recommenders.of(group).cache.refresh(self._clock())
                    is_purchase = event.type.lower() in self._settings.purchase_types
                    rankers = rankers_for(shared.rankers, is_purchase=is_purchase)
                    yield number, examples.make_example(choice, rankers, rng)
                await self._pause()
            waiting.append(event)
        await writer.apply(waiting)
        yield len(events), None

    async def _save(self, store: Store, state: CatchUpState) -> None:
        await save_catch_up(store, state)
        LEFT.set(state.known - state.done)

    async def _check_group(self, group: str) -> None:
        """Make sure that the group was not erased: nothing of it may be written any more."""
        if group not in await self._tenants.groups():
            raise _Superseded

    async def _pause(self) -> None:
        """Keep to the share of a core, and out of the way of late events."""
        await self._rests.pause()
        if not self.is_learner:
            raise _Superseded


def missing_examples(settings: Settings, n_events: int, ranker: Mapping[str, bytes]) -> int:
    """Examples to catch up with; 0 if the group's ranker has kept up, or was caught up with.

    Parameters
    ----------
    n_events
        Events of the group in effect.
    ranker
        The ranker's stored state.
    """
    last = stored_catch_up(ranker)
    n_learned = stored_champions(ranker)["interactions"].measures.n
    has_kept_up = n_learned >= min(settings.catch_up_examples, TAUGHT_SHARE * n_events)
    is_done = last is not None and last.is_complete and n_events < GROWTH * last.n_events
    # The copy is a group of its own, and a cluster has no other than that of the settings.
    if settings.has_one_group or n_events < MIN_EVENTS or has_kept_up or is_done:
        return 0
    return settings.catch_up_examples - n_learned


def newest(events: Sequence[Interaction], most: int) -> list[Interaction]:
    """The newest events, at most so many, by time; those of one time in their order."""
    order = np.argsort([event.at_s for event in events], kind="stable")[-most:]
    return [events[at] for at in order.tolist()]


def chosen(events: Sequence[Interaction], wanted: int) -> set[int]:
    """Places of events to make examples of, evenly among those whose users have earlier ones.

    >>> visits = [Interaction(user, "tent", "click", 0.0) for user in "aabbaa"]
    >>> sorted(chosen(visits, 2))
    [3, 5]
    """
    known: set[str] = set()
    eligible = []
    for number, event in enumerate(events):
        if event.user in known:
            eligible.append(number)
        known.add(event.user)
    n = min(wanted, len(eligible))
    return {eligible[(at + 1) * len(eligible) // n - 1] for at in range(n)}


class _ScratchWriter:
    """Applies events to the copy, in steps."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._types = EventTypes.of(store.settings)
        self._n = 0

    async def apply(self, events: Sequence[Interaction]) -> None:
        """Apply events in one step.

        Raises
        ------
        _Superseded
            Somebody else has written to the copy.
        """
        messages = [self._message(self._n + at, event) for at, event in enumerate(events)]
        now_s = max(event.at_s for event in events)
        (result,), _ = await self._store.apply(
            [Part("catch-up/0", self._n - 1, messages)], now_s=now_s
        )
        if result.status == "lost":
            raise _Superseded
        self._n += len(events)

    def _message(self, number: int, event: Interaction) -> StoredMessage:
        stored = StoredEvent(
            event.item,
            int(event.at_s),
            event.type,
            self._types.log2_weight(event.type),
            self._types.is_purchase(event.type),
            event_hash(str(number)),
        )
        shard = shard_of(event.user)
        return StoredMessage(number, event.user, event.user, shard, event.at_s, [stored])
