"""Questions to several shards at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from models.state.clients.redis_errors import AWAY_ERRORS

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


async def some_at_once(asked: Iterable[Awaitable[T]]) -> list[T | None]:
    """The answers, in order, None from who is away; raises where everybody is, or is wrong.

    Examples
    --------
    >>> async def ask(x):
    ...     if x < 0:
    ...         raise TimeoutError
    ...     return x
    >>> asyncio.run(some_at_once([ask(1), ask(-1)]))
    [1, None]
    """
    answers = await asyncio.gather(*asked, return_exceptions=True)
    failed = [one for one in answers if isinstance(one, BaseException)]
    wrong = [one for one in failed if not isinstance(one, AWAY_ERRORS)]
    if failed and (wrong or len(failed) == len(answers)):
        raise [*wrong, *failed][0]
    return [None if isinstance(one, BaseException) else one for one in answers]
