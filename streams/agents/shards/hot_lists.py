"""The hottest items' lists are split over item shards, before one of these has more than its share.

One worker looks: that with the first item shard's partition of deltas. Two that do so at once write
the same, long before it holds.
"""

from __future__ import annotations

import logging

from prometheus_client import Gauge

from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.split_lists import wanted_splits

LOG = logging.getLogger(__name__)

SPLIT = Gauge("recommender_split_lists", "Lists of neighbours in parts on several item shards")


async def split_hot_lists(steps: ShardedSteps, *, now_s: float) -> None:
    """Split the lists of items that have become too hot for one shard; some hundred items a shard.

    Redis that is away is logged: it is looked again.
    """
    try:
        splits = await steps.read_splits(now_s)
        wanted = wanted_splits(
            await steps.popularities(),
            splits,
            steps.shards,
            now_s=now_s,
            ahead_s=steps.settings.future_limit_s,
        )
        await steps.split_lists(wanted)
    except AWAY_ERRORS as error:
        LOG.warning("hot items are not looked for: %s", error)
        return
    SPLIT.set(len(splits.keys() | wanted.keys()))
    for index, every in wanted.items():
        LOG.info("the list of item %d will be in %d parts", index, every[-1].parts)
