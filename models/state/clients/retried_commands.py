"""Retries of redis-py's that know one more error of a lost connection: uvloop's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.exceptions
from redis.asyncio.retry import Retry

T = TypeVar("T")

CLOSED = "the handler is closed"
"""Text of uvloop's RuntimeError for a write to a connection that was reset a moment before."""


class LossRetry(Retry):
    """Takes a write to a connection that the server has reset for the loss that it is.

    asyncio's own event loop ignores the write, and the read behind it fails. uvloop raises
    RuntimeError, which redis-py does not know: without this, it would be no outage but a fault of
    the program.
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
                return await do()
            except RuntimeError as error:
                if CLOSED not in str(error):
                    raise
                raise redis.exceptions.ConnectionError(
                    f"the connection is lost: {error}"
                ) from error

        found: T = await super().call_with_retry(told, *arguments, **options)
        return found
