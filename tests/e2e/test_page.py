"""The demo and the live page, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.servers import ROOT, unavailable
from tests.stack import Stack

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1000,900",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium with a profile of its own."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        unavailable("chromium and chromedriver are needed for the page")
        raise AssertionError
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    started = Chrome(options=options, service=ChromeService(driver))
    yield started
    started.quit()


def texts(browser: Chrome, selector: str) -> list[str]:
    """What the elements of a list say."""
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_click_on_the_page_shows_the_proof(running: Stack, browser: Chrome) -> None:
    """Clicking an item shows the list before and after, and the milliseconds between."""
    for session in range(3):
        for item in ("garden-hose", "sprinkler", "flower-pot"):
            after = running.click(item, session=f"gardener-{session}")
    running.recommend(f"after={after}")
    wait = WebDriverWait(browser, 30)
    browser.get(running.url)

    def clickable(_: Chrome) -> WebElement | None:
        """The first item, once it is shown; somebody new is asked for until then."""
        found = browser.find_elements(By.CSS_SELECTOR, "#items [data-item=garden-hose]")
        if found:
            return found[0]
        browser.find_element(By.ID, "fresh").click()
        return None

    hose = wait.until(clickable)
    assert hose
    before = texts(browser, "#items .item")

    hose.click()
    wait.until(lambda _: browser.find_element(By.ID, "proof").is_displayed())

    assert int(browser.find_element(By.ID, "ms").text) >= 0
    assert texts(browser, "#before li") == before
    assert texts(browser, "#after li")[0] in {"Sprinkler", "Flower pot"}
    assert texts(browser, "#after li") == texts(browser, "#items .item")
    assert "user-personalization" in browser.find_element(By.ID, "status").text
    assert browser.find_element(By.ID, "error").text == ""
    log = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []


def test_page_shows_errors_as_text(running: Stack, browser: Chrome) -> None:
    """What the API refuses is shown in its words."""
    browser.get(running.url)
    WebDriverWait(browser, 30).until(lambda _: texts(browser, "#trending .item"))

    browser.execute_script("act('click', 'x'.repeat(300))")

    WebDriverWait(browser, 30).until(lambda _: "256" in browser.find_element(By.ID, "error").text)


def test_demo_once(tmp_path: Path) -> None:
    """`demo --once --json` prints the proof as one JSON object and leaves no process."""
    bare = {
        name: value for name, value in os.environ.items() if not name.startswith("RECOMMENDER_")
    }
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "demo", "--once", "--json", "--port", "0"],
        cwd=tmp_path, env=bare | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    proof = json.loads(ended.stdout)
    assert proof["changed"] is True
    assert proof["click"] in proof["before"]
    assert proof["before"] != proof["after"]
    assert 0 < proof["accepted_to_visible_ms"] < 5000
    assert list(tmp_path.iterdir()) == []
    pids = [
        int(line.split("pid ")[1].rstrip(")"))
        for line in ended.stderr.splitlines()
        if "pid " in line
    ]
    assert len(pids) == 4
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
