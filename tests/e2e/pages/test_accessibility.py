"""The pages under axe-core, in both themes and at the width of a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.access.api_key_fixtures import keyed_api
from tests.e2e.pages.shop_page import Page, ShopPage, run_in_page, warm
from tests.personalize.clients.other_clients import npm
from tests.servers import ROOT
from tests.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.any_broker]

SERIOUS = {"serious", "critical"}


def axe() -> str:
    """The script of axe-core, of the version that `web/` locks."""
    packages = json.loads((ROOT / "web" / "package.json").read_text())["devDependencies"]
    version = packages["axe-core"]
    folder = npm(f"axe-core-{version}", [f"axe-core@{version}"])
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(page: Page) -> list[str]:
    """Serious violations of the page as it is shown now, with the first element of each."""
    page.wait(lambda: not page.browser.execute_script("return document.getAnimations().length"))
    found: list[dict[str, Any]] = run_in_page(page.browser, "return (await axe.run()).violations")
    return [
        f"{one['id']}: {one['nodes'][0]['html']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in SERIOUS
    ]


INPUTS = "main form:first-of-type input:not([type=checkbox])"

SCREENS = ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark"))


def set_screen(browser: Chrome, width: int, theme: str) -> None:
    """Set the width of the screen, and the system's theme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_no_serious_violation_in_the_shop(running: Stack, shared_browser: Chrome) -> None:
    """The list with reasons, the cart, and two shoppers, in light and dark, wide and narrow."""
    warm(running)
    script = axe()
    for width, theme in SCREENS:
        page = ShopPage(shared_browser, running.url)
        set_screen(shared_browser, width, theme)
        shared_browser.execute_script(script)
        page.look(1)
        page.press(".viewed .main")
        page.await_effect()
        page.press("#for-you .card:nth-child(2) .reason")
        assert violations(page) == [], (width, theme)
        page.press("#compare")
        page.wait(lambda shown=page: shown.items("#right"))
        assert violations(page) == [], (width, theme)


def test_no_serious_violation_in_the_console(running: Stack, shared_browser: Chrome) -> None:
    """Each tab, with an item, a user and an event in it."""
    script = axe()
    running.recommend(f"after={running.click('tent', user='ada')}")
    rule = {"boost": [{"filter": "price<20", "factor": 2}], "pin": [{"item_id": "tent", "slot": 1}]}
    running.ask("PUT", "/placements/accessible", {"rules": [rule]})
    page = Page(shared_browser, running.url, "console")
    shared_browser.execute_script(script)
    for width, theme in SCREENS:
        set_screen(shared_browser, width, theme)
        for tab, fields, button in (
            ("overview", [], ""),
            ("try", ["ada"], "#ask"),
            ("items", [], ""),
            ("users", ["ada"], "form.line button"),
            ("placements", [], ".choices button"),
            ("outcomes", [], ""),
            ("experiments", [], ".arm:nth-of-type(2) [name=own]"),
            ("events", [], ""),
            ("quality", [], ""),
            ("personalize", [], ""),
            ("access", [], ""),
            ("settings", [], ""),
        ):
            page.press(f"nav a[href='#{tab}']")
            page.wait(lambda tab=tab: page.all(f"main#{tab} > *"))
            for place, text in enumerate(fields):
                page.wait(lambda: page.all(INPUTS))[place].send_keys(text)
            if button:
                page.wait(lambda button=button: page.all(button))
                page.press(button)
                page.wait(lambda: page.all(".answer li, .rule, #add-rule"))
                page.run_script(
                    "document.querySelectorAll('.rule').forEach(one => one.open = true)"
                )
            assert violations(page) == [], (width, theme, tab)


def test_no_serious_violation_at_the_login(shared_browser: Chrome, tmp_path: Path) -> None:
    """The page that asks for a key, also after a wrong one."""
    script = axe()
    with keyed_api(tmp_path) as one:
        page = Page(shared_browser, f"http://localhost:{one.settings.port}", "console")
        for width, theme in SCREENS:
            set_screen(shared_browser, width, theme)
            page.find("[name=key]").send_keys("srk_wrong")
            page.find("[name=key]").send_keys(Keys.ENTER)
            page.wait(lambda: page.text("[role=alert]"))
            shared_browser.execute_script(script)
            assert violations(page) == [], (width, theme)
