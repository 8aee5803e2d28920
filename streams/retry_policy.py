"""The one retry policy: what waits for a server that is away waits by exponential backoff.

Callers differ in the errors that may pass, in the first and the longest wait, and in when they give
up. Everything else is Tenacity's; what asks again without an error takes `models.waits`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from models.errors import Unavailable
from models.state.clients.redis_errors import AWAY_ERRORS

AWAY = (Unavailable, *AWAY_ERRORS)
"""Errors of an outage of Redis or Kafka."""

FIRST_WAIT_S, MAX_WAIT_S = 0.05, 2.0
"""Waits for Redis and Kafka: the first one, and the longest."""

LOG = logging.getLogger(__name__)

T = TypeVar("T")


def backoff(first_s: float, max_s: float) -> tenacity.wait.wait_base:
    """Waits that double from `first_s` up to `max_s` seconds.

    >>> waits = backoff(0.05, 2.0)
    >>> retry = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    >>> found = []
    >>> for retry.attempt_number in range(1, 9):
    ...     found.append(waits(retry))
    >>> found
    [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    """
    return tenacity.wait_exponential(multiplier=first_s, max=max_s)


def jittered_backoff(first_s: float, max_s: float) -> tenacity.wait.wait_base:
    """Waits as of `backoff`, each times a random number in [0, 1): many callers spread out."""
    return tenacity.wait_random_exponential(multiplier=first_s, max=max_s)


def failure_of(attempt: tenacity.RetryCallState) -> BaseException:
    """The error that an attempt ended with; only for attempts that failed."""
    error = None if attempt.outcome is None else attempt.outcome.exception()
    if error is None:
        raise ValueError("the attempt has not failed")
    return error


def _log_outage(error: BaseException) -> None:
    LOG.warning("a server is away, trying again: %s", error)


async def retry_outages(
    action: Callable[[], Awaitable[T]],
    errors: tuple[type[Exception], ...] = AWAY_ERRORS,
    *,
    on_outage: Callable[[BaseException], None] = _log_outage,
) -> T:
    """The result of an action on Redis or Kafka, repeated until it raises none of these errors.

    `on_outage` is called with each of these errors, before the wait that follows it.
    """
    # Three actions an event succeed at once, and Tenacity takes as long for each as Redis does.
    try:
        return await action()
    except errors as error:
        on_outage(error)
    await asyncio.sleep(FIRST_WAIT_S)
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(errors),
        wait=backoff(FIRST_WAIT_S, MAX_WAIT_S),
        before_sleep=lambda attempt: on_outage(failure_of(attempt)),
    )

    async def attempt() -> T:  # Tenacity awaits coroutine functions only, not what a lambda returns
        return await action()

    return await retrying(attempt)
