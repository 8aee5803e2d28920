"""An experiment over HTTP: its users are split, their outcomes counted, and harm ends an arm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.stack import Stack

PLAN: dict[str, Any] = {
    "placement": "tried",
    "arms": [
        {"name": "plain"},
        {
            "name": "other",
            "share": 1,
            "configuration": {"num_results": 1, "caption": "New", "ranker": "ranker"},
        },
    ],
    "horizon_s": 1,
    "days": 0.01,
}


def test_users_are_split_and_counted(running: Stack, tmp_path: Path) -> None:
    """Each user has one arm, the answer says which, and the report counts users and outcomes."""
    running.ask("PUT", "/placements/tried", {"num_results": 2})
    for item in ("lamp", "oil"):
        running.click(item, user="someone", session="someone")
    running.wait(
        lambda: len(running.ask("GET", "/trending")[1]["items"]) > 1, "there is something to show"
    )
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    started = running.run("experiments", "start", "e1", str(tmp_path / "plan.json"))
    assert started.returncode == 0, started.stderr
    assert running.ask("POST", "/experiments/e2/start", PLAN)[0] == 400
    running.wait(
        lambda: "arm" in running.recommend("placement=tried&user_id=first")["placement"],
        "the experiment is in effect",
    )
    arms: dict[str, str] = {}
    for n in range(24):
        shown = running.recommend(f"placement=tried&user_id=e{n}")
        arms[f"e{n}"] = arm = shown["placement"]["arm"]
        assert len(shown["items"]) == {"plain": 2, "other": 1}[arm]
        sent = {
            "eventType": "click", "itemId": shown["items"][0]["itemId"], "sentAt": time.time(),
            "recommendationId": shown["recommendationId"],
        }  # fmt: skip
        if arm == "other":
            message = {"sessionId": f"e{n}", "userId": f"e{n}", "eventList": [sent]}
            running.ask("POST", "/events", message)
    assert set(arms.values()) == {"plain", "other"}
    off = running.recommend("placement=tried&user_id=e1&profiling=off")
    assert "arm" not in off["placement"]

    def counted() -> dict[str, Any]:
        _, report = running.ask("GET", "/experiments/e1")
        return {arm["name"]: arm for arm in report["arms"]}

    n_other = list(arms.values()).count("other")
    running.wait(
        lambda: (
            counted()["other"]["complete"] >= n_other
            and sum(arm["complete"] for arm in counted().values()) == 25
        ),
        "all users are complete",
    )
    found = counted()
    assert found["plain"]["mean"] == 0
    assert found["other"]["mean"] * found["other"]["users"] == n_other
    assert found["other"]["verdict"] == "too few users"
    assert "too few users" in running.run("experiments", "report", "e1").stdout

    _, curve = running.ask("GET", "/outcomes?by=position&placement=tried&arm=other")
    assert [(row["name"], row["clicks"]) for row in curve["rows"]] == [("1", n_other)]
    printed = running.run("report", "--by", "position", "--arm", "other", "--recipe", "none")
    assert " 0 " in printed.stdout

    assert running.ask("POST", "/experiments/e1/stop")[0] == 200
    running.wait(
        lambda: "arm" not in running.recommend("placement=tried&user_id=e1")["placement"],
        "the placement answers as it is configured",
    )
    assert "e1: stopped" in running.run("experiments", "list").stdout
