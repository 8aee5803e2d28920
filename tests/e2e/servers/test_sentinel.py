"""A service whose Redis is watched by Sentinels: a failover loses no event and doubles none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidSetting, Unavailable
from models.servers.server_checks import check_redis
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from ops.embedded_servers import start_broker
from tests.redis_servers import PASSWORD, WatchedRedis, watched_redis
from tests.servers import own_port
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Redis, Servers, Stack, make_stacks

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRedis]:
    """A primary, a replica and three Sentinels."""
    with watched_redis(tmp_path_factory.mktemp("watched")) as running:
        yield running


@pytest.fixture
def stack(redis: WatchedRedis, tmp_path: Path) -> Iterator[Stack]:
    """A stack on them, with an embedded broker; nothing runs yet."""
    broker = start_broker(tmp_path / "broker")
    servers = Servers(
        broker.address,
        Redis(redis.url, tmp_path, redis.primary.kill, redis.primary.kill, redis.primary.start),
        EMBEDDED_SESSION_TIMEOUT_S,
    )
    try:
        with make_stacks(servers, tmp_path) as make:
            yield make(redis_sentinel_master="shop-state", redis_sentinel_password=PASSWORD)
    finally:
        broker.stop()


def _settings(watched: WatchedRedis, **others: Any) -> Settings:
    chosen = {"redis_sentinel_master": "shop-state", "redis_sentinel_password": PASSWORD}
    return Settings(**{"redis": watched.url, **chosen, **others})


def test_checks_of_sentinels(redis: WatchedRedis) -> None:
    """A wrong name or password is told as such; absent Sentinels are waited for."""
    check_redis(_settings(redis))
    with pytest.raises(InvalidSetting, match="watch shop-state: see RECOMMENDER_REDIS_SENTINEL_M"):
        check_redis(_settings(redis, redis_sentinel_master="mymaster"))
    with pytest.raises(InvalidSetting, match="RECOMMENDER_REDIS_SENTINEL_PASSWORD"):
        check_redis(_settings(redis, redis_sentinel_password="Pl4nted"))
    wrong = redis.url.replace(PASSWORD, "Pl4nted")
    with pytest.raises(InvalidSetting, match="refuses the user or password"):
        check_redis(_settings(redis, redis=wrong))
    with pytest.raises(Unavailable, match=r"Sentinels at .* do not answer"):
        check_redis(_settings(redis, redis=f"redis://127.0.0.1:{own_port()}/0"))


def test_a_failover_loses_and_doubles_nothing(redis: WatchedRedis, stack: Stack) -> None:
    """The new primary lacks writes that the old one had acknowledged: they are applied again."""
    stack.start("worker")
    stack.start("api")
    stack.wait_ready()
    n_before = stack.counts()["events"]

    def click(first: int, n: int) -> None:
        for number in range(first, first + n):
            stack.click("tent", user=f"u{number}", session=f"s{number}")

    click(0, 20)
    stack.wait(lambda: stack.counts()["events"] == n_before + 20, "applied with a replica")
    redis.replica.kill()
    click(20, 20)
    stack.wait(lambda: stack.counts()["events"] == n_before + 40, "applied on the primary alone")
    redis.primary.kill()
    redis.replica.start()
    click(40, 20)

    stack.wait(lambda: _events(stack) >= n_before + 60, "applied on the new primary")
    assert stack.counts()["events"] == n_before + 60
    assert stack.counts()["users"] == 60
    assert "Redis has lost effects" in stack.log()
    after = stack.click("stove", user="u1", session="s1")
    answer = stack.recommend(f"user_id=u1&after={after}")
    assert answer["freshness"]["afterReached"]
    # The old primary comes back as a replica.
    redis.primary.start()
    click(60, 5)
    stack.wait(lambda: _events(stack) >= n_before + 66, "goes on")
    assert stack.counts()["events"] == n_before + 66


def _events(stack: Stack) -> float:
    """Events in effect; -1 while no primary answers."""
    try:
        return stack.counts().get("events", 0.0)
    except AWAY_ERRORS:
        return -1.0
