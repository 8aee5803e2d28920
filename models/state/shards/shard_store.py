"""State of one shard of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.state.store import Store


class ShardStore(Store):
    """The keys of one shard; many of them are asked at once, so each on its own connection.

    One command that fails closes all connections of redis-py's client of a cluster.
    """

    async def _ask(self, *command: str) -> Any:  # noqa: ANN401  whatever a command gives
        (answer,) = await self.redis.reads.run(command)
        return answer

    async def _fields(self, name: str, fields: Sequence[str]) -> list[bytes | None]:
        return [*await self._ask("HMGET", self.key(name), *fields)]

    async def counts(self) -> dict[str, float]:
        """As `Store.counts`."""
        stored = await self._ask("HGETALL", self.key("counts"))
        pairs = (
            stored.items() if isinstance(stored, dict) else zip(*[iter(stored)] * 2, strict=True)
        )
        return {name.decode(): float(value) for name, value in pairs}
