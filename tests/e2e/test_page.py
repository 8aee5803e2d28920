"""The demo and the live page, in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import ROOT
from tests.stack import Stack
from tests.streams.forwarding.personalize_stub import PersonalizeStub


def texts(browser: Chrome, selector: str) -> list[str]:
    """Texts of the elements of a list."""
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def page_of_a_new_user(running: Stack, browser: Chrome) -> WebElement:
    """The page of a new user whose list shows an item that others follow."""
    for session in range(3):
        for item in ("garden-hose", "sprinkler", "flower-pot"):
            running.click(item, session=f"gardener-{session}")
    for passer_by in range(40):
        # More clicks than any other test on this stack sends, so that every user sees the item.
        after = running.click("garden-hose", session=f"passer-by-{passer_by}")
    running.recommend(f"after={after}")
    browser.get(running.url)

    def clickable(_: Chrome) -> WebElement | None:
        """The first item, once shown; until then, new users are requested."""
        found = browser.find_elements(By.CSS_SELECTOR, "#items [data-item=garden-hose]")
        if found:
            return found[0]
        browser.find_element(By.ID, "fresh").click()
        return None

    hose = WebDriverWait(browser, 30).until(clickable)
    assert hose
    return hose


def test_click_on_the_page_shows_the_proof(running: Stack, browser: Chrome) -> None:
    """Clicking an item shows the list before and after, and the milliseconds between."""
    wait = WebDriverWait(browser, 30)
    hose = page_of_a_new_user(running, browser)
    before = texts(browser, "#items .item")

    hose.click()
    wait.until(lambda _: browser.find_element(By.ID, "proof").is_displayed())

    assert int(browser.find_element(By.ID, "ms").text) >= 0
    assert texts(browser, "#before li") == before
    assert texts(browser, "#after li") != before
    assert browser.find_element(By.ID, "effect").text == "visible"
    assert "because of Garden hose" in browser.find_element(By.ID, "why").text
    assert texts(browser, "#after li")[0] in {"Sprinkler", "Flower pot"}
    assert texts(browser, "#after li") == texts(browser, "#items .item")
    assert "user-personalization" in browser.find_element(By.ID, "status").text
    assert browser.find_element(By.ID, "error").text == ""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


def test_page_works_by_keyboard(running: Stack, browser: Chrome) -> None:
    """Enter on an item is a click, and the focus stays in the changed list."""
    hose = page_of_a_new_user(running, browser)

    hose.send_keys(Keys.ENTER)
    WebDriverWait(browser, 30).until(lambda _: browser.find_element(By.ID, "proof").is_displayed())

    focused = browser.switch_to.active_element
    assert focused.text in texts(browser, "#items .item")


def test_page_claims_no_effect_that_it_has_not_seen(running: Stack, browser: Chrome) -> None:
    """An event without effect is shown as accepted only."""
    hose = page_of_a_new_user(running, browser)
    # A token of the future: its event never takes effect.
    browser.execute_script(
        "const sent = ask; ask = async (path, options) =>"
        " ({...await sent(path, options), ...(path === '/events' ? {after: 'c0-999999'} : {})})"
    )

    hose.click()
    error = browser.find_element(By.ID, "error")
    WebDriverWait(browser, 30).until(lambda _: "not in effect yet" in error.text)

    assert not browser.find_element(By.ID, "proof").is_displayed()


def test_page_shows_errors_as_text(running: Stack, browser: Chrome) -> None:
    """The page shows the API's error texts."""
    browser.get(running.url)
    WebDriverWait(browser, 30).until(lambda _: texts(browser, "#trending .item"))

    browser.execute_script("act('click', 'x'.repeat(300))")

    WebDriverWait(browser, 30).until(lambda _: "256" in browser.find_element(By.ID, "error").text)


def test_page_shows_forwarded_events(stack: Callable[..., Stack], browser: Chrome) -> None:
    """With a forwarder, each tracker has a row with the counts of its ledger."""
    one = stack()
    one.start("api")
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    browser.get(one.url)
    WebDriverWait(browser, 30).until(
        lambda _: browser.find_element(By.ID, "answered").text and texts(browser, "#forwarding")
    )
    assert not browser.find_element(By.ID, "forwarding").is_displayed()
    for item in ("tent", "stove", "bad"):
        one.click(item)
    with PersonalizeStub() as stub:
        stub.refuse = lambda event: "no such item" if event["itemId"] == "bad" else None
        one.start(
            "forward",
            RECOMMENDER_FORWARD_TRACKING_ID="real-tracker",
            AWS_ENDPOINT_URL_PERSONALIZE_EVENTS=stub.url,
            AWS_ACCESS_KEY_ID="key",
            AWS_SECRET_ACCESS_KEY="secret",
        )
        row = ["shop", "2", "0", "1"]
        WebDriverWait(browser, 90).until(lambda _: texts(browser, "#trackers td") == row)
        assert browser.find_element(By.ID, "forwarding").is_displayed()
        told = json.loads(one.run("status", "--json").stdout)["trackers"]["shop"]

    assert [told[name] for name in ("forwarded", "waiting", "refused")] == [2, 0, 1]
    assert browser.find_element(By.ID, "error").text == ""


def test_demo_once(tmp_path: Path) -> None:
    """`demo --once --json` prints JSON, and leaves neither process nor file."""
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("RECOMMENDER_")
    }
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "demo", "--once", "--json", "--port", "0"],
        cwd=tmp_path, env=bare | {"PYTHONPATH": str(ROOT)}, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as started:  # fmt: skip
        try:
            output, said = started.communicate(timeout=600)
        finally:
            started.terminate()

    assert started.returncode == 0, said
    proof = json.loads(output)
    assert len(output.splitlines()) == 1
    assert proof["changed"] is True
    assert proof["click"] in proof["before"]
    assert proof["before"] != proof["after"]
    assert 0 < proof["accepted_to_visible_ms"] < 5000
    assert list(tmp_path.iterdir()) == []
    pids = [int(pid) for pid in re.findall(r"\(pid (\d+)\)", said)]
    assert len(pids) == 5
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert of_session(started.pid) == []


def of_session(leader: int) -> list[int]:
    """Running processes of a session."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found
