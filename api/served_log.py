"""The log of served lists in Kafka, from which their outcomes are counted."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from prometheus_client import Counter

from api.background_queue import BackgroundQueue
from models.errors import RecommenderError
from models.ranking.explored_lists import Exploration
from models.served_messages import (
    MAX_LOGGED_POOL,
    MAX_SHOWN_ITEMS,
    OTHER_SOURCE,
    SOURCE_CODES,
    LoggedExploration,
    ServedList,
    encode_served,
)
from models.serving.answers import Answer
from models.serving.merchandising.rules import Asker

LOG = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.2
"""Lists are gathered for so long: a message of several costs little more than one of one."""

MAX_WAITING = 10_000
"""Bound on the lists that wait to be sent; more are dropped and counted, answers go first."""

LISTS_PER_MESSAGE = 50
MESSAGE_BYTES = 200_000

SHARDS = 8
"""Keys of messages: a user's or session's lists carry the same one, and stay in order."""

SENT = Counter(
    "recommender_served_sent_total", "Served lists sent to Kafka, by outcome", ["outcome"]
)

PublishServed = Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[None]]
"""Sends keys and values to the topic of served lists; raises a `RecommenderError`."""


class ServedPlace(NamedTuple):
    """Placement that a list was asked for, and the experiment's arm that made it."""

    placement: str = ""
    version: int = 0
    arm: str = ""
    experiment: str = ""
    horizon_s: int = 0
    bucket_s: int = 1


NO_PLACE = ServedPlace()


class _Waiting(NamedTuple):
    recommendation_id: str
    at_s: float
    answer: Answer
    item_ids: Sequence[str] | None
    asker: Asker
    place: ServedPlace


class ServedLog:
    """Sends served lists in the background; one for each API process.

    What waits when a process is killed is lost, and what Kafka does not take in time: such lists
    are counted neither as shown nor with their clicks.
    """

    def __init__(self, publish: PublishServed, clock: Callable[[], float]) -> None:
        self._publish = publish
        self._clock = clock
        self._is_failing = False
        self._queue: BackgroundQueue[str, _Waiting] = BackgroundQueue(
            self._send, every_s=FLUSH_EVERY_S, max_waiting=MAX_WAITING
        )

    def log(
        self,
        group: str,
        recommendation_id: str,
        answer: Answer,
        item_ids: Sequence[str] | None,
        asker: Asker,
        place: ServedPlace = NO_PLACE,
    ) -> None:
        """Queue a served list; never blocks.

        `item_ids` are the served items; None: all items of the answer.
        """
        one = _Waiting(recommendation_id, self._clock(), answer, item_ids, asker, place)
        if not self._queue.put(group, one):
            SENT.labels("dropped").inc()

    async def _send(self, waiting: Mapping[str, Sequence[_Waiting]]) -> None:
        n_lists = sum(map(len, waiting.values()))
        try:
            await self._publish(
                [message for group, some in waiting.items() for message in _messages(group, some)]
            )
        except RecommenderError as error:
            if not self._is_failing:  # once, not for every answer
                LOG.warning("served lists are dropped: %s", error)
            self._is_failing = True
            SENT.labels("dropped").inc(n_lists)
        else:
            self._is_failing = False
            SENT.labels("sent").inc(n_lists)

    async def close(self) -> None:
        """Send the queued lists."""
        await self._queue.close()


def _messages(group: str, waiting: Sequence[_Waiting]) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the messages that hold these lists."""
    by_shard: dict[int, list[ServedList]] = {}
    for one in waiting:
        user_id, session_id, _ = one.asker
        owner = user_id or session_id or one.recommendation_id
        by_shard.setdefault(zlib.crc32(owner.encode()) % SHARDS, []).append(_served(one))
    for shard, lists in by_shard.items():
        some: list[ServedList] = []
        size = 0
        for whole in lists:
            served, bytes_of_list = _sized(whole)
            if some and (len(some) == LISTS_PER_MESSAGE or size + bytes_of_list > MESSAGE_BYTES):
                yield b"%d" % shard, encode_served(group, some)
                some, size = [], 0
            some.append(served)
            size += bytes_of_list
        yield b"%d" % shard, encode_served(group, some)


def _sized(served: ServedList) -> tuple[ServedList, int]:
    """A list and the most bytes that it takes; without how it was drawn if that is too much."""
    own = 300 + 4 * sum(map(len, served.items))
    if served.exploration is None:
        return served, own
    pool = served.exploration.pool
    drawn = own + 40 * (len(served.items) + len(pool)) + 8 * sum(map(len, pool))
    if drawn <= MESSAGE_BYTES:
        return served, drawn
    return msgspec.structs.replace(served, exploration=None), own


def _served(one: _Waiting) -> ServedList:
    answer = one.answer
    level = SOURCE_CODES.get(answer.level, OTHER_SOURCE)
    if one.item_ids is None:
        item_ids = [item.item_id for item in answer.items[:MAX_SHOWN_ITEMS]]
        sources = "".join(
            [
                SOURCE_CODES.get(item.reasons[0].source, OTHER_SOURCE) if item.reasons else level
                for item in answer.items[:MAX_SHOWN_ITEMS]
            ]
        )
    else:
        item_ids = list(one.item_ids[:MAX_SHOWN_ITEMS])
        reasons = {item.item_id: item.reasons[0].source for item in answer.items if item.reasons}
        sources = "".join(
            SOURCE_CODES.get(reasons[name], OTHER_SOURCE) if name in reasons else level
            for name in item_ids
        )
    place = one.place
    return ServedList(
        one.recommendation_id,
        one.at_s,
        item_ids,
        sources,
        answer.recipe,
        one.asker.user_id,
        one.asker.session_id,
        place.placement,
        place.version,
        place.arm,
        place.experiment,
        place.horizon_s,
        place.bucket_s,
        None if answer.exploration is None else _logged(answer.exploration, item_ids),
    )


def _logged(drawn: Exploration, item_ids: Sequence[str]) -> LoggedExploration | None:
    """The draw of a served list; None if no randomised slot is among its items."""
    slots = {slot.item_id: slot for slot in drawn.slots}
    probabilities, replaced = list[float](), dict[int, str]()
    for position, name in enumerate(item_ids):
        slot = slots.get(name)
        probabilities.append(1.0 if slot is None else slot.probability)
        if slot is not None and slot.replaced is not None:
            replaced[position] = slot.replaced
    if min(probabilities, default=1.0) == 1.0:
        return None
    pool = [*drawn.pool][:MAX_LOGGED_POOL]
    weights = [drawn.pool[name] for name in pool]
    return LoggedExploration(drawn.rate, pool, weights, probabilities, replaced)
