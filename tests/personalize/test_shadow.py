"""Shadow comparison with a campaign of this project's own API."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from api.shadow_comparison import MAX_WAITING, THREADS, ShadowComparison
from models.serving.local import LocalRecommender
from models.settings import Settings
from ops.embedded_servers import start_redis
from tests.buckets import use_aws_environment
from tests.personalize.calls_fixtures import campaign, serving
from tests.servers import own_port
from tests.stack import PATIENCE_S

SERIES = {
    name: ("recommender_shadow_requests_total", {"outcome": name})
    for name in ("compared", "failed", "dropped")
} | {
    "overlap": ("recommender_shadow_overlap_share_sum", {}),
    "correlated": ("recommender_shadow_rank_correlation_bucket", {"le": "+Inf"}),
    "uncorrelated": ("recommender_shadow_rank_correlation_bucket", {"le": "0.8"}),
    "own": ("recommender_shadow_seconds_count", {"side": "own"}),
    "aws": ("recommender_shadow_seconds_count", {"side": "aws"}),
}


def measured() -> dict[str, float]:
    """The current series of the shadow comparison."""
    return {name: REGISTRY.get_sample_value(*one) or 0.0 for name, one in SERIES.items()}


def since(before: dict[str, float]) -> dict[str, float]:
    """The difference of the series since then."""
    return {name: value - before[name] for name, value in measured().items()}


def wait_until_asked(before: dict[str, float], n: float) -> dict[str, float]:
    """The difference of the series, once as many answers have an outcome."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = since(before)
        if sum(found[name] for name in ("compared", "failed", "dropped")) >= n:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def ask(url: str, query: str) -> dict[str, Any]:
    """The answer of /recommend of the API with this AWS address."""
    with urllib.request.urlopen(f"{url.removesuffix('/personalize')}/recommend?{query}") as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


@pytest.fixture
def shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of an API with events that compares every answer."""
    use_aws_environment(monkeypatch, tmp_path)
    server = start_redis(tmp_path)
    settings = Settings(
        redis=server.url,
        kafka="127.0.0.1:1",
        port=own_port(),
        shadow_campaign_arn=campaign("default"),
        shadow_share=1.0,
    )
    with LocalRecommender(settings) as recommender:
        for n, item in enumerate(("lamp", "desk", "chair", "shelf", "rug")):
            for user in ("ada", "bob")[: 2 - n % 2]:
                recommender.learn(user, item, at_s=time.time() - 60 + n)
    yield settings
    server.stop()


def test_the_same_campaign_agrees(shadowed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that answers as this API shares all items, in the same order."""
    with serving(shadowed) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_RUNTIME", url)
        before = measured()
        ours = [item["itemId"] for item in ask(url, "user_id=ada")["items"]]
        ask(url, "session_id=s")  # without a user, AWS is not asked
        found = wait_until_asked(before, 1)

    assert len(ours) == 4
    assert found == {
        "compared": 1, "failed": 0, "dropped": 0,
        "overlap": pytest.approx(1), "correlated": 1, "uncorrelated": 0, "own": 1, "aws": 1,
    }  # fmt: skip


def test_an_absent_campaign_changes_no_answer(
    shadowed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If AWS or the campaign cannot be reached, only the count shows it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_RUNTIME", f"http://127.0.0.1:{own_port()}")
    before = measured()
    with serving(shadowed) as url:
        assert ask(url, "user_id=eve&num_results=3")["recommendationId"]
        found = wait_until_asked(before, 1)
    assert (found["failed"], found["compared"]) == (1, 0)

    update = {"shadow_campaign_arn": campaign("nobody"), "port": own_port()}
    with serving(shadowed.model_copy(update=update)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_RUNTIME", url)
        assert ask(url, "user_id=eve&num_results=3")["recommendationId"]
        assert wait_until_asked(before, 2)["failed"] == 2


async def test_a_silent_campaign_fills_the_queue_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a campaign never answers, requests are served, and overflow is dropped and counted."""
    use_aws_environment(monkeypatch, tmp_path)
    settings = Settings(shadow_campaign_arn=campaign("default"), shadow_share=1.0)
    before, n = measured(), 2 * MAX_WAITING
    with socket.create_server(("127.0.0.1", 0), backlog=THREADS) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_RUNTIME", address)
        shadow = ShadowComparison(settings)
        for _ in range(n):
            shadow.compare("eve", ["lamp"], k=25, took_s=0.001)
        full = since(before)["dropped"]
        await shadow.close()
    found = since(before)

    assert full == n - MAX_WAITING
    assert found["compared"] == 0
    assert found["dropped"] + found["failed"] == n


async def test_only_the_share_is_compared() -> None:
    """Answers outside the sample are not compared."""
    settings = Settings(shadow_campaign_arn=campaign("default"), shadow_share=0.25)
    shadow, before = ShadowComparison(settings, chance=lambda: 0.25), measured()
    shadow.compare("eve", ["lamp"], k=25, took_s=0.001)
    await asyncio.wait_for(shadow.close(), PATIENCE_S)

    assert not any(since(before).values())
