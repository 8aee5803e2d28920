"""The console in a real browser."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.e2e.shop_page import Page
from tests.stack import Stack

Open = Callable[[str], Page]


@pytest.fixture
def console(running: Stack, shared_browser: Chrome) -> Open:
    """Opens a tab of the console."""

    def opened(tab: str) -> Page:
        page = Page(shared_browser, running.url, f"console#{tab}")
        # Only the part behind # differs from what an earlier test has opened.
        shared_browser.refresh()
        page.wait(lambda: page.text("[aria-current]") == tab.capitalize())
        return page

    return opened


def test_overview_is_live(running: Stack, console: Open) -> None:
    """Counts and charts follow the events, and the routes that were asked for are listed."""
    page = console("overview")
    page.wait(lambda: page.text("#ready").startswith("Ready"))
    page.wait(lambda: re.match("[0-9]", page.text(".tile dd")))
    before = int(page.text(".tile dd").replace(",", ""))

    running.click("console-tent")

    page.wait(lambda: int(page.text(".tile dd").replace(",", "")) == before + 1)
    page.wait(lambda: re.fullmatch(r"[0-9.]+ s", page.text("#age b")))
    page.wait(lambda: "/readyz" in page.text("#requests tbody"))
    assert page.problems() == []


@pytest.mark.slow
def test_a_question_is_tried(running: Stack, console: Open) -> None:
    """The answer with its reasons and time, and a curl command that gives the same."""
    running.click("console-tent", session="one")
    running.click("console-stove", session="one")
    after = running.click("console-tent", user="console-ada", session="ada")
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "all are in effect"
    )
    page = console("try")
    page.wait(lambda: page.text("#ask"))
    page.find(".question input").send_keys("console-ada")
    page.press("#ask")
    page.wait(lambda: page.text(".answer li"))

    assert "console-stove" in page.text(".answer")
    assert "Because you looked at Console tent" in page.text(".answer")
    assert re.fullmatch(r"[0-9.]+ ms", page.text("#took"))
    assert "get_recommendations" in page.text(".halves section:nth-child(2)")
    command = page.text("pre")
    told = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    shown = page.browser.execute_script(
        "return [...document.querySelectorAll('.answer li')].map(one => one.dataset.item)"
    )
    assert [item["itemId"] for item in json.loads(told.stdout)["items"]][:1] == shown[:1]


@pytest.mark.slow
def test_an_item_is_found_and_changed(running: Stack, console: Open) -> None:
    """Search, counts, neighbours; changed properties are saved, and wrong ones refused."""
    put = {"items": [{"itemId": "console-lamp", "properties": {"NAME": "Console lamp"}}]}
    _, answer = running.ask("PUT", "/items", put)
    after = f"{answer['after']}.{running.click('console-lamp')}"
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "all are in effect"
    )
    page = console("items")
    page.wait(lambda: page.text(".found li"))
    page.find("form input").send_keys("console lamp", Keys.ENTER)
    page.wait(lambda: page.text("#found-title") == "1 items")
    page.press(".found button")
    page.wait(lambda: page.text("#events") == "1")

    page.run_script("document.querySelector('#properties').select()")
    page.find("#properties").send_keys('{"NAME": "Brighter lamp"}')
    page.press("#save")
    page.wait(lambda: "saved" in page.text("#done"))

    _, told = running.ask("GET", "/items/console-lamp")
    assert told["properties"] == {"NAME": "Brighter lamp"}
    assert "Brighter lamp" in page.text("#item-title")
    page.run_script("document.querySelector('#properties').select()")
    page.find("#properties").send_keys('{"NAME": ["no list"]}')
    page.press("#save")
    page.wait(lambda: "properties" in page.text(".detail .error"))


@pytest.mark.slow
def test_a_user_is_shown_and_erased(running: Stack, console: Open) -> None:
    """History and answers of a user; erasing asks first, and says what it did."""
    after = running.click("console-tent", user="console-leaving", session="leaving")
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "it is in effect"
    )
    page = console("users")
    page.wait(lambda: page.browser.find_elements(By.CSS_SELECTOR, "form.line input"))
    page.find("form.line input").send_keys("console-leaving", Keys.ENTER)
    page.wait(lambda: "console-tent" in page.text("#history"))
    page.press("p.line button")
    page.press(".asking button:last-child")
    assert page.text("#count") == "1"

    page.press("p.line button")
    page.press(".asking .danger")
    page.wait(lambda: "1 events" in page.text("#done"))

    page.wait(lambda: page.text("#history") == "")
    assert running.ask("GET", "/users/console-leaving")[1]["events"] == []


@pytest.mark.slow
def test_an_event_is_sent_and_followed(running: Stack, console: Open) -> None:
    """Its place in Kafka, and that it is in effect; a wrong token is an error in words."""
    page = console("events")
    fields = page.browser.find_elements(By.CSS_SELECTOR, "#send input")
    fields[1].send_keys("console-tent")
    fields[2].send_keys("console-sender")
    page.press("#send button")
    page.wait(lambda: page.text("#followed tbody tr"))
    assert re.match(
        r"clicks \d+ \d+ [0-9.]+ ms (yes, waited|not yet)", page.text("#followed tbody tr")
    )
    running.wait(
        lambda: bool(running.ask("GET", "/users/console-sender")[1]["events"]), "it is in effect"
    )

    page.find("#follow input").clear()
    page.find("#follow input").send_keys("nonsense", Keys.ENTER)
    page.wait(lambda: "not a part of a token" in page.text("#error"))
