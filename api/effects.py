"""Read-your-writes: waiting until acknowledged events and records have taken effect.

The watermarks of the settings' group tell it of every group: they move with the effects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from models.store import Store
from models.tokens import parse_token

POLL_S = 0.002
"""How often the watermarks are looked at while somebody waits."""

LoadIncarnations = Callable[[], Awaitable[Mapping[str, str]]]
"""The incarnation of each topic, by kind: clicks, purchases, items and users."""


class Effects:
    """Knows which messages are in effect, by the store's watermarks."""

    def __init__(self, store: Store, load_incarnations: LoadIncarnations) -> None:
        self._store = store
        self._load = load_incarnations
        self._incarnations: Mapping[str, str] = {}

    async def reached(self, token: str, *, wait_s: float) -> bool:
        """Whether the token's messages are in effect, waiting at most `wait_s` for it.

        Raises
        ------
        InvalidToken
            The token is malformed.
        """
        positions = parse_token(token)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        if not self._incarnations:
            self._incarnations = await self._load()
        while True:
            fields = [f"{self._incarnations[p.kind]}/{p.partition}" for p in positions]
            marks = await self._store.watermarks(fields)
            if all(mark >= p.offset for mark, p in zip(marks, positions, strict=True)):
                return True
            if loop.time() >= deadline:
                # The topics may have been made anew since; the next to ask shall see it.
                self._incarnations = {}
                return False
            await asyncio.sleep(POLL_S)
