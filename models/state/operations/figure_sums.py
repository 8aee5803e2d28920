"""Sums behind the key figures in Redis: minutes for an hour, hours for 30 days.

    {group}:figures:m<minute>   hash    sums of one minute, by the names of models/key_figures.py,
                                        and `memory`, the newest; gone after an hour
    {group}:figures:h<hour>     hash    the same of one hour; gone after 30 days

Minutes and hours are numbers since 1970. Some 80 fields each, so at most 781 hashes of 3 KB.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from models.key_figures import Additions, KeyFigures, key_figures
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.scripts.registered_scripts import Script, run_script
from models.state.store import Store

FigureStep = Literal["minute", "hour"]

STEP_S: Final[Mapping[FigureStep, int]] = {"minute": 60, "hour": 3600}
POINTS: Final[Mapping[FigureStep, int]] = {"minute": 60, "hour": 720}
"""Points that are kept of each series."""

WRITE_EVERY_S = 5.0
"""Time between two additions of a process."""

MAX_COVERED_S = 60.0
"""Most seconds that one addition covers: a process that stood still for longer measured nothing."""

LOG = logging.getLogger(__name__)

_ADD = Script.of(
    """
local added = cmsgpack.unpack(ARGV[1])
for place, key in ipairs(KEYS) do
  for name, n in pairs(added.sums) do
    redis.call('HINCRBYFLOAT', key, name, string.format('%.17g', n))
  end
  for name, value in pairs(added.newest) do
    redis.call('HSET', key, name, string.format('%.17g', value))
  end
  redis.call('EXPIRE', key, added.ttl[place])
end
"""
)


async def add_sums(
    store: Store, sums: Mapping[str, float], newest: Mapping[str, float], *, now_s: float
) -> None:
    """Add to the present minute and hour; one round trip.

    Parameters
    ----------
    newest
        Values of which the last one counts.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        They may or may not be added: repeated, they would count twice.
    """
    keys = [_key(store, step, now_s) for step in STEP_S]
    ttl_s = [STEP_S[step] * (n + 1) for step, n in POINTS.items()]
    added = {"sums": sums, "newest": newest, "ttl": ttl_s}
    await run_script(store.redis, _ADD, keys, msgspec.msgpack.encode(added))


class FigureWriter:
    """Adds what one process has measured since the last time; what cannot be written is missing.

    Parameters
    ----------
    covers
        Name of the sum of seconds: `worker_s` or `api_s`.
    totals
        Reads totals of the process that only grow, by the names of the sums.
    """

    def __init__(
        self,
        store: Store,
        covers: Literal["worker_s", "api_s"],
        totals: Callable[[], Mapping[str, float]],
        *,
        now_s: float,
    ) -> None:
        self._store, self._covers = store, covers
        self._added = Additions(totals)
        self._written_at = now_s

    async def write(
        self,
        *,
        now_s: float,
        more: Mapping[str, float] | None = None,
        lag: int = 0,
        newest: Mapping[str, float] | None = None,
    ) -> None:
        """Add to the present minute and hour, with further sums and newest values.

        `lag` is the number of messages that are not in effect, of this process's partitions.
        """
        covered_s = min(max(0.0, now_s - self._written_at), MAX_COVERED_S)
        self._written_at = now_s
        sums = Counter(self._added.take())
        sums.update(more or {})
        sums.update({self._covers: covered_s} | ({"lag_s": lag * covered_s} if lag else {}))
        try:
            await add_sums(self._store, sums, newest or {}, now_s=now_s)
        except AWAY_ERRORS as error:
            # Written again, they might count twice.
            LOG.debug("key figures of %.0f s are missing: %s", covered_s, error)


async def read_figures(store: Store, step: FigureStep, n: int, *, now_s: float) -> list[KeyFigures]:
    """The newest n points, the oldest first; the last one goes on. One round trip.

    About 20 µs a point; redis-py's errors.
    """
    step_s = STEP_S[step]
    starts = [now_s // step_s * step_s - place * step_s for place in reversed(range(n))]
    pipe = store.redis.pipeline(transaction=False)
    for at_s in starts:
        pipe.hgetall(_key(store, step, at_s))
    return [
        key_figures(
            {name.decode(): float(value) for name, value in found.items()},
            at_s=at_s,
            elapsed_s=min(step_s, max(1.0, now_s - at_s)),
        )
        for at_s, found in zip(starts, await pipe.execute(), strict=True)
    ]


def _key(store: Store, step: FigureStep, at_s: float) -> str:
    return store.key(f"figures:{step[0]}{int(at_s // STEP_S[step])}")
