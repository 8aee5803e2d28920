"""Training examples for the ranker, sampled from the events that are about to be applied.

An example is a choice with the candidates of the state before it; so what its event changes is read
just before the step that applies it. Once that is in effect, examples are made of all events of a
moment: what others' events change is read for all of them at once, and their numbers are worked out
one after another, while the processor's caches hold what that takes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from models.action_groups import is_actions_group
from models.ranking import examples
from models.ranking.objectives import rankers_for
from models.serving.recommenders import Recommenders
from models.serving.snapshots import BeforeEvent, Snapshots
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.messages import StoredMessage
from models.state.shards.at_once import some_at_once
from streams.agents.contracts import Publish
from streams.agents.learning.fair_rate import FairRate

LOG = logging.getLogger(__name__)

CALM_LAG_S, LATE_LAG_S = 0.5, 5.0
LATE_SHARE = 0.1
"""Examples are sampled at the full rate up to the calm lag, and at this share of it from the late
lag on."""

CALM_AFTER_S = 5.0
"""The stream is calm again so long after a step with a greater lag than the calm one."""


def sampling_share(lag_s: float) -> float:
    """Share of the full sampling rate at a lag: examples must not hold up a late stream.

    >>> [round(sampling_share(lag_s), 2) for lag_s in (0.1, 2.75, 60.0)]
    [1.0, 0.55, 0.1]
    """
    lateness = min(1.0, max(0.0, lag_s - CALM_LAG_S) / (LATE_LAG_S - CALM_LAG_S))
    return 1.0 - (1.0 - LATE_SHARE) * lateness


class _Seen(NamedTuple):
    """A sampled message, and the state that its first event is about to change."""

    message: StoredMessage
    snapshots: Snapshots
    before: BeforeEvent


class ExampleSampler:
    """Makes examples of some of the events of each step: a `StepObserver`.

    Parameters
    ----------
    publish
        Produces to the topic of examples.
    clock
        The present in Unix seconds.
    """

    def __init__(
        self, recommenders: Recommenders, *, publish: Publish, clock: Callable[[], float]
    ) -> None:
        settings = recommenders.tenants.settings
        self._recommenders = recommenders
        self._own_group = settings.group
        self._publish = publish
        self._clock = clock
        self._rng = np.random.default_rng()
        self._rate = FairRate(settings.examples_per_s, clock())
        self._late_until_s = 0.0
        self._challenger_every_s = 1.0 / settings.challenger_examples_per_s
        self._next_for_challengers_s = -math.inf if settings.challengers else math.inf
        self._gather_s = settings.examples_gather_s
        self._seen: list[_Seen] = []
        self._making: asyncio.Task[None] | None = None
        self._producing: asyncio.Task[None] | None = None

    async def before_step(self, messages: Sequence[StoredMessage]) -> Callable[[], None]:
        """Look at the state before some messages; the action returned has examples made of them.

        A fault in making those of an earlier step is raised here, and ends the worker.
        """
        for task in (self._making, self._producing):
            if task is not None and task.done() and not task.cancelled():
                task.result()
        return functools.partial(self._keep, await self._look(messages))

    def is_late(self) -> bool:
        """True if the stream is behind, or was lately."""
        return self._clock() < self._late_until_s

    async def flush(self) -> None:
        """Wait until examples of all that was seen are produced."""
        if self._making is not None:
            await self._making
        if self._producing is not None:
            await self._producing

    async def _look(self, messages: Sequence[StoredMessage]) -> list[_Seen]:
        """Sampled messages with the state before them; none while Redis is away."""
        sampled = self._sample(messages)
        now_s = self._clock()
        try:
            found = await some_at_once(self._before(one, now_s) for one in sampled)
        except AWAY_ERRORS as error:
            LOG.warning("no examples from this step, Redis is away: %s", error)
            return []
        return [one for one in found if one is not None]

    def _sample(self, messages: Sequence[StoredMessage]) -> list[StoredMessage]:
        """Messages to make examples of: each owner's first of the step, as many as the rate allows.

        Purchases first: they are rare, and the objective of purchases learns from nothing else.
        """
        first_of: dict[tuple[str, str], StoredMessage] = {}
        for message in messages:
            # Propensities to take actions are learned by counts in the step itself.
            if is_actions_group(message.group):
                continue
            first = message.events[0] if message.events else None
            if first is not None and first.item_id and not first.effect:
                owner = (message.group, message.user_id or message.session_id)
                first_of.setdefault(owner, message)
        now_s = self._clock()
        lag_s = now_s - min((m.accepted_at for m in messages if m.accepted_at), default=now_s)
        wanted = Counter(group for group, _ in first_of)
        left = self._rate.take(wanted, now_s, share=sampling_share(lag_s))
        if lag_s > CALM_LAG_S:
            self._late_until_s = now_s + CALM_AFTER_S
        choices = list(first_of.values())
        self._rng.shuffle(choices)
        choices.sort(key=lambda message: not message.events[0].is_purchase)
        sampled = []
        for message in choices:
            if left[message.group]:
                left[message.group] -= 1
                sampled.append(message)
        return sampled

    async def _before(self, message: StoredMessage, now_s: float) -> _Seen | None:
        """The state before a message; None if its user is new, whose choice nothing predicts."""
        snapshots = self._recommenders.of(message.group or self._own_group).snapshots
        item_id = message.events[0].item_id
        before = await snapshots.before_event(
            message.user_id or None, message.session_id, item_id, now_s=now_s
        )
        return _Seen(message, snapshots, before) if before.snapshot.profile.last_item else None

    def _keep(self, seen: Sequence[_Seen]) -> None:
        """Keep what was seen for the examples of this moment."""
        self._seen += seen
        if self._seen and (self._making is None or self._making.done()):
            self._making = asyncio.create_task(self._make())

    async def _make(self) -> None:
        """Make examples of what is seen in a moment, and have them produced, until none are left.

        They are dropped while those before are being produced: they are a sample.
        """
        while self._seen:
            await asyncio.sleep(self._gather_s)
            seen, self._seen = self._seen, []
            made = await self._examples(seen)
            if made and (self._producing is None or self._producing.done()):
                self._producing = asyncio.create_task(self._produce(made))

    async def _examples(self, seen: Sequence[_Seen]) -> dict[str, list[bytes]]:
        """Encoded examples by group; none while Redis is away."""
        found: dict[str, list[bytes]] = defaultdict(list)
        now_s = self._clock()
        try:
            completed = await some_at_once(
                one.snapshots.completed(one.before, now_s) for one in seen
            )
            for one, before in zip(seen, completed, strict=True):
                # Events that arrive meanwhile are applied in between.
                await asyncio.sleep(0)
                choice = None if before is None else await one.snapshots.choice_of(before)
                if choice is not None:
                    found[one.message.group].append(self._example(choice, one, now_s))
        except AWAY_ERRORS as error:
            LOG.warning("no examples of some events, Redis is away: %s", error)
        return found

    def _example(self, choice: examples.Choice, seen: _Seen, now_s: float) -> bytes:
        """The example of a choice, encoded."""
        shared, message = seen.before.snapshot.shared, seen.message
        rankers = rankers_for(shared.rankers, is_purchase=message.events[0].is_purchase)
        for_challengers = (
            message.group in ("", self._own_group) and now_s >= self._next_for_challengers_s
        )
        if for_challengers:
            self._next_for_challengers_s = now_s + self._challenger_every_s
        return examples.encode(
            examples.make_example(choice, rankers, self._rng, for_challengers=for_challengers)
        )

    async def _produce(self, made: dict[str, list[bytes]]) -> None:
        for group, some in made.items():
            await self._publish(some, group.encode() or None)
