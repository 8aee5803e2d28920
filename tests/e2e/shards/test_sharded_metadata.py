"""Metadata of a group of several shards: from its acceptance to filters, over moves and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ops.forked_processes import ForkedProcess
from tests.stack import Stack

SHARDS = 4
ITEMS = [f"i{n}" for n in range(40)]
OPTIONS: dict[str, Any] = {"outcomes": False, "exploration_share": 0, "examples_per_s": 0}
RED = quote('INCLUDE ItemID WHERE Items.COLOR IN ("red")')
PATH = f"/recommend?user_id=new&num_results=40&filter={RED}"


def properties(number: int) -> dict[str, Any]:
    """Every third item is red, every tenth hidden, some pairs are variants of one product."""
    return {
        "color": "red" if number % 3 == 0 else "blue",
        "hidden": number % 10 == 9,
        "name": f"tent x{number}y",
        **({"item_group_id": f"p{number // 2}"} if number >= 30 else {}),
    }


def put(one: Stack, numbers: Iterable[int], **more: object) -> str:
    """Put items, and wait until they are in effect; gives the last token."""
    records = [{"itemId": ITEMS[n], "properties": {**properties(n), **more}} for n in numbers]
    for at in range(0, len(records), 10):
        status, answer = one.ask("PUT", "/items", {"items": records[at : at + 10]})
        assert status == 202, answer
        wait_for(one, answer["after"])
    return str(answer["after"])


def wait_for(one: Stack, after: str) -> None:
    """Return when what a token names is in effect."""
    one.wait(lambda: one.recommend(f"after={after}")["freshness"]["afterReached"], "in effect")


def begin(one: Stack) -> list[ForkedProcess]:
    """Start a worker and an API; records of all items, the first of them without events so far."""
    running = [one.start("worker"), one.start("api")]
    one.wait_ready()
    put(one, range(20))
    for item in ITEMS:
        after = one.click(item, user="ada", session="s")
    wait_for(one, after)
    put(one, range(20, 40))
    return running


def names(one: Stack, path: str) -> set[str]:
    """Ids of the items of an answer."""
    status, answer = one.ask("GET", path)
    assert status == 200, answer
    return {item["itemId"] for item in answer["items"]}


def assert_serves(one: Stack) -> None:
    """Filters, hidden items, variants, lists and single records are those that were put."""
    shown = {n for n in range(40) if n % 10 != 9}
    red = {ITEMS[n] for n in shown if n % 3 == 0}
    one.wait(lambda: names(one, PATH) <= red and len(names(one, PATH)) >= 10, "only red ones")
    every = names(one, "/recommend?user_id=new&num_results=40")
    assert not every & {ITEMS[n] for n in range(9, 40, 10)}
    for first in range(30, 38, 2):
        assert len(every & {ITEMS[first], ITEMS[first + 1]}) <= 1
    assert names(one, "/items?num_results=100") == set(ITEMS)
    assert len(names(one, "/items?order=newest&num_results=7")) == 7
    assert names(one, "/items?query=tent+x17y") == {"i17"}
    for n in (3, 25):
        status, item = one.ask("GET", f"/items/i{n}")
        assert status == 200, item
        assert (item["properties"], item["events"]) == (properties(n), 1)


@pytest.mark.slow
def test_items_are_filtered_moved_and_restored(
    embedded_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Four shards, then two, one, and three; each serves what one shard would."""
    one = embedded_stack(shards=SHARDS, **OPTIONS)
    running = begin(one)
    assert_serves(one)
    for shards in (2, 1, 3):
        moved = one.run("reshard", str(shards), "--json")
        assert moved.returncode == 0, moved.stderr + one.log()
        assert_serves(one)
        put(one, [1], color="red")
        one.wait(lambda: "i1" in names(one, PATH), "a change is in effect")
        put(one, [1])
        one.wait(lambda: "i1" not in names(one, PATH), "and another one")
    folder = str(tmp_path / "kept")
    saved = one.run("snapshot", "save", folder)
    assert saved.returncode == 0, saved.stderr
    put(one, [1], color="red")
    for process in running:
        process.terminate()
        process.wait(60)
    for command in (("snapshot", "restore", folder, "--replace"), ("rebuild", "--yes")):
        done = one.run(*command, RECOMMENDER_SHARDS="3")
        assert done.returncode == 0, done.stderr
        running = [one.start(name, RECOMMENDER_SHARDS="3") for name in ("worker", "api")]
        one.wait_ready()
        # What came behind the snapshot is read again.
        one.wait(lambda: "i1" in names(one, PATH), "all records are in effect")
        for process in running:
            process.terminate()
            process.wait(60)
