"""The shop's page under axe-core, in both themes and at the width of a phone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.e2e.shop_page import ShopPage, run_in_page, warm
from tests.personalize.other_clients import npm
from tests.servers import ROOT
from tests.stack import Stack

pytestmark = pytest.mark.slow

SERIOUS = {"serious", "critical"}


def axe() -> str:
    """The script of axe-core, of the version that `web/` locks."""
    packages = json.loads((ROOT / "web" / "package.json").read_text())["devDependencies"]
    version = packages["axe-core"]
    folder = npm(f"axe-core-{version}", [f"axe-core@{version}"])
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def violations(page: ShopPage) -> list[str]:
    """Serious violations of the page as it is shown now, with the first element of each."""
    page.wait(lambda: not page.browser.execute_script("return document.getAnimations().length"))
    found: list[dict[str, Any]] = run_in_page(page.browser, "return (await axe.run()).violations")
    return [
        f"{one['id']}: {one['nodes'][0]['html']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in SERIOUS
    ]


def test_no_serious_violation(running: Stack, browser: Chrome) -> None:
    """The list with reasons, the cart, and two shoppers, in light and dark, wide and narrow."""
    warm(running)
    script = axe()
    for width, theme in ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        features = [{"name": "prefers-color-scheme", "value": theme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page = ShopPage(browser, running.url)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_script(script)
        page.look(1)
        page.press(".viewed .main")
        page.await_effect()
        page.press("#for-you .card:nth-child(2) .reason")
        assert violations(page) == [], (width, theme)
        page.press("#compare")
        page.wait(lambda shown=page: shown.items("#right"))
        assert violations(page) == [], (width, theme)
