"""Resources as requests for recommendations read them: from memory, a little old."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.resources import Resources
from models.store import CONNECTION_ERRORS

MAX_KEPT = 10_000


class Recent:
    """Resources by ARN, at most `cache_s` old; while the store is away, as last known.

    Parameters
    ----------
    clock
        The present in Unix seconds.
    """

    def __init__(self, resources: Resources, clock: Callable[[], float]) -> None:
        self._resources = resources
        self._clock = clock
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    async def get(self, arn: str) -> dict[str, Any]:
        """All members of what has an ARN.

        Raises
        ------
        InvalidInput, ResourceNotFound
            It is no ARN; nothing has it. That is never remembered.
        """
        now_s = self._clock()
        read_at, known = self._kept.get(arn, (0.0, None))
        if known is not None and 0 <= now_s - read_at <= self._resources.settings.cache_s:
            return known
        self._kept.pop(arn, None)
        try:
            found = await self._resources.get(arn)
        except CONNECTION_ERRORS:
            if known is None:
                raise
            found = known
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[arn] = (now_s, found)
        return found
