"""The shop and other pages in a browser: what tests read from them and do with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ops.simulated_shoppers import warm_up
from tests.stack import Stack

Open = Callable[[str], "Page"]
"""Opens a tab of the console by its name."""

PATIENCE_S = 30
EVENTS = 400
SHOWN = 12


def warm(stack: Stack) -> None:
    """Send the demo's catalogue and sessions to a stack."""
    warm_up(stack.url, events=EVENTS, seed=7, now_s=time.time(), say=print)


class Page:
    """A page of the API, opened in a browser by its path."""

    def __init__(self, browser: Chrome, url: str, path: str = "") -> None:
        self.browser = browser
        self.url = url
        # Whatever the page of the test before, whose server has ended, complains of until now.
        browser.get("about:blank")
        for log in ("browser", "performance"):
            browser.get_log(log)  # type: ignore[no-untyped-call]
        # A new visitor, on a screen of the usual size, whoever used the browser before.
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        storage = {"origin": url, "storageTypes": "local_storage"}
        browser.execute_cdp_cmd("Storage.clearDataForOrigin", storage)
        # What an earlier page had to say is no problem of this one.
        browser.get("about:blank")
        self.problems()
        browser.get(f"{url}/{path}")

    def wait(self, condition: Any) -> Any:
        """What a condition gives, once true; what the page replaces meanwhile is read anew."""
        wait = WebDriverWait(
            self.browser, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException]
        )
        return wait.until(lambda _: condition())

    def find(self, selector: str) -> WebElement:
        """The first element of a selector."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """Every element of a selector."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Text of an element; empty without one."""
        found = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return found[0].text if found else ""

    def press(self, selector: str) -> None:
        """Click on an element, once it is in view."""
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        """Put a text into a field in place of what it holds."""
        field = self.find(selector)
        self.browser.execute_script("arguments[0].select?.()", field)
        field.send_keys(text)

    def press_text(self, within: str, text: str) -> None:
        """Click on the first button within an element whose text begins so."""
        script = """
        const buttons = [...document.querySelectorAll(`${arguments[0]} button`)];
        return buttons.find(one => one.textContent.startsWith(arguments[1]))
        """
        button = self.wait(lambda: self.browser.execute_script(script, within, text))
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a field by its value."""
        script = """
        arguments[0].value = arguments[1];
        arguments[0].dispatchEvent(new Event("change", {bubbles: true}))
        """
        self.browser.execute_script(script, self.find(selector), value)

    def run_script(self, script: str) -> Any:
        """What a script gives in the page."""
        return self.browser.execute_script(script)

    def problems(self) -> list[str]:
        """Severe entries of the console, and requests to other places, since the last call."""
        console = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        sent = self.browser.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in sent]
        asked = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        own = (f"{self.url}/", "data:", "blob:", "chrome")
        severe = [entry["message"] for entry in console if entry["level"] == "SEVERE"]
        return [*severe, *(url for url in asked if not url.startswith(own))]


class ShopPage(Page):
    """The shop, with lists in it."""

    def __init__(self, browser: Chrome, url: str) -> None:
        super().__init__(browser, url)
        self.wait(lambda: len(self.items("#for-you")) == SHOWN)
        self.wait(lambda: bool(self.items("#trending")))

    def items(self, selector: str) -> list[str]:
        """Item ids of the cards below an element, in their order."""
        script = """
        const cards = document.querySelectorAll(`${arguments[0]} .card`);
        return [...cards].map(card => card.dataset.item)
        """
        found: list[str] = self.browser.execute_script(script, selector)
        return found

    def answer_events(self, status: int, body: str) -> None:
        """Have POST /events of the page answered with this status and JSON, and nothing sent."""
        script = """
        const [status, body] = arguments, sent = fetch;
        fetch = async (url, init) => init?.method === "POST" && url.endsWith("/events")
          ? new Response(body, {status})
          : sent(url, init)
        """
        self.browser.execute_script(script, status, body)

    def look(self, place: int, row: str = "#for-you") -> str:
        """Click on a card by its place from 1, and wait for the effect; gives its item id."""
        item = self.items(row)[place - 1]
        self.press(f"{row} .card:nth-child({place}) .look")
        self.await_effect()
        return item

    def await_effect(self) -> None:
        """Wait until the strip says that the last event is visible."""
        self.wait(lambda: self.find("#visible.done").text)
        self.wait(lambda: not self.browser.execute_script(ANIMATED))

    def log_in(self, name: str, form: str = "header .who") -> None:
        """Log in with the form."""
        self.find(f"{form} input").send_keys(name)
        self.press(f"{form} button")
        self.wait(lambda: self.text(f"{form} .user") == name)
        self.await_effect()


def run_in_page(browser: Chrome, script: str, *arguments: object) -> Any:
    """What the body of an asynchronous function gives in the page; `a` are its arguments."""
    wrapped = (
        "const a = [...arguments], done = a.pop();"
        f"(async () => {{{script}}})().then(done, error => done(`failed: ${{error}}`))"
    )
    return browser.execute_async_script(wrapped, *arguments)


ANIMATED = """
return document.getAnimations().some(one => one.playState === "running" && !one.animationName)
"""
"""True while cards are on their way."""
