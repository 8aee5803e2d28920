"""A bulk load teaches: what came too fast for examples is caught up with."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stack import Stack

N_SESSIONS = 300


@pytest.mark.slow
def test_the_ranker_catches_up_after_a_replay(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Of 1,200 events a few are examples at once; all that was wanted has been learned later."""
    file, chance = tmp_path / "events.csv", random.Random(7)
    rows = ["SESSION_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE"]
    for session in range(N_SESSIONS):
        at = chance.randrange(30)
        for step in range(4):
            at += 1 if chance.random() < 0.8 else chance.randrange(30)
            rows.append(f"s{session},i{at % 30},{1_790_000_000 + 60 * session + step},click")
    file.write_text("\n".join(rows))
    one = stack(examples_per_s=1.0, catch_up_examples=400, catch_up_share=0.5)
    one.start("worker")

    assert one.run("replay", str(file), "--as", "sessions").returncode == 0
    one.wait(lambda: one.counts().get("events") == 4 * N_SESSIONS, "all events are in effect")

    def has_caught_up() -> bool:
        status = one.status()
        done = status.catch_up is not None and status.catch_up.is_complete
        return done and status.examples["interactions"] >= 300

    one.wait(has_caught_up, "the ranker has learned from kept events")
    progress = one.status().catch_up
    assert progress is not None
    # It may begin before the last events came.
    assert 1000 <= progress.known == progress.done <= 4 * N_SESSIONS
    assert 300 < progress.examples <= 400
    shown = one.run("status", "--json")
    assert json.loads(shown.stdout)["catch_up"]["examples"] == progress.examples
    assert one.counts()["events"] == 4 * N_SESSIONS
    # The same worker learns factors of the items, of as many events.
    one.wait(lambda: one.counts().get("factor_updates", 0) > 0, "the items have factors")
