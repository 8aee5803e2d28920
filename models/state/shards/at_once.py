"""Questions to several shards at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def at_once(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The answers, in order; the first error once all have ended.

    With `asyncio.gather` alone the others would go on behind the error.

    Examples
    --------
    >>> async def double(x):
    ...     return 2 * x
    >>> asyncio.run(at_once([double(1), double(2)]))
    [2, 4]
    """
    found: list[T] = []
    for one in await asyncio.gather(*asked, return_exceptions=True):
        if isinstance(one, BaseException):
            raise one
        found.append(one)
    return found
