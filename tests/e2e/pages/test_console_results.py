"""The console's tabs of the shop's own rules, and of what came of them."""

from __future__ import annotations

import re
import time

import pytest
from selenium.webdriver.common.keys import Keys

from tests.e2e.http_api.test_shown_state import await_effect
from tests.e2e.pages.shop_page import Open, Page
from tests.stack import Stack

pytestmark = pytest.mark.slow


def seen_together(stack: Stack, prefix: str) -> list[str]:
    """Items that a few sessions looked at one after the other, in effect."""
    items = [f"{prefix}-{letter}" for letter in "abcd"]
    for n in range(3):
        after = [stack.click(item, session=f"{prefix}-{n}") for item in items]
        await_effect(stack, after[-1])  # each session is in a partition of its own
    return items


def shown(page: Page, selector: str) -> list[str]:
    """Item ids that a list of the console names."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)"
    found: list[str] = page.browser.execute_script(script, f"{selector} .item small")
    return found


def open_placement(page: Page, name: str) -> None:
    """Begin or open a placement by its name."""
    page.wait(lambda: re.match("[0-9]", page.text("#placements-title")))
    page.type("#new input", name)
    page.press("#new button")
    page.wait(lambda: page.text("#placement-title").startswith(name))


@pytest.mark.any_broker
def test_a_placement_is_tried_saved_and_rolled_back(running: Stack, console: Open) -> None:
    """A draft changes the preview and no answer; saved it does; the version before comes back."""
    a, b, c, d = seen_together(running, "placed")
    page = console("placements")
    open_placement(page, "console-place")
    page.type("#preview label:nth-of-type(2) input", a)
    page.choose(".detail select", "similar-items")
    page.press("#preview button")
    page.wait(lambda: set(shown(page, "#after")) >= {b, c, d})
    first = shown(page, "#after")[0]

    # Left out by hand, and another item pinned where it was.
    page.press_text(f"#after [data-item='{first}']", "Leave out")
    page.wait(lambda: first not in shown(page, "#after"))
    assert first in shown(page, "#before")
    assert page.text("#changed") == "changed, not saved"
    assert running.ask("GET", "/placements/console-place")[0] == 404
    page.press("#save")
    page.press(".asking .yes")
    page.wait(lambda: "Version 1 of console-place is saved" in page.text("#done"))

    asked = f"/similar/{a}?placement=console-place"
    running.wait(
        lambda: first not in [one["itemId"] for one in running.ask("GET", asked)[1]["items"]],
        "it is in effect",
    )
    last = shown(page, "#after")[-1]
    page.press_text("#after li:nth-child(1)", "Pin here")
    page.press_text(f"#after [data-item='{last}']", "Leave out")
    page.wait(lambda: last not in shown(page, "#after"))
    page.press("#save")
    page.press(".asking .yes")
    page.wait(lambda: "Version 2" in page.text("#done"))
    page.wait(lambda: len(page.all("#versions tbody tr")) == 2)
    page.press_text("#versions tbody tr:nth-child(2)", "Roll back")
    page.press_text("#versions tbody tr:nth-child(2)", "Yes")
    page.wait(lambda: "as version 3" in page.text("#done"))

    _, saved = running.ask("GET", "/placements/console-place")
    assert saved["version"] == 3
    assert saved["configuration"]["rules"] == [{"name": "By hand", "exclude": [first]}]
    page.press_text(".detail .actions", "Delete")
    page.press(".asking .yes")
    page.wait(lambda: "is deleted" in page.text("#done"))
    assert running.ask("GET", "/placements/console-place")[0] == 404
    assert page.problems() == []


@pytest.mark.any_broker
def test_a_wrong_rule_is_refused_with_its_place(running: Stack, console: Open) -> None:
    """The API's own words stand above the button, and nothing is saved."""
    page = console("placements")
    open_placement(page, "console-wrong")
    page.press("#add-rule")
    page.type(".rule [list=filters]", "price<cheap")
    page.press("#save")
    page.press(".asking .yes")
    page.wait(
        lambda: (
            "takes one number, or one date as 2026-03-01 - at `$.rules[0]`"
            in page.text(".detail .error")
        )
    )

    assert running.ask("GET", "/placements/console-wrong")[0] == 404
    page.type(".rule [list=filters]", "no_such_property<5")
    page.type("[list=rankers]", "best")
    page.press("#save")
    page.press(".asking .yes")
    page.wait(lambda: "there is no ranker 'best'" in page.text(".detail .error"))
    page.type("[list=rankers]", "blend")
    page.press("#save")
    page.press(".asking .yes")
    page.wait(lambda: "no item has a property nosuchproperty" in page.text("#done"))
    saved = running.ask("GET", "/placements/console-wrong")[1]
    assert saved["configuration"]["ranker"] == "blend"


