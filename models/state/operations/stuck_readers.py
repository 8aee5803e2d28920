"""Readers of Kafka that are stuck at records which cannot be decoded.

    {group}:unreadable          hash    <reader>/<topic>/<partition> -> a `StuckReader` as JSON

A stuck reader repeats its report: one that has not been repeated for `FRESH_S` is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from models.errors import Unreadable
from models.state.clients.client import RedisClient

FRESH_S = 60.0
"""Lifetime of a report."""

Reader = Literal["worker", "forwarder"]


class StuckReader(msgspec.Struct, frozen=True):
    """A partition that a reader is stuck in, the offsets it cannot read, and when it said so."""

    reader: Reader
    topic: str
    partition: int
    first: int
    last: int
    reason: str
    at: float

    def __str__(self) -> str:
        """A sentence for operators.

        >>> print(StuckReader("worker", "events.clicks", 3, 7, 9, "a wrong checksum", 0.0))
        the worker stands still: events.clicks/3 cannot be read at offsets 7 to 9: a wrong checksum
        """
        error = Unreadable(self.topic, self.partition, self.first, self.last, self.reason)
        return f"the {self.reader} stands still: {error}"


def stuck_reader(reader: Reader, error: Unreadable, *, now_s: float) -> StuckReader:
    """Report of a reader that has met unreadable records now."""
    return StuckReader(
        reader, error.topic, error.partition, error.first, error.last, error.reason, now_s
    )


async def report(
    client: RedisClient,
    group: str,
    now: Iterable[StuckReader],
    over: Iterable[StuckReader],
) -> None:
    """Store reports of stuck readers, and remove those that are over; raises redis-py's errors."""
    pipe = client.pipeline(transaction=False)
    for stuck in over:
        pipe.hdel(_key(group), _field(stuck))
    for stuck in now:
        pipe.hset(_key(group), _field(stuck), msgspec.json.encode(stuck))
    await pipe.execute()


async def reported(client: RedisClient, group: str, *, now_s: float) -> list[StuckReader]:
    """Stuck readers, in order of topic and partition; raises redis-py's errors."""
    stored = await client.hgetall(_key(group))
    found = [msgspec.json.decode(text, type=StuckReader) for text in stored.values()]
    fresh = [stuck for stuck in found if stuck.at > now_s - FRESH_S]
    return sorted(fresh, key=lambda stuck: (stuck.topic, stuck.partition, stuck.reader))


def _key(group: str) -> str:
    return f"{{{group}}}:unreadable"


def _field(stuck: StuckReader) -> str:
    return f"{stuck.reader}/{stuck.topic}/{stuck.partition}"
