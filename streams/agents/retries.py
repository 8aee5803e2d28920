"""Retries of the store's commands within one assignment."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity
from prometheus_client import Counter

from models.state.redis_errors import AWAY_ERRORS
from streams.kafka.assignment import Assignment
from streams.retry_policy import FIRST_WAIT_S, MAX_WAIT_S, backoff, failure_of

STORE_RETRIES = Counter("recommender_store_retries_total", "Retries of steps while Redis was away")

LOG = logging.getLogger(__name__)

T = TypeVar("T")


async def retry_while_assigned(
    action: Callable[[], Awaitable[T]], assignment: Assignment
) -> T | None:
    """The result of an action on Redis, repeated while Redis is away.

    None if the assignment ends before there is a result; no attempt begins after that.
    """

    async def attempt() -> T | None:
        return None if assignment.has_ended else await action()

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(AWAY_ERRORS),
        wait=backoff(FIRST_WAIT_S, MAX_WAIT_S),
        before_sleep=_log_outage,
    )
    return await retrying(attempt)


def _log_outage(attempt: tenacity.RetryCallState) -> None:
    STORE_RETRIES.inc()
    LOG.warning("Redis is away, trying again: %s", failure_of(attempt))
