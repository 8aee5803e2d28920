"""Lists that were served to an owner: why each item, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.state.outcomes.followed_lists import FollowedItem, followed_lists
from models.state.store import Store
from tests.models.state.reference import NOW
from tests.models.state.test_outcomes import WINDOW_S, send, serve, shown, taken


async def test_lists_of_owners_are_told_with_outcomes(make_store: Callable[..., Store]) -> None:
    """In the order of time over all owners: place, arm, reasons, clicks, purchases and value."""
    store = make_store(outcome_window_s=WINDOW_S)
    session: dict[str, Any] = {"user": "", "session_id": "s1"}
    await serve(
        store,
        shown("r2", "ab", at_s=NOW - 50, arm="bold"),
        shown("r1", "xyz", at_s=NOW - 60, placement="", **session),
        shown("other", user="u2"),
    )
    await send(store, taken("a", 1), taken("b", 2, value=19_990, type="purchase"))

    found = await followed_lists(store, ["u:u1", "s:s1", "u:nobody"])

    assert [one.recommendation_id for one in found] == ["r1", "r2"]
    first, second = found
    assert (first.owner, first.placement, first.recipe) == ("s:s1", "", "trending-now")
    # Items that no event or record has named yet are known by their names.
    assert [item.item_id for item in first.items] == ["x", "y", "z"]
    assert not any(item.is_clicked or item.is_bought for item in first.items)
    assert (second.arm, second.served_at) == ("bold", NOW - 50)
    assert second.items == [
        FollowedItem("a", "trending", True, False, 0.0),
        FollowedItem("b", "trending", False, True, 19.99),
    ]
    (newest,) = await followed_lists(store, ["u:u1", "s:s1"], newest=1)
    assert newest == second
    assert await followed_lists(store, []) == await followed_lists(store, ["u:nobody"]) == []
