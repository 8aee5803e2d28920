"""Stacks on shared servers."""

from __future__ import annotations

from redis import Redis

from models.state.groups.group_registry import GROUPS, TRACKERS
from models.state.groups.key_store import KEYS
from tests.stack import Servers, deployment_as_before


def test_what_a_test_leaves_to_the_deployment_is_gone(embedded: Servers) -> None:
    """What was there before is there again."""
    with Redis.from_url(embedded.redis.url) as client:
        client.sadd(GROUPS, "earlier")
        client.set("{earlier}:counts", 1)
        with deployment_as_before(embedded):
            client.srem(GROUPS, "earlier")
            client.hset(KEYS, "k1", "{}")
            client.hset(TRACKERS, "shop", "shop")
        assert client.keys("{recommender}:*") == [GROUPS.encode()]
        assert client.smembers(GROUPS) == {b"earlier"}
        client.delete(GROUPS, "{earlier}:counts")