def test_what_was_shown_is_told_of_users_and_in_outcomes(running: Stack, console: Open) -> None:
    """Of a user each list with why and what came of it; of all lists rates and the positions."""
    seen_together(running, "told")
    running.ask("PUT", "/placements/console-told", {"num_results": 3, "recipe": "trending-now"})
    running.wait(
        lambda: len(running.ask("GET", "/trending?num_results=3")[1]["items"]) == 3, "a trend"
    )
    told = running.recommend("user_id=console-told&placement=console-told")
    item = told["items"][1]["itemId"]
    events = [
        {"eventType": kind, "itemId": item, "sentAt": time.time(), "eventValue": value}
        for kind, value in (("click", 0), ("purchase", 12.5))
    ]
    message = {"sessionId": "console-told", "userId": "console-told", "eventList": events}
    after = running.ask("POST", "/events", message)[1]["after"]
    lists = f"/users/console-told/lists?after={after}"
    running.wait(
        lambda: any(
            one["isBought"] for of in running.ask("GET", lists)[1]["lists"] for one in of["items"]
        ),
        "the list and what came of it are in effect",
    )
    page = console("users")
    page.wait(lambda: page.all("form.line input"))
    page.type("form.line input", "console-told")
    page.press("form.line button")
    page.wait(lambda: "1 of 3 taken, value 12.50" in page.text("#shown"))
    assert "console-told" in page.text("#shown .status")
    assert item in page.run_script("return document.querySelector('#shown .bought').innerHTML")
    assert "Wanted more and more right now" in page.text("#shown")

    page = console("outcomes")
    page.wait(lambda: "console-told" in page.text("#outcomes-table"))
    page.choose("#which label:nth-of-type(2) select", "console-told")
    page.choose("#which label:nth-of-type(1) select", "position")
    page.choose("#which label:nth-of-type(5) select", "trending")
    page.wait(lambda: re.match(r"1 \d* ?1 0", page.text("#outcomes-table tbody")))
    # Of a reason items are counted, and no lists.
    page.wait(
        lambda: page.text("#total").splitlines()[:4] == ["Lists served", "0", "Items shown", "3"]
    )
    assert "12.5" in page.text("#total")
    assert page.all("#positions .trace")
    assert page.problems() == []


@pytest.mark.any_broker
def test_an_experiment_is_started_and_stopped(running: Stack, console: Open) -> None:
    """With an arm of its own configuration; users meet it, are counted, and it is stopped."""
    seen_together(running, "tested")
    running.ask("PUT", "/placements/console-tested", {"num_results": 4, "recipe": "trending-now"})
    page = console("experiments")
    page.wait(lambda: "console-tested" in page.text("#start select"))
    page.type("#start input", "console-few")
    page.choose("#start select", "console-tested")
    page.press(".arm:nth-of-type(2) [name=own]")
    page.type(".arm:nth-of-type(2) input.amount[max='500']", "2")
    page.press("#start-button")
    page.press(".asking .yes")
    page.wait(lambda: page.text("#state") == "running")
    assert "too few users" in page.text("#conclusion").lower()

    def arm(user: int) -> str:
        answer = running.recommend(f"user_id=console-few-{user}&placement=console-tested")
        met: str = answer["placement"].get("arm", "")
        assert len(answer["items"]) == (2 if met == "challenger" else 4)
        return met

    running.wait(lambda: arm(0) != "", "it is in effect")
    arms = {arm(user) for user in range(12)}
    assert arms == {"control", "challenger"}
    page.press_text("main", "Stop")
    page.press(".asking .yes")
    page.wait(lambda: page.text("#state") == "stopped")
    running.wait(lambda: arm(0) == "", "it has ended")
    page.press_text(".named", "Keep")
    page.press(".asking .yes")
    page.wait(lambda: "is configured as the arm challenger" in page.text("#done"))
    assert running.ask("GET", "/placements/console-tested")[1]["configuration"]["num_results"] == 2
    assert page.problems() == []


