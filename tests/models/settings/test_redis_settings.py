"""Settings of the connections to Redis."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.errors import InvalidSetting
from models.settings import Settings

pytestmark = pytest.mark.unit

SENTINELS = {"redis": "redis://:Pl4nted@a:1,b:2/0", "redis_sentinel_master": "mymaster"}


@pytest.mark.parametrize(
    "chosen",
    [
        {"redis": "rediss://app@h:1/0", "redis_password": "Pl4nted", "redis_ca_file": "ca.pem"},
        {"redis": "unix:///run/redis.sock"},
        {"redis": "redis://[::1]/0"},
        SENTINELS,
        SENTINELS | {"redis_sentinel_password": "Pl4nted"},
        {"redis": "redis://a:1,b:2/0", "redis_cluster": True},
        {"redis": "redis://a:1/0", "redis_replica": "redis://:Pl4nted@b:1/0"},
        SENTINELS | {"redis_replica": "sentinel"},
    ],
)
def test_settings_that_fit_together(chosen: dict[str, Any]) -> None:
    """No secret is shown."""
    assert "Pl4nted" not in repr(Settings(**chosen))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"redis": "redis://h", "redis_ca_file": "ca.pem"}, "CA_FILE does nothing without rediss"),
        ({"redis_password": "Pl4nted"}, "REDIS_PASSWORD does nothing without RECOMMENDER_REDIS"),
        (
            {"redis": "rediss://h", "redis_key_file": "key.pem"},
            "KEY_FILE does nothing without RECOMMENDER_REDIS_CERTIFICATE_FILE",
        ),
        ({"redis": "redis://a:1,b:2/0"}, "several hosts: that needs RECOMMENDER_REDIS_SENTINEL"),
        (
            {"redis": "redis://a:1/0", "redis_replica": "sentinel"},
            "sentinel needs RECOMMENDER_REDIS",
        ),
        (
            {"redis": "redis://a:1/0", "redis_cluster": True, "redis_replica": "redis://b"},
            "REDIS_REPLICA does nothing without a server or Sentinels",
        ),
        ({"redis_cluster": True}, "REDIS_CLUSTER does nothing without RECOMMENDER_REDIS"),
        ({"redis": "redis://h/1", "redis_cluster": True}, "no database but 0"),
        (SENTINELS | {"redis_cluster": True}, "a cluster has no Sentinels"),
        (
            {"redis": "redis://h", "redis_sentinel_password": "Pl4nted"},
            "SENTINEL_PASSWORD does nothing without RECOMMENDER_REDIS_SENTINEL_MASTER",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(chosen: dict[str, Any], said: str) -> None:
    """One sentence names the variable, and no password."""
    with pytest.raises(InvalidSetting, match=said) as raised:
        Settings(**chosen)
    assert "Pl4nted" not in str(raised.value)


@pytest.mark.parametrize("url", ["redis://a:1,b:x/0", "redis://a:0/0", "redis://:Pl4nted@/0"])
def test_wrong_urls(url: str) -> None:
    """Also among several hosts; the password is not repeated."""
    with pytest.raises(ValidationError) as raised:
        Settings(redis=url, redis_sentinel_master="mymaster")
    assert "Pl4nted" not in str(raised.value)
