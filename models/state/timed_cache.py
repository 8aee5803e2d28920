"""Values by key with a maximum age.

Times are of the caller's clock. Requests overlap, so that an entry may have been read after `now_s`
of a request that began earlier: it is as fresh. An entry read further ahead than it may be old is
of a clock that was set back, and is read again.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

NEVER = -math.inf
"""Read time of an entry that was never read."""

K = TypeVar("K")
V = TypeVar("V")


class TimedCache(Generic[K, V]):
    """Values by key, at most `max_age_s` old; when it is full, the first that were read make room.

    Parameters
    ----------
    size
        Most values.
    max_age_s
        Infinite for values that never change.

    Attributes
    ----------
    hears_changes
        True while every change of a value leads to a call of `invalidate`: values then do not age.
    """

    def __init__(self, *, size: int, max_age_s: float = math.inf) -> None:
        self.size = size
        self.hears_changes = False
        self._max_age_s = max_age_s
        self._loads: list[_Load[K]] = []
        self._values: dict[K, V] = {}
        # Apart from the values, and empty where they never change: there may be a million.
        self._read_at: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def held(self, key: K) -> V | None:
        """The value that is held, however old; None if there is none."""
        return self._values.get(key)

    async def read(
        self,
        keys: Sequence[K],
        now_s: float,
        load: Callable[[list[K]], Awaitable[Sequence[V | None]]],
    ) -> list[V | None]:
        """Values of the keys; those that are missing or too old are loaded in one call, and kept.

        None for a key that `load` gives None for, which is not kept. Values that are evicted while
        `load` runs are still in the result.
        """
        if self.hears_changes:
            # One pass for most requests, which find everything.
            held = [*map(self._values.get, keys)]
            if None not in held:
                return held
        elif self._are_fresh(keys, now_s):
            return [*map(self._values.get, keys)]
        found = {key: self._values[key] for key in keys if self._are_fresh((key,), now_s)}
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        under_way = _Load[K]()
        self._loads.append(under_way)
        try:
            loaded = await load(missing)
        finally:
            self._loads.remove(under_way)
        for key, value in zip(missing, loaded, strict=True):
            self.drop(key)
            if value is not None:
                found[key] = value
                if not under_way.is_outdated and key not in under_way.changed:
                    self._keep(key, value, now_s)
        return [found.get(key) for key in keys]

    def invalidate(self, keys: Iterable[K]) -> None:
        """Drop values that have changed; those that are being loaded are not kept."""
        for key in keys:
            self.drop(key)
            for under_way in self._loads:
                under_way.changed.add(key)

    def invalidate_all(self) -> None:
        """Drop all values; those that are being loaded are not kept."""
        self.clear()
        for under_way in self._loads:
            under_way.is_outdated = True

    def drop(self, key: K) -> None:
        """Remove a value, if there is one."""
        self._values.pop(key, None)
        self._read_at.pop(key, None)

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self._read_at.clear()

    def _are_fresh(self, keys: Sequence[K], now_s: float) -> bool:
        if self.hears_changes or self._max_age_s == math.inf:
            return all(key in self._values for key in keys)
        # One pass for most requests, which find everything.
        times = [self._read_at.get(key, NEVER) for key in keys]
        oldest, newest = now_s - self._max_age_s, now_s + self._max_age_s
        return not times or (oldest <= min(times) and max(times) <= newest)

    def _keep(self, key: K, value: V, now_s: float) -> None:
        self._values[key] = value
        if self._max_age_s < math.inf:
            self._read_at[key] = now_s
        while len(self._values) > self.size:
            self.drop(next(iter(self._values)))


class _Load(Generic[K]):
    """Values that are being loaded: the keys that have changed since, or all of them.

    Compared by identity, as several may run.
    """

    def __init__(self) -> None:
        self.changed: set[K] = set()
        self.is_outdated = False
