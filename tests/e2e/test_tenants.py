"""Groups beside that of the settings: through HTTP, Kafka, the worker and Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from models.serving.recommender import Recommender
from models.state.store import Store
from models.state.stored_ranker import load_ranker
from tests.stack import Stack


def test_two_groups_never_see_each_others_events(running: Stack) -> None:
    """A click with another group's tracking id changes only its answers."""
    books = running.tenant("books")
    for session in range(2):
        for item in ("atlas", "globe"):
            after = running.click(item, session=f"reader-{session}", tracking_id=books)
    before = running.counts()
    after = running.click("atlas", user="iris", session="reader-9", tracking_id=books)
    assert running.recommend(f"user_id=iris&after={after}")["freshness"]["afterReached"] is True

    async def recommended(store: Store) -> Any:
        found = await Recommender(store).recommend(user_id="iris", now_s=2e9)
        return [item.item_id for item in found.items]

    assert running.stored(recommended, group=books)[0] == "globe"
    assert running.counts(group=books)["events"] == 5
    assert running.counts() == before
    assert running.recommend("user_id=iris")["recipe"] == "trending-now"
    names = {item["itemId"] for item in running.recommend("user_id=iris&num_results=500")["items"]}
    assert not names & {"atlas", "globe"}


def test_the_ranker_learns_of_every_group(stack: Callable[..., Stack]) -> None:
    """Examples of another group train its own ranker."""
    one = stack()
    one.start("worker")
    one.start("api")
    one.wait_ready()
    books = one.tenant("books")

    def has_learned() -> bool:
        for n in range(4):
            one.click(f"i{n}", user="ada", session="ada-1", tracking_id=books)
        kept = one.stored(load_ranker, group=books)
        return bool(json.loads(kept.get("interactions:scoreboard", b'{"n": 0}'))["n"])

    one.wait(has_learned, "the group's ranker has learned")
    assert one.counts().get("events") == 1
