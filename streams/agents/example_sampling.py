"""Training examples for the ranker, sampled from the events that are about to be applied.

An example is a choice with the candidates of the state before it; so it is made just before the
step that applies the event, and produced once the step is in effect.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.action_groups import is_actions_group
from models.ranking import examples
from models.ranking.objectives import rankers_for
from models.serving.recommenders import Recommenders
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.messages import StoredMessage
from models.state.shards.at_once import some_at_once
from streams.agents.contracts import Publish
from streams.agents.fair_rate import FairRate

LOG = logging.getLogger(__name__)

CALM_LAG_S, LATE_LAG_S = 0.5, 5.0
LATE_SHARE = 0.1
"""Examples are sampled at the full rate up to the calm lag, and at this share of it from the late
lag on."""

CALM_AFTER_S = 5.0
"""The stream is calm again so long after a step with a greater lag than the calm one."""

GATHER_S = 0.1
"""Examples are gathered for so long and then produced together: one by one they would cost a broker
as much work as the events do."""


def sampling_share(lag_s: float) -> float:
    """Share of the full sampling rate at a lag: examples must not hold up a late stream.

    >>> [round(sampling_share(lag_s), 2) for lag_s in (0.1, 2.75, 60.0)]
    [1.0, 0.55, 0.1]
    """
    lateness = min(1.0, max(0.0, lag_s - CALM_LAG_S) / (LATE_LAG_S - CALM_LAG_S))
    return 1.0 - (1.0 - LATE_SHARE) * lateness


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
        self._gathered: dict[str, list[bytes]] | None = None
        self._producing: asyncio.Task[None] | None = None

    async def before_step(self, messages: Sequence[StoredMessage]) -> Callable[[], None]:
        """Make examples of some messages; the action returned has them produced."""
        return functools.partial(self._offer, await self._examples(messages))

    def is_late(self) -> bool:
        """True if the stream is behind, or was lately."""
        return self._clock() < self._late_until_s

    async def flush(self) -> None:
        """Wait until the examples that were gathered are produced."""
        if self._producing is not None:
            await self._producing

    async def _examples(self, messages: Sequence[StoredMessage]) -> dict[str, list[bytes]]:
        """Encoded examples of sampled messages, by group; none while Redis is away."""
        sampled = self._sample(messages)
        if not sampled:
            return {}
        now_s = self._clock()
        try:
            made = await some_at_once(self._example(one, now_s) for one in sampled)
        except AWAY_ERRORS as error:
            LOG.warning("no examples from this step, Redis is away: %s", error)
            return {}
        found: dict[str, list[bytes]] = defaultdict(list)
        for message, example in zip(sampled, made, strict=True):
            if example is not None:
                found[message.group].append(examples.encode(example))
        return found

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

    async def _example(self, message: StoredMessage, now_s: float) -> examples.Example | None:
        """The example of a message's first event; None if its group has nothing to compare yet."""
        snapshots = self._recommenders.of(message.group or self._own_group).snapshots
        event = message.events[0]
        reading = snapshots.for_learning(message.user_id or None, message.session_id, now_s=now_s)
        snapshot, taken = await snapshots.with_index(reading, event.item_id)
        rankers = rankers_for(snapshot.shared.rankers, is_purchase=event.is_purchase)
        choice = await snapshots.choice(snapshot, snapshot.candidates(), taken)
        if choice is None:
            return None
        for_challengers = (
            message.group in ("", self._own_group) and now_s >= self._next_for_challengers_s
        )
        if for_challengers:
            self._next_for_challengers_s = now_s + self._challenger_every_s
        return examples.make_example(choice, rankers, self._rng, for_challengers=for_challengers)

    def _offer(self, made: Mapping[str, Sequence[bytes]]) -> None:
        """Gather examples for a moment and produce them together.

        Examples that are made while others are being produced are dropped: they are a sample.
        """
        if made and (self._producing is None or self._producing.done()):
            self._gathered = {}
            self._producing = asyncio.create_task(self._produce())
        if self._gathered is not None:
            for group, some in made.items():
                self._gathered.setdefault(group, []).extend(some)

    async def _produce(self) -> None:
        await asyncio.sleep(GATHER_S)
        gathered, self._gathered = self._gathered or {}, None
        for group, some in gathered.items():
            await self._publish(some, group.encode() or None)
