"""A real browser for tests of pages, and stacks on servers that accept broken batches."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.e2e.pages.shop_page import Open, Page
from tests.servers import unavailable
from tests.stack import Servers, Stack, deployment_as_before, make_stacks

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1000,900",
)  # fmt: skip


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Headless Chromium with a profile of its own."""
    with started_browser(tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that the tests of a process share: to start one takes seconds."""
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@contextlib.contextmanager
def started_browser(folder: Path) -> Iterator[Chrome]:
    """Headless Chromium with a profile in a folder."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        unavailable("chromium and chromedriver are needed for the page")
        raise AssertionError
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = Chrome(options=options, service=ChromeService(driver))
    yield started
    started.quit()


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


@pytest.fixture
def embedded_stack(embedded: Servers, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks on them with topics of their own; ends their processes after the test."""
    with deployment_as_before(embedded), make_stacks(embedded, tmp_path) as make:
        yield make
