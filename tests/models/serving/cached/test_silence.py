"""Groups that were silent for years, and groups that were not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.serving.cached.silence import find_silence, may_have_faded
from models.serving.recommender import Recommender
from models.state import layout
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store

OLD_S, NOW = 890_000_000, 1_790_000_000.0
DAY = 86_400


async def send(store: Store, events: list[tuple[str, str, int]]) -> None:
    """Apply events of users on items at times, in their order."""
    messages = [
        StoredMessage(n, user, user, shard_of(user), NOW,
                      [StoredEvent(item, at, "watch", 0.0, False, n + 1)])
        for n, (user, item, at) in enumerate(events)
    ]  # fmt: skip
    for at in range(0, len(messages), 200):
        await store.apply([Part(f"{len(events)}/0", at - 1, messages[at : at + 200])], now_s=NOW)


def year(start_s: int, days: int = 200, seed: int = 1) -> list[tuple[str, str, int]]:
    """Ten events a day; the item `m0` is the most popular one, then `m1`, and so on."""
    rng = np.random.default_rng(seed)
    return [
        (f"u{rng.integers(100)}", f"m{min(int(rng.exponential(8.0)), 59)}",
         start_s + day * DAY + int(rng.integers(DAY)))
        for day in range(days)
        for _ in range(10)
    ]  # fmt: skip


SESSION = [("live", f"m{n}", int(NOW) - 600 + 60 * n) for n in (40, 45, 50, 55)]
SESSION.append(("live", "new", int(NOW) - 60))


async def best(store: Store, **asked: Any) -> list[str]:
    """The ten items that are recommended."""
    found = await Recommender(store, seed=1).recommend(k=10, now_s=NOW, explores=False, **asked)
    return [item.item_id for item in found.items]


@pytest.mark.parametrize("first", ["past", "session"])
async def test_one_session_does_not_overrun_a_past(
    make_store: Callable[..., Store], first: str
) -> None:
    """Whichever is sent first: strangers get what was popular, users what they got before."""
    store = make_store()
    past = sorted(year(OLD_S), key=lambda one: one[2])
    before = make_store()
    await send(before, past)
    for events in (past, SESSION) if first == "past" else (SESSION, past):
        await send(store, events)
    live = {item for _, item, _ in SESSION}

    popular = [f"m{n}" for n in range(12)]
    assert len({*await best(store)} & {*popular}) >= 8
    assert (await best(store))[0] in popular[:3]
    for user in ("u1", "u7"):
        was, found = await best(before, user_id=user), await best(store, user_id=user)
        assert len({*found} & {*was}) >= 8
    # Who takes part in the session gets what belongs to it.
    assert {*await best(store, user_id="live")} & live


async def test_a_group_that_goes_on_is_as_it_was(make_store: Callable[..., Store]) -> None:
    """No silence is found in steady, growing, seasonal or young groups, nor at a night's end."""
    for events in (
        year(int(NOW) - 200 * DAY),
        [one for one in year(int(NOW) - 900 * DAY, 900) if one[2] % (365 * DAY) < 300 * DAY],
        [(user, item, at) for user, item, at in year(int(NOW) - 30 * DAY, 30)],
        SESSION,
    ):
        store = make_store()
        await send(store, sorted(events, key=lambda one: one[2]))
        recommender = Recommender(store)
        shared = await recommender.cache.refresh(NOW)
        assert shared.silence is None


async def test_the_past_fades_once_the_group_is_alive(make_store: Callable[..., Store]) -> None:
    """With a month of new events on many items, what is new comes first."""
    store = make_store()
    await send(store, year(OLD_S))
    alive = [(f"v{n % 50}", f"n{n % 120}", int(NOW) - 30 * DAY + n * 2000) for n in range(1200)]
    await send(store, alive)

    shared = await Recommender(store).cache.refresh(NOW)
    assert shared.silence is None
    assert (await best(store))[0].startswith("n")


def test_a_silence_is_far_longer_than_other_gaps() -> None:
    """Items that are touched once a year have none, however few there are."""
    stats = np.zeros(6, layout.STAT)
    stats["events"] = 3
    stats["first"] = 1
    stats["last"] = np.arange(6) * 365 * DAY + DAY
    stats["log2"] = (stats["last"][:, None] - layout.EPOCH) * layout.POPULARITY_RATES + 5
    assert find_silence(stats) is None
    stats["last"][5] += 20 * 365 * DAY
    stats["log2"][5] = (int(stats["last"][5]) - layout.EPOCH) * layout.POPULARITY_RATES
    found = find_silence(stats)
    assert found is not None
    assert found.began_s == stats["last"][4]
    assert find_silence(stats[:2]) is None
    assert not may_have_faded({"all": 0.0, "month": 0.0}, NOW)
