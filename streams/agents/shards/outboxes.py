"""Outboxes of session shards: what others have applied goes, what they lack is sent again.

A step's deltas are published by the worker that did the step. If that died before, or the topic has
lost them, their outbox still has them. One worker looks after a shard: that with its partition of
deltas of session shards. Two that do so at once send twice, which changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import NamedTuple

from prometheus_client import Counter, Gauge

from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.at_once import some_at_once
from models.state.shards.shard_names import shard_name, shard_names
from models.state.shards.sharded_steps import ShardedSteps
from streams.agents.shards.item_names import PublishDeltas

LOG = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""Time between two looks into the outboxes."""

MOST_LOOKS = 64
"""Looks at most, after which values that still wait are sent again: 1, then 2, 4 and so on."""

MOST_SENT = 100
"""Values of an outbox that are sent again at once."""

WAITING = Gauge("recommender_outbox_values", "Values that wait in outboxes", ["shard"])
BACKLOG = Gauge(
    "recommender_shard_backlog_values", "Values in outboxes that a shard has not applied", ["shard"]
)
RESENT = Counter("recommender_outbox_resent_total", "Values that were sent again")


class _Waiting(NamedTuple):
    """The oldest value that an outbox has for a shard.

    Attributes
    ----------
    looks
        Looks that have found it, after the first.
    until_sent
        Looks after which it is sent again.
    """

    oldest: bytes
    looks: int = 0
    until_sent: int = 1


class Outboxes:
    """Looks after the outboxes of some session shards; keeps only what it saw the last time."""

    def __init__(self, steps: ShardedSteps, publish: PublishDeltas) -> None:
        self._steps = steps
        self._publish = publish
        self._names = shard_names(steps.shards)
        WAITING.clear()  # of shards that the group had before
        # By session shard, and the name of the shard that the values are for.
        self._seen: dict[tuple[int, str], _Waiting] = {}

    async def look(self, shards: Collection[int]) -> None:
        """Trim the outboxes of these shards, and send again what has waited for too long."""
        self._seen = {place: one for place, one in self._seen.items() if place[0] in shards}
        if not shards:
            WAITING.clear()
            BACKLOG.clear()
            return
        try:
            sources = await some_at_once(map(self._steps.applied_sources, self._names))
            found = zip(self._names, sources, strict=True)
            applied = {name: one for name, one in found if one is not None}
            answers = await some_at_once(self._look_at(shard, applied) for shard in shards)
            sizes = [one for one in answers if one is not None]
            for name, of_shards in zip(self._names, zip(*sizes, strict=True), strict=True):
                BACKLOG.labels(name).set(sum(of_shards))
        except AWAY_ERRORS as error:
            LOG.warning("Redis is away, outboxes wait: %s", error)

    async def _look_at(self, shard: int, applied: dict[str, dict[str, int]]) -> list[int]:
        """Values that still wait for each shard."""
        await self._steps.trim_outbox(shard, applied)
        sizes = await self._steps.outbox_sizes(shard, self._names)
        WAITING.labels(shard_name("u", shard)).set(sum(sizes))
        for name, size in zip(self._names, sizes, strict=True):
            # What a shard has applied that is away is not known.
            if size and name not in applied:
                continue
            if size:
                await self._send_again(shard, name)
            else:
                self._seen.pop((shard, name), None)
        return sizes

    async def _send_again(self, shard: int, name: str) -> None:
        """Send the oldest values if the first of them was there at enough looks before."""
        (oldest,) = await self._steps.waiting_values(shard, name, most=1) or [b""]
        seen = self._seen.get((shard, name))
        if seen is None or seen.oldest != oldest:
            self._seen[shard, name] = _Waiting(oldest)
            return
        if seen.looks + 1 < seen.until_sent:
            self._seen[shard, name] = seen._replace(looks=seen.looks + 1)
            return
        values = await self._steps.waiting_values(shard, name, most=MOST_SENT)
        RESENT.inc(len(values))
        await self._publish([(name, value) for value in values])
        self._seen[shard, name] = _Waiting(oldest, 0, min(MOST_LOOKS, 2 * seen.until_sent))
