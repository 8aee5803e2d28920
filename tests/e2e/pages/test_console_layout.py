"""The console at the width of a phone, by keyboard alone, and in both themes: every tab."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.keys import Keys

from tests.e2e.pages.shop_page import Open, Page
from tests.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.any_broker]

WIDE = """
const main = document.querySelector("main");
const scrolls = element => element.closest(".wide, pre, nav");
const outside = [...main.querySelectorAll("*")].filter(element => {
  const {left, right, width} = element.getBoundingClientRect();
  return width && !scrolls(element) && (left < -1 || right > innerWidth + 1);
});
return [document.documentElement.scrollWidth, outside.map(one => one.outerHTML.slice(0, 200))]
"""
"""Width of the page, and elements that are cut off, but in parts that scroll by themselves."""

FOCUSABLE = """
const kinds = "a, button, input, select, textarea, summary, [tabindex]";
const all = [...document.querySelectorAll(kinds)]
  .filter(one => one.checkVisibility() && !one.disabled);
return [all.length, all.indexOf(document.activeElement)]
"""


def tabs(page: Page) -> list[str]:
    """Names of all tabs."""
    script = "return [...document.querySelectorAll('nav a')].map(one => one.hash.slice(1))"
    found: list[str] = page.run_script(script)
    return found


def test_every_tab_fits_a_phone(running: Stack, console: Open) -> None:
    """Nothing is cut off at 360 pixels; wide tables scroll by themselves."""
    running.click("narrow", user="narrow", session="narrow")
    rule = {"name": "narrow", "boost": [{"filter": "price<20", "factor": 2}]}
    running.ask("PUT", "/placements/narrow", {"rules": [rule], "caption": "A rather long caption"})
    page = console("overview")
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for tab in tabs(page):
        page.run_script(f"location.hash = '{tab}'")
        page.wait(lambda tab=tab: page.all(f"main#{tab} > *"))
        if tab == "placements":
            page.press_text(".choices", "narrow")
            page.press(".rule summary")
        page.wait(lambda: page.run_script(WIDE) == [360, []])


@pytest.mark.parametrize("tab", ["placements", "experiments", "try"])
def test_every_control_is_reached_by_tab(running: Stack, console: Open, tab: str) -> None:
    """From the first to the last control of a tab with forms, in its order, and each is seen."""
    running.ask("PUT", "/placements/reached", {"num_results": 3})
    page = console(tab)
    page.wait(lambda: page.all("main input"))
    if tab != "try":
        page.wait(lambda: "reached" in page.text("main"))
    if tab == "placements":
        page.type("#new input", "by-keyboard")
        page.find("#new input").send_keys(Keys.ENTER)
        page.wait(lambda: page.all("#add-rule"))
        page.run_script("document.querySelector('#add-rule').focus()")
        page.browser.switch_to.active_element.send_keys(Keys.ENTER)
        dates = ".rule[open] [type=datetime-local], #preview [type=datetime-local]"
        page.wait(lambda: len(page.all(dates)) == 3)
        # A field of a date has parts that the keyboard goes through one by one.
        page.run_script(f"document.querySelectorAll('{dates}').forEach(one => one.type = 'text')")
    page.run_script("document.querySelector('nav a').focus()")
    n, first = page.run_script(FOCUSABLE)
    seen = [first]
    while seen[-1] < n - 1 and len(seen) <= n:
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(page.run_script(FOCUSABLE)[1])
    assert seen == list(range(first, n))
    assert page.problems() == []


def test_theme_is_kept(console: Open) -> None:
    """Chosen in the console, it holds after the page is opened again."""
    shown = "return getComputedStyle(document.body).backgroundColor"
    page = console("outcomes")
    light = page.run_script(shown)
    page.press("#theme")
    dark = page.run_script(shown)
    page.browser.refresh()
    page.wait(lambda: page.all("main#outcomes > *"))

    assert light != dark == page.run_script(shown)
