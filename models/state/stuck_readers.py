"""Where readers of Kafka stand still, because what comes next cannot be decoded.

    {group}:unreadable          hash    <reader>/<topic>/<partition> -> a `StuckReader` as JSON

A reader that stands still says so again and again: what it has not said for a while is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from models.errors import Unreadable

FRESH_S = 60.0
"""For so long what a reader said counts."""

Reader = Literal["worker", "forwarder"]


class StuckReader(msgspec.Struct, frozen=True):
    """A partition that a reader cannot go on in, since what time, and what stands in its way."""

    reader: Reader
    topic: str
    partition: int
    first: int
    last: int
    reason: str
    at: float

    def __str__(self) -> str:
        """What to tell an operator.

        >>> print(StuckReader("worker", "events.clicks", 3, 7, 9, "a wrong checksum", 0.0))
        the worker stands still: events.clicks/3 cannot be read at offsets 7 to 9: a wrong checksum
        """
        error = Unreadable(self.topic, self.partition, self.first, self.last, self.reason)
        return f"the {self.reader} stands still: {error}"


def stuck_reader(reader: Reader, error: Unreadable, *, now_s: float) -> StuckReader:
    """What a reader came to now."""
    return StuckReader(
        reader, error.topic, error.partition, error.first, error.last, error.reason, now_s
    )


async def report(
    client: Any,  # noqa: ANN401
    group: str,
    now: Iterable[StuckReader],
    over: Iterable[StuckReader],
) -> None:
    """Say where a reader stands still, and where it no longer does; raises what Redis raises."""
    pipe = client.pipeline(transaction=False)
    for stuck in over:
        pipe.hdel(_key(group), _field(stuck))
    for stuck in now:
        pipe.hset(_key(group), _field(stuck), msgspec.json.encode(stuck))
    await pipe.execute()


async def reported(client: Any, group: str, *, now_s: float) -> list[StuckReader]:  # noqa: ANN401
    """Where readers stand still, by topic and partition; raises what Redis raises."""
    stored = await client.hgetall(_key(group))
    found = [msgspec.json.decode(text, type=StuckReader) for text in stored.values()]
    fresh = [stuck for stuck in found if stuck.at > now_s - FRESH_S]
    return sorted(fresh, key=lambda stuck: (stuck.topic, stuck.partition, stuck.reader))


def _key(group: str) -> str:
    return f"{{{group}}}:unreadable"


def _field(stuck: StuckReader) -> str:
    return f"{stuck.reader}/{stuck.topic}/{stuck.partition}"
