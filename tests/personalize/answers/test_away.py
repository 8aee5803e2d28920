"""Redis away: campaigns answer from the cache of the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from ops.embedded_servers import start_redis
from tests.personalize.calls_fixtures import client, serving
from tests.personalize.control_fixtures import Control, make_control_plane
from tests.servers import own_port

NAMES = ("c", "r", "unasked")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """An embedded Redis that a test stops."""
    server = start_redis(tmp_path)
    yield server
    server.stop()


async def prepared(control: Control) -> dict[str, str]:
    """Campaigns by name, of a group whose most popular item is `i0`."""
    group = await control.group()
    store = control.context.tenants.store("g")
    taken = [StoredEvent(f"i{n % 3 * (n % 2)}", 10**9 + n, "watch", 0, False, n) for n in range(9)]
    message = StoredMessage(0, "u", "u", shard_of("u"), control.now_s, taken)
    await store.apply([Part("test/0", -1, [message])], now_s=control.now_s)
    recipes = dict.fromkeys(NAMES, "aws-user-personalization-v2") | {
        "r": "aws-personalized-ranking"
    }
    arns = {}
    for name, recipe in recipes.items():
        version = await control.version(await control.solution(group, name, recipe))
        made = await control("CreateCampaign", name=name, solutionVersionArn=version)
        arns[name] = made["campaignArn"]
    await control(
        "CreateFilter",
        name="f",
        datasetGroupArn=group,
        filterExpression='EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("watch")',
    )
    await control.context.recommenders.close()
    await store.redis.aclose()
    return arns


async def test_cached_campaigns_answer_while_redis_is_away(redis: Any) -> None:
    """A campaign asked before answers trending items; other requests are unavailable."""
    control = make_control_plane(redis.url)
    arns = await prepared(control)
    settings = control.settings.model_copy(update={"port": own_port(), "cache_s": 0.0})
    with serving(settings) as url:
        runtime = client("personalize-runtime", url)
        ranking = {"campaignArn": arns["r"], "userId": "u", "inputList": ["new", "i1", "i0"]}
        runtime.get_recommendations(campaignArn=arns["c"], userId="u")
        runtime.get_personalized_ranking(**ranking)
        redis.stop()
        listed = runtime.get_recommendations(campaignArn=arns["c"], userId="u")["itemList"]
        ranked = runtime.get_personalized_ranking(**ranking)["personalizedRanking"]
        for more in (
            {"campaignArn": arns["unasked"]},
            {"campaignArn": arns["c"], "filterArn": control.arn("filter/f")},
        ):
            with pytest.raises(ClientError) as caught:
                runtime.get_recommendations(userId="u", **more)
            assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"

    assert listed[0]["itemId"] == "i0"
    assert {one["itemId"] for one in listed} == {"i0", "i1", "i2"}
    assert [one["itemId"] for one in ranked] == ["i0", "i1", "new"]
    assert ranked[-1]["score"] == 0
