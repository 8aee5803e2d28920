"""Memory of Redis, in the metrics of a worker."""

from __future__ import annotations

import logging
import math

from prometheus_client import Gauge

from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations.memory import read_memory

LOG = logging.getLogger(__name__)

MEMORY_EVERY_S = 10.0

MEMORY_USED = Gauge("recommender_redis_memory_bytes", "Memory in use by Redis; NaN if unknown")
MEMORY_LIMIT = Gauge(
    "recommender_redis_memory_limit_bytes", "Limit of Redis' memory; 0: none, NaN: unknown"
)


async def report_memory(client: RedisClient) -> float:
    """Report the memory of Redis to the metrics; the bytes in use, NaN while it is away."""
    used_bytes = limit_bytes = math.nan
    try:
        memory = await read_memory(client)
    except AWAY_ERRORS as error:
        LOG.warning("the memory of Redis is not known: %s", error)
    else:
        used_bytes, limit_bytes = memory.used_bytes, memory.limit_bytes
    MEMORY_USED.set(used_bytes)
    MEMORY_LIMIT.set(limit_bytes)
    return used_bytes
