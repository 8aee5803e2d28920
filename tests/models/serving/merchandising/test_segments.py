"""Segments: users by a rule or by affinity, and rules of placements for them."""

from __future__ import annotations

import msgspec
import pytest

from models.errors import InvalidRequest
from models.serving.merchandising.placements import Configuration
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker
from models.serving.merchandising.segments import Segment, Segments, check_segment
from models.state.catalogue.metadata import put_items, put_users
from models.state.named_versions import save_version
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

GOLD = 'INCLUDE UserID WHERE Users.TIER IN ("gold")'
BUYERS = 'INCLUDE UserID WHERE Interactions.event_type IN ("purchase")'


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        (Segment(), "exactly one of"),
        (Segment(rule=GOLD, affinity_item="i"), "exactly one of"),
        (Segment(rule="INCLUDE ItemID WHERE Items.A = 1"), r"by ItemID, .* - at `\$.rule`"),
        (Segment(rule="INCLUDE UserID WHERE Users.A IN ($A)"), r"\$PARAMETER"),
        (Segment(affinity_query="ITEMS.A > 1"), r"found '>'.* - at `\$.affinity_query`"),
    ],
)
def test_what_breaks_a_rule_is_named(segment: Segment, text: str) -> None:
    """Before it is saved."""
    with pytest.raises(InvalidRequest, match=text):
        check_segment(segment)


@pytest.fixture
async def shop(store: Store) -> Shop:
    """Two gold users, one of whom bought, and users of horror."""
    shop = Shop(store)
    await put_users(
        store, [("ada", {"TIER": "gold"}), ("bob", {"TIER": "gold"}), ("eve", {})], shop.now_s
    )
    await put_items(store, [("ghost", {"GENRES": "horror"})], shop.now_s)
    await shop.send("ada", "tent", "stove", kind="purchase")
    for user in ("eve", "dan"):
        await shop.send(user, "ghost", "tent", "stove")
    return shop


async def saved(shop: Shop, name: str, segment: Segment) -> None:
    """Save a segment."""
    check_segment(segment)
    value = msgspec.json.encode(segment)
    await save_version(shop.store, "segments", name, value, saved_by="", now_s=shop.now_s)


async def test_segments_by_rule_and_by_affinity(shop: Shop) -> None:
    """Users are read by pages, and each is asked for alone."""
    await saved(shop, "gold", Segment(rule=GOLD))
    await saved(shop, "buyers", Segment(rule=BUYERS))
    await saved(shop, "ghosts", Segment(affinity_item="ghost"))
    await saved(shop, "horror", Segment(affinity_query='ITEMS.GENRES = "horror"', size=1))
    segments, now_s = Segments(shop.recommender), shop.now_s

    async def users(name: str, cursor: int = 0, n: int = 10) -> tuple[list[str], str | None]:
        segment = await segments.get(name, now_s)
        assert segment is not None
        found, following = await segments.users(segment, now_s, cursor=cursor, n=n)
        return sorted(found), following

    assert await users("gold") == (["ada", "bob"], None)
    assert await users("buyers") == (["ada"], None)
    by_affinity, _ = await users("ghosts")
    assert {"dan", "eve"} <= set(by_affinity)
    first, following = await users("ghosts", n=1)
    assert (len(first), following) == (1, "1")
    assert (await users("ghosts", cursor=1))[0] == sorted(set(by_affinity) - set(first))
    assert len((await users("horror"))[0]) == 1
    names = ["gold", "buyers", "ghosts", "gone"]
    assert await segments.of_user("ada", names, now_s) >= {"gold", "buyers"}
    assert await segments.of_user("bob", names, now_s) == {"gold"}
    assert await segments.of_user("dan", names, now_s) == {"ghosts"}
    assert await segments.get("gone", now_s) is None


async def test_a_rule_holds_for_its_segment_alone(shop: Shop) -> None:
    """Others, and those who are not known, get the list without it."""
    rule = {"segment": "gold", "pin": [{"item_id": "ghost", "slot": 1}]}
    placed = msgspec.convert({"recipe": "trending-now", "rules": [rule]}, Configuration)

    async def first(question: Question) -> str:
        answer = await answer_question(shop.recommender, question, placed, None, k=3)
        return ids(answer)[0]

    gold = Question(Asker("ada"), shop.now_s, segments=frozenset(["gold"]))
    assert await first(gold) == "ghost"
    for other in (gold._replace(segments=frozenset()), gold._replace(profiling=False)):
        assert await first(other) != "ghost"
