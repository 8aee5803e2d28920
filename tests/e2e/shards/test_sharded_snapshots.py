"""A group of several shards is saved while events flow, restored, and learned again from Kafka."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import Unavailable
from models.state.store import Store
from tests.e2e.snapshot_fixtures import saved_while_events_flow
from tests.stack import Stack

SHARDS = 4
ITEMS = [f"i{n}" for n in range(7)]
USERS = [f"u{n}" for n in range(12)]


@pytest.mark.slow
def test_shards_are_saved_restored_and_learned_again(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Deltas under way included: every event counts once, in its history and on its item."""
    check_copies(stack(shards=SHARDS, outcomes=False, exploration_share=0), tmp_path / "kept")


def check_copies(one: Stack, folder: Path) -> None:
    """Save under load, go on, fall back to the snapshot, and learn all again; nothing differs."""
    running = [one.start("worker"), one.start("api")]
    one.wait_ready()
    sent: list[tuple[str, str]] = [("", "warm")]
    saved = _saved_under_load(one, str(folder), sent)
    assert saved["shards"] == SHARDS
    one.wait(lambda: _lag(one) == 0, "all is in effect")
    never_stopped = _state(one)
    _assert_each_counts_once(never_stopped, sent)
    for process in running:
        process.terminate()
        process.wait(60)

    refused = one.run("snapshot", "restore", str(folder), "--replace", RECOMMENDER_SHARDS="2")
    assert refused.returncode
    assert "the snapshot is of a group of 4 shard(s), and RECOMMENDER_SHARDS=2" in refused.stderr
    assert "recommender reshard" in refused.stderr
    restored = one.run("snapshot", "restore", str(folder), "--replace")
    assert restored.returncode == 0, restored.stderr
    assert "WARNING" not in restored.stdout + restored.stderr
    assert 0 < one.counts()["events"] < len(sent)
    worker = one.start("worker")
    one.wait(lambda: _lag(one) == 0, "what came since is in effect")
    one.wait(lambda: _state(one) == never_stopped, "nothing is lost or doubled", within_s=30)

    worker.terminate()
    worker.wait(60)
    told = one.run("rebuild", "--yes")
    assert told.returncode == 0, told.stderr
    assert not one.counts().get("events")
    one.start("worker")
    one.wait(lambda: _lag(one) == 0, "all is learned again")
    one.wait(lambda: _state(one) == never_stopped, "all of it once", within_s=30)


def _saved_under_load(one: Stack, folder: str, sent: list[tuple[str, str]]) -> dict[str, Any]:
    """The manifest of a snapshot that was made under events, which are noted."""
    chance = random.Random(3)

    def send(_: int) -> None:
        user, item = chance.choice(USERS), chance.choice(ITEMS)
        one.click(item, user=user, session=f"of-{user}")
        sent.append((user, item))

    return saved_while_events_flow(one, folder, send)


def _state(one: Stack) -> tuple[float, dict[str, float], dict[str, list[str]]]:
    """Events in effect, those of each item, and the items of each user's history, oldest first."""

    async def read(store: Store) -> tuple[float, dict[str, float], dict[str, list[str]]]:
        indexes = await store.item_indexes([*ITEMS, "warm"])
        counts = await store.event_counts(indexes)
        names = dict(zip(indexes, [*ITEMS, "warm"], strict=True))
        histories = await store.histories([f"u:{user}" for user in USERS])
        of_items = dict(zip(names.values(), counts, strict=True))
        of_users = {
            user: sorted(names[index] for index in history.items.tolist())
            for user, history in zip(USERS, histories, strict=True)
        }
        return (await store.counts()).get("events", 0), of_items, of_users

    return one.stored(read)


def _assert_each_counts_once(
    found: tuple[float, dict[str, float], dict[str, list[str]]], sent: list[tuple[str, str]]
) -> None:
    events, of_items, of_users = found
    assert events == len(sent)
    assert of_items == Counter(item for _, item in sent)
    assert of_users == {u: sorted(item for user, item in sent if user == u) for u in USERS}


def _lag(one: Stack) -> int:
    """Messages that wait; -1 while a node is away."""
    try:
        return one.status().lag
    except Unavailable:
        return -1
