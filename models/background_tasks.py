"""The end of tasks that run in the background of a process."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 1.0
"""A task that runs on for so long is cancelled once more."""


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, and wait until they have ended; their errors are left to their callbacks.

    One cancellation may not be enough. `asyncio.wait_for`, which libraries use, drops one that
    comes in the moment in which its work ends, before Python 3.12: the task goes on, and who waits
    for its end waits for ever. (Commands to Redis heed it, see `models.state.clients`.)
    """
    left = {one for one in tasks if one is not None and not one.done()}
    while left:
        for one in left:
            one.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
