"""Partitions that stand still at an unreadable batch: reported, and read again now and then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Gauge

from models.errors import Unreadable
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations import stuck_readers
from models.state.operations.stuck_readers import Reader, StuckReader

LOG = logging.getLogger(__name__)

TRY_AGAIN_S = 30.0
"""Interval of new reads: another replica, or a repaired disk, may give the batch intact.

No setting: one fetch in this time costs nothing, and `recommender skip` waits for none of it.
"""

UNREADABLE = Gauge(
    "recommender_unreadable_offset",
    "Offset of the unreadable batch at which a partition stands still; absent if it does not",
    ["reader", "topic", "partition"],
)


class Standstill:
    """The partitions of one process that stand still.

    Parameters
    ----------
    client
        Redis, where the status and the API find them.
    """

    def __init__(self, client: Any, group: str, reader: Reader) -> None:  # noqa: ANN401
        self._client, self._group, self._reader = client, group, reader
        self._reported: Mapping[tuple[str, int], StuckReader] = {}
        self._since_s: dict[tuple[str, int], float] = {}
        # Read again since the last update, so perhaps not back at the batch yet.
        self._reread: set[tuple[str, int]] = set()

    async def update(self, found: Sequence[Unreadable], *, now_s: float) -> list[Unreadable]:
        """Report the partitions that stand still now; returns those that are due for a new read.

        To be called about once a second.
        """
        now = {at: self._reported[at] for at in self._reread & self._reported.keys()}
        now |= {
            (e.topic, e.partition): stuck_readers.stuck_reader(self._reader, e, now_s=now_s)
            for e in found
        }
        over = [stuck for at, stuck in self._reported.items() if at not in now]
        if now or over:
            for stuck in over:
                UNREADABLE.remove(self._reader, stuck.topic, str(stuck.partition))
            for stuck in now.values():
                UNREADABLE.labels(self._reader, stuck.topic, str(stuck.partition)).set(stuck.first)
            try:
                await stuck_readers.report(self._client, self._group, now.values(), over)
            except AWAY_ERRORS as away:
                LOG.warning("Redis is away, standing partitions are reported later: %s", away)
        self._reported = now
        self._since_s = {at: self._since_s.get(at, now_s) for at in now}
        self._reread, due = set(), []
        for error in found:
            partition = error.topic, error.partition
            if now_s - self._since_s[partition] >= TRY_AGAIN_S:
                self._since_s[partition] = now_s
                self._reread.add(partition)
                due.append(error)
        return due
