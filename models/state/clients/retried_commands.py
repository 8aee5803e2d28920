"""Commands of redis-py, sent again after a lost connection, that heed cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.exceptions
from redis.asyncio.retry import Retry

T = TypeVar("T")

CLOSED = "the handler is closed"
"""Text of uvloop's RuntimeError for a write to a connection that was reset a moment before."""


async def heeding_cancellation(command: Awaitable[T]) -> T:
    """The result of a command, unless this task is cancelled meanwhile.

    Before Python 3.12 `asyncio.wait_for`, with which redis-py sends, drops a cancellation that
    comes in the moment in which a command has been sent: a task that sends commands would go on,
    and whoever waits for its end, as at the end of a process, would wait for ever.

    Raises
    ------
    asyncio.CancelledError
        The task was cancelled while the command was under way, whatever became of the command.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        found = await command
    except Exception as error:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return found


class LossRetry(Retry):
    """Takes a write to a connection that the server has reset for the loss that it is.

    asyncio's own event loop ignores the write, and the read behind it fails. uvloop raises
    RuntimeError, which redis-py does not know: without this, it would be no outage but a fault of
    the program. All commands of a client without a cluster come by here, so they heed cancellations
    here too.
    """

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[T]],
        *arguments: Any,  # noqa: ANN401  those of redis-py
        **options: Any,  # noqa: ANN401
    ) -> T:
        """The result of an operation, which is repeated after a lost connection."""

        async def told() -> T:
            try:
                return await heeding_cancellation(do())
            except RuntimeError as error:
                if CLOSED not in str(error):
                    raise
                raise redis.exceptions.ConnectionError(
                    f"the connection is lost: {error}"
                ) from error

        found: T = await super().call_with_retry(told, *arguments, **options)
        return found