@pytest.mark.any_broker
def test_a_question_with_rules_shows_its_stages(running: Stack, console: Open) -> None:
    """What a filter takes out is not there; times by stage; the same as calls of programs."""
    a, b, *_ = seen_together(running, "staged")
    page = console("try")
    page.wait(lambda: page.text("#ask"))
    page.type(".question input", "console-staged")
    page.type(".question label:nth-of-type(4) input", a)
    page.press("#rules summary")
    page.type("#rules label:nth-of-type(4) input", b)
    page.press("#ask")
    page.wait(lambda: page.text(".answer li"))

    assert b not in shown(page, ".answer")
    stages = page.text("#stages")
    assert "read the state" in stages
    assert "the way there and back" in stages
    assert f"exclude={b}" in page.text("pre")
    assert "campaign/default" in page.text(".halves section:nth-child(2)")
    assert page.problems() == []


def test_workers_and_sources_are_named(running: Stack, console: Open) -> None:
    """The overview has each worker with its partitions, an item its trend by horizon."""
    item = seen_together(running, "named")[0]
    page = console("overview")
    page.wait(lambda: re.search(r"clicks 0.\d", page.text("#workers")))
    page.wait(lambda: page.text("#kept-levels"))
    rates = running.ask("GET", f"/items/{item}")[1]["rates"]
    assert set(rates) == {"hour", "day", "week", "month"}
    assert all(rate > 0 for rate in rates.values())
    put = {"items": [{"itemId": item, "properties": {"NAME": "Named lamp"}}]}
    await_effect(running, running.ask("PUT", "/items", put)[1]["after"])
    page = console("items")
    page.wait(lambda: page.text(".found li"))
    page.find("form input").send_keys("named lamp", Keys.ENTER)
    page.wait(lambda: page.text("#found-title") == "1 item")
    page.press(".found button")
    page.wait(lambda: page.text("#trend dl").split()[::2] == ["month", "week", "day", "hour"])
    page = console("quality")
    page.wait(lambda: page.text("#sources-title"))
    assert page.problems() == []


@pytest.mark.any_broker
def test_filters_and_segments_are_saved(running: Stack, console: Open) -> None:
    """Questions and rules name them; who is in a segment is shown; replacing and deleting ask."""
    put = {"users": [{"userId": "console-gold", "properties": {"TIER": "console"}}]}
    await_effect(running, running.ask("PUT", "/users", put)[1]["after"])
    page = console("placements")
    page.wait(lambda: page.text("#placements-title"))
    page.press("#named summary")
    filters, segments = "#named section:nth-child(1)", "#named section:nth-child(2)"
    page.type(f"{filters} label:nth-of-type(1) input", "console-cheap")
    page.type(f"{filters} label:nth-of-type(2) input", "price<20")
    page.press_text(filters, "Save filter…")
    page.press_text(f"{filters} form", "Yes")
    page.wait(lambda: page.text("#named-done") == "console-cheap is saved.")
    page.type(f"{segments} label:nth-of-type(1) input", "console-gold")
    rule = 'INCLUDE UserID WHERE Users.TIER IN ("console")'
    page.type(f"{segments} label:nth-of-type(3) input", rule)
    page.press_text(segments, "Save segment…")
    page.press_text(f"{segments} form", "Yes")
    page.wait(lambda: page.text("#named-done") == "console-gold is saved.")

    _, saved = running.ask("GET", "/filters")
    assert "console-cheap" in [one["name"] for one in saved["filters"]]
    page.press_text(f"{segments} li", "Users")
    page.wait(lambda: page.text(f"{segments} li .note") == "console-gold")
    page.press_text(f"{filters} form", "Save filter…")
    assert "Replace console-cheap?" in page.text(f"{filters} form")
    page.press_text(f"{filters} form", "No")
    page.press_text(f"{segments} li", "Delete")
    page.press_text(f"{segments} li", "Yes")
    page.wait(lambda: page.text("#named-done") == "console-gold is deleted.")
    assert running.ask("GET", "/segments")[1]["segments"] == []
    assert page.problems() == []
