"""The page of the API reference, in a real browser."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions as shown
from selenium.webdriver.support.ui import WebDriverWait

from tests.openapi_document import operations
from tests.stack import Stack

pytestmark = pytest.mark.any_broker


def requested(browser: Chrome, page: str) -> list[str]:
    """Addresses that a page has requested since the last call."""
    entries: list[dict[str, Any]] = browser.get_log("performance")  # type: ignore[no-untyped-call]
    messages = [json.loads(entry["message"])["message"] for entry in entries]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"]["documentURL"].startswith(page)
    ]


def _sent_and_answered(block: WebElement) -> WebElement | Literal[False]:
    """The answer of an operation; until there is one, its button is pressed.

    A page that is still being drawn may not notice the first time.
    """
    for answer in block.find_elements(By.CSS_SELECTOR, ".live-responses-table .response"):
        return answer
    for button in block.find_elements(By.CSS_SELECTOR, ".execute"):
        block.parent.execute_script("arguments[0].click()", button)
    return False


@pytest.mark.slow
def test_reference_shows_every_route_and_sends_a_request(running: Stack, browser: Chrome) -> None:
    """No other site is called, not even for a request."""
    wait = WebDriverWait(browser, 60)
    running.click("lamp")
    browser.get(running.url + "/docs")

    wait.until(shown.presence_of_element_located((By.ID, "operations-default-recommend")))
    named = {one.text for one in browser.find_elements(By.CSS_SELECTOR, ".opblock-summary-path")}
    assert {path for _, path, _ in operations()} == {name.replace("\u200b", "") for name in named}

    for operation, path in (("recommend", "/recommend"), ("put_events", "/events")):
        block = browser.find_element(By.ID, f"operations-default-{operation}")
        block.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
        status = (
            WebDriverWait(block, 60, poll_frequency=3).until(_sent_and_answered).text.split()[0]
        )
        assert status in {"200", "202"}
        asked = requested(browser, running.url + "/docs")
        assert [url for url in asked if url.startswith(running.url + path)]
        served = (running.url + "/", "data:", "blob:")
        assert [url for url in asked if not url.startswith(served)] == []

    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []
