"""Retries of the store's commands within one assignment."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prometheus_client import Counter

from streams.kafka.consuming.assignment import Assignment
from streams.retry_policy import retry_outages

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

    return await retry_outages(attempt, on_outage=_count_outage)


def _count_outage(error: BaseException) -> None:
    STORE_RETRIES.inc()
    LOG.warning("Redis is away, trying again: %s", error)
