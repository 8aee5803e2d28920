"""Outcomes of served lists, from an answer over HTTP through Kafka into a report."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.stack import Stack


def rows(stack: Stack, query: str) -> dict[str, dict[str, Any]]:
    """Rows of the report by their names."""
    status, report = stack.ask("GET", f"/outcomes?{query}")
    assert status == 200
    return {row["name"]: row for row in report["rows"]}


def test_a_list_a_click_and_a_purchase_make_a_report(running: Stack) -> None:
    """By its placement, its position and its reason; not what was asked without profiling."""
    assert running.ask("PUT", "/placements/outcomes", {"num_results": 2})[0] in {200, 201}
    for item in ("lamp", "oil"):
        running.click(item, user="someone", session="someone")
    running.wait(
        lambda: len(running.ask("GET", "/trending")[1]["items"]) > 1, "there is something to show"
    )
    asked = "placement=outcomes"
    shown = running.recommend(f"{asked}&user_id=o1")
    running.recommend(f"{asked}&user_id=o2&profiling=off")
    first, second = (item["itemId"] for item in shown["items"])
    events = [
        {"eventType": "click", "itemId": first, "recommendationId": shown["recommendationId"]},
        {"eventType": "purchase", "itemId": second, "eventValue": 19.5},
        {"eventType": "click", "itemId": "elsewhere"},
    ]
    sent = [{**event, "sentAt": time.time()} for event in events]
    message = {"sessionId": "o1", "userId": "o1", "eventList": sent}
    _, accepted = running.ask("POST", "/events", message)
    query = f"placement=outcomes&after={accepted['after']}"

    running.wait(
        lambda: rows(running, f"{query}&by=placement").get("outcomes", {}).get("conversions") == 1,
        "list and events are counted",
    )

    row = rows(running, f"{query}&by=placement")["outcomes"]
    assert row == {
        "name": "outcomes", "answers": 1, "impressions": 2, "clicks": 1, "conversions": 1,
        "value": 19.5, "clickThroughRate": 0.5, "conversionRate": 0.5,
    }  # fmt: skip
    by_position = rows(running, f"{query}&by=position")
    assert [(name, one["clicks"]) for name, one in by_position.items()] == [("1", 1), ("2", 0)]
    assert sum(one["impressions"] for one in rows(running, f"{query}&by=reason").values()) == 2
    shoppers = [f"whatif{n}" for n in range(40)]
    for n, shopper in enumerate(shoppers):
        for item in (f"thing{n}", f"thing{(n + 1) % 40}", "lamp"):
            after = running.click(item, user=shopper, session=shopper)
        running.ask("GET", f"/events/{after}")  # it waits for the effect
    running.wait(
        lambda: len(running.recommend("user_id=whatif39&num_results=30")["items"]) == 30,
        "there is enough to show",
    )
    for shopper in shoppers:
        shown = running.recommend(f"user_id={shopper}&num_results=30")
        running.click(shown["items"][29]["itemId"], user=shopper, session=shopper)
    policies = ("whatif", "--share", "0", "--boost", "brand:acme*2", "--cap", "brand:2", "--json")

    def estimated() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(running.run(*policies).stdout)
        return found

    running.wait(lambda: estimated()["lists"] >= 40, "lists are logged")
    found = estimated()
    assert found["owners"] >= 40
    # Up to fifteen slots of each of the lists, fewer where nearly all of a small pool was shown.
    assert found["randomised_slots"] >= 5 * 40
    assert found["shown"]["value"] > 0.5
    assert [*found["policies"]] == ["share 0", "boost brand:acme*2", "cap brand:2"]
    assert found["policies"]["share 0"]["support"] == 1.0
    # No item has a brand: neither of the others would change anything.
    assert found["policies"]["cap brand:2"]["difference"] == pytest.approx(0.0)
    printed = running.run("whatif", "--share", "0.2", "--reward", "value")
    assert printed.stdout.splitlines()[0].endswith("randomised slots")
    printed = running.run("report", "--placement", "outcomes", "--json")
    assert json.loads(printed.stdout)["total"]["value"] == 19.5
