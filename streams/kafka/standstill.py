"""A reader's standing still at what it cannot decode: told of, tried again, and gone past."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Gauge

from models.errors import Unreadable
from models.state import stuck_readers
from models.state.redis_errors import AWAY_ERRORS
from models.state.stuck_readers import Reader, StuckReader

LOG = logging.getLogger(__name__)

TRY_AGAIN_S = 30.0
"""So often it is read anew: another replica, or a mended disk, may give what one could not.

No setting: one fetch in this time costs nothing, and `recommender skip` waits for none of it.
"""

UNREADABLE = Gauge(
    "recommender_unreadable_offset",
    "Offset of what cannot be decoded, where a partition stands still; nothing where none does",
    ["reader", "topic", "partition"],
)


class Standstill:
    """What a process of a group knows of its own partitions that stand still.

    Parameters
    ----------
    client
        Redis, where status and the API look.
    """

    def __init__(self, client: Any, group: str, reader: Reader) -> None:  # noqa: ANN401
        self._client, self._group, self._reader = client, group, reader
        self._told: Mapping[tuple[str, int], StuckReader] = {}
        self._since_s: dict[tuple[str, int], float] = {}
        # Read anew since the last look, and so perhaps not come to again yet.
        self._asked: set[tuple[str, int]] = set()

    async def look(self, found: Sequence[Unreadable], *, now_s: float) -> list[Unreadable]:
        """Tell of what stands still now; gives what it is time to read anew.

        To be called about once a second.
        """
        now = {place: self._told[place] for place in self._asked & self._told.keys()}
        now |= {
            (e.topic, e.partition): stuck_readers.stuck_reader(self._reader, e, now_s=now_s)
            for e in found
        }
        over = [stuck for place, stuck in self._told.items() if place not in now]
        if now or over:
            for stuck in over:
                UNREADABLE.remove(self._reader, stuck.topic, str(stuck.partition))
            for stuck in now.values():
                UNREADABLE.labels(self._reader, stuck.topic, str(stuck.partition)).set(stuck.first)
            try:
                await stuck_readers.report(self._client, self._group, now.values(), over)
            except AWAY_ERRORS as away:
                LOG.warning("Redis is away, where reading stands still is told later: %s", away)
        self._told = now
        self._since_s = {place: self._since_s.get(place, now_s) for place in now}
        self._asked, due = set(), []
        for error in found:
            place = error.topic, error.partition
            if now_s - self._since_s[place] >= TRY_AGAIN_S:
                self._since_s[place] = now_s
                self._asked.add(place)
                due.append(error)
        return due
