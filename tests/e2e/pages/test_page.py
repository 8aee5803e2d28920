"""The demo, and its shop's page in a real browser."""

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
import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.pages.shop_page import ShopPage, warm
from tests.servers import ROOT
from tests.stack import Stack
from tests.streams.forwarding.personalize_stub import PersonalizeStub


@pytest.fixture(scope="module")
def shop(running: Stack) -> Stack:
    """A running stack with the demo's catalogue and shoppers."""
    warm(running)
    return running


@pytest.fixture
def page(shop: Stack, shared_browser: Chrome) -> ShopPage:
    """The page of a new visitor."""
    return ShopPage(shared_browser, shop.url)


def texts(browser: Chrome, selector: str) -> list[str]:
    """Texts of the elements of a list."""
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def test_click_changes_two_rows_and_shows_its_way(page: ShopPage) -> None:
    """A click changes the list, brings a row of its own, and its way is shown with its times."""
    before = page.items("#for-you")

    item = page.look(2)

    after = page.items("#for-you")
    assert after != before
    page.wait(lambda: page.items("#because"))
    assert item not in page.items("#because")
    assert page.find(f"#for-you [data-item={after[0]}] .reason").text.startswith("Because you")
    assert page.text("#viewed-title") in page.text(".strip .what")
    times = {name: page.text(f"#{name} b") for name in ("accepted", "applied", "visible")}
    assert all(re.fullmatch(r"[0-9.]+ ms", text) for text in times.values()), times
    assert re.search(r"clicks, partition \d+, offset \d+", page.text("#kafka"))
    n_moved = len(page.browser.find_elements(By.CSS_SELECTOR, "#for-you .moved"))
    assert f"visible: {n_moved} of 12 cards moved" in page.text("#visible")
    assert n_moved > 0
    assert page.text("#error") == ""
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_every_reason_adds_up(page: ShopPage) -> None:
    """A card shows the shares of its reasons on demand; they add up to the whole."""
    page.look(1)
    page.press("#for-you .card:nth-child(1) .reason")

    shares = texts(page.browser, "#for-you .card:nth-child(1) .shares b")

    assert 98 <= sum(int(share.removesuffix(" %")) for share in shares) <= 102
    page.press("#for-you .card:nth-child(1) .reason")
    assert texts(page.browser, ".shares") == []


@pytest.mark.any_broker
def test_page_works_by_keyboard(page: ShopPage) -> None:
    """Enter on a card is a click; the focus stays in the list, though the card leaves it."""
    page.browser.execute_script("document.querySelector('#for-you .card .look').focus()")
    item = page.items("#for-you")[0]
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.await_effect()

    focused = page.browser.switch_to.active_element

    assert item not in page.items("#for-you")
    place = page.browser.execute_script(
        "return [...document.querySelectorAll('#for-you .look')].indexOf(arguments[0])", focused
    )
    assert place == 0
    focused.send_keys(Keys.TAB)
    page.browser.switch_to.active_element.send_keys(Keys.SPACE)
    assert page.wait(lambda: page.text("#for-you .shares"))


@pytest.mark.any_broker
@pytest.mark.slow
def test_every_control_is_reached_by_tab(page: ShopPage) -> None:
    """From the first to the last control of the page, in its order, and each is seen."""
    script = """
    const all = [...document.querySelectorAll("a, button, input")].filter(e => e.checkVisibility());
    return [all.length, all.indexOf(document.activeElement)]
    """
    page.browser.execute_script("document.querySelector('.search input').focus()")
    n, first = page.browser.execute_script(script)
    seen = [first]
    while seen[-1] < n - 1 and len(seen) <= n:
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        _, place = page.browser.execute_script(script)
        seen.append(place)
    assert seen == list(range(first, n))


@pytest.mark.any_broker
@pytest.mark.slow
def test_page_claims_no_effect_that_it_has_not_seen(page: ShopPage) -> None:
    """An event without effect is shown as accepted only."""
    # A token of the future: its event never takes effect.
    page.answer_events(202, '{"accepted": 1, "eventIds": ["e"], "after": "c0-999999"}')

    page.press("#for-you .card:nth-child(1) .look")
    page.wait(lambda: "not in effect yet" in page.text("#error"))

    assert page.text("#accepted b")
    assert page.text("#applied b") == page.text("#visible b") == ""


@pytest.mark.any_broker
@pytest.mark.slow
def test_page_shows_errors_as_text(page: ShopPage) -> None:
    """The page shows the API's error texts, and never as HTML."""
    page.answer_events(400, '{"error": {"type": "invalid_event", "message": "<b>256</b>"}}')

    page.press("#for-you .card:nth-child(1) .look")

    page.wait(lambda: "<b>256</b>" in page.text("#error"))


def test_login_joins_the_session(shop: Stack, page: ShopPage) -> None:
    """What a visitor did counts for the user after login; logout begins anew."""
    item = page.look(3)
    page.log_in("joined-visitor")

    status, user = shop.ask("GET", "/users/joined-visitor")

    assert status == 200
    assert item in [event["itemId"] for event in user["events"]]
    assert "joined-visitor" in page.text("#for-you h2")
    page.press("header .who button")
    page.wait(lambda: page.text("#for-you h2") == "For you")
    assert page.items("#because") == []
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_cart_is_filled_and_bought(shop: Stack, page: ShopPage) -> None:
    """Adding brings what is bought together; removing takes it out; buying sends purchases."""
    page.log_in("cart-owner")
    first = page.look(1)
    page.press(".viewed .main")
    page.wait(lambda: page.items("#together"))
    second = page.look(2)
    page.press(".viewed .main")
    page.wait(lambda: len(texts(page.browser, ".cart li")) == 2)
    assert not {first, second} & set(page.items("#together"))
    page.press(".cart li:nth-child(2) button")
    page.wait(lambda: len(texts(page.browser, ".cart li")) == 1)
    page.wait(lambda: "Took out of the cart" in page.text(".strip .what"))
    page.await_effect()

    page.press("#buy")
    page.wait(lambda: page.text("#cart-title") == "Cart 0")
    page.await_effect()

    _, user = shop.ask("GET", "/users/cart-owner")
    done = {(event["eventType"], event["itemId"]) for event in user["events"]}
    assert {("cart", first), ("cart", second), ("purchase", first)} <= done
    assert ("purchase", second) not in done


@pytest.mark.any_broker
@pytest.mark.slow
def test_disliked_items_stay_away(shop: Stack, page: ShopPage) -> None:
    """What is not for a shopper leaves every row, and all later answers; the list stays full."""
    page.log_in("disliker")
    viewed = page.look(1)
    item = page.items("#because")[0]
    page.press(f"#because [data-item='{item}'] .hide")
    page.wait(lambda: item not in page.items("main"))
    page.await_effect()

    assert page.text(".strip .what").startswith("Not for you:")
    assert len(page.items("#for-you")) == 12
    answer = shop.ask("GET", "/recommend?user_id=disliker&num_results=100")[1]
    assert item not in [one["itemId"] for one in answer["items"]]
    asked = f"/similar/{viewed}?hide=disliked&user_id=disliker"
    assert item not in [one["itemId"] for one in shop.ask("GET", asked)[1]["items"]]
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_the_last_event_is_undone(shop: Stack, page: ShopPage) -> None:
    """A dislike is undone: the item may come again, and the shopper's events lack it."""
    page.log_in("undoer")
    page.look(1)
    item = page.items("#for-you")[0]
    page.press("#for-you .card:nth-child(1) .hide")
    page.await_effect()
    assert item not in page.items("#for-you")

    page.press(".strip .undo button")
    page.wait(lambda: page.text(".strip .what").startswith("Undone:"))
    page.await_effect()

    page.wait(lambda: item in page.items("main"))
    events = shop.ask("GET", "/users/undoer")[1]["events"]
    assert "dislike" not in {event["eventType"] for event in events}
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_every_card_says_why(page: ShopPage) -> None:
    """In words of its row; a card opens to the shares of its reasons."""
    page.look(2)
    page.press(".viewed .main")
    page.wait(lambda: page.items("#together") and page.items("#similar"))
    name = page.text("#viewed-title")
    for row, begins in (
        ("#because", f"Often looked at together with {name}"),
        ("#similar", f"Of the same kind as {name}"),
        ("#trending", "Wanted more and more right now"),
        ("#new", "New in the shop"),
        ("#together", f"Goes with {name} in your cart"),
    ):
        said = texts(page.browser, f"{row} .reason")
        assert len(said) == len(page.items(row)) > 0, row
        assert all(text.startswith(begins) for text in said), (row, said)
    assert page.text("#because h2") == f"Because you looked at {name}"
    assert not set(page.items("#because")) & set(page.items("#similar"))
    page.press("#together .card:nth-child(1) .reason")
    assert texts(page.browser, "#together .shares b") == ["100 %"]


@pytest.mark.any_broker
@pytest.mark.slow
def test_search_finds_items(page: ShopPage) -> None:
    """Words of names and descriptions find items, and an empty search nothing."""
    page.find(".search input").send_keys("kneads two kilos", Keys.ENTER)
    page.wait(lambda: page.items("#found") == ["stand-mixer"])
    page.find(".search input").clear()
    page.find(".search input").send_keys("no-such-thing", Keys.ENTER)
    page.wait(lambda: page.text("#found h2") == "Nothing found: no-such-thing")


@pytest.mark.any_broker
@pytest.mark.slow
def test_what_one_shopper_does_changes_the_list_of_another(page: ShopPage) -> None:
    """Both looked at an item; what one looks at next moves up for the other."""
    page.press("#compare")
    page.wait(lambda: len(page.items("#right")) == 12)
    assert page.items("#left") == page.items("#right")
    item = page.look(1, "#left")
    page.wait(lambda: item not in page.items("#left"))
    page.press(f"#right [data-item={item}] .look")
    page.wait(lambda: item not in page.items("#right"))
    before = page.wait(lambda: page.items("#right"))

    last = page.items("#left")[-1]
    page.press("#left .card:last-child .look")
    page.wait(lambda: page.items("#right") != before)

    after = page.items("#right")
    assert after.index(last) < (before.index(last) if last in before else len(before))
    # The strip is of who acted last.
    name = page.text("#right .card:first-child .name")
    page.press("#right .card:first-child .look")
    page.wait(lambda: page.text(".strip .what") == f"Looked at {name}")


@pytest.mark.any_broker
@pytest.mark.slow
def test_page_fits_a_phone(page: ShopPage) -> None:
    """At the width of a phone nothing is cut off, in both views."""
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.look(1)
    wide = """
    const outside = [...document.querySelectorAll("#app *")].filter(element => {
      const {left, right, width} = element.getBoundingClientRect();
      return width && (left < -1 || right > innerWidth + 1);
    });
    return [innerWidth, document.documentElement.scrollWidth, outside.length]
    """
    # Cards come from where they were on the wide screen.
    page.wait(lambda: page.browser.execute_script(wide) == [360, 360, 0])
    page.press("#compare")
    page.wait(lambda: page.items("#right"))
    page.wait(lambda: page.browser.execute_script(wide) == [360, 360, 0])


@pytest.mark.any_broker
@pytest.mark.slow
def test_theme_is_kept(page: ShopPage) -> None:
    """The chosen theme holds after the page is opened again."""
    shown = "return getComputedStyle(document.body).backgroundColor"
    light = page.browser.execute_script(shown)
    page.press("#theme")
    dark = page.browser.execute_script(shown)
    page.browser.refresh()
    page.wait(lambda: page.items("#for-you"))

    assert light != dark == page.browser.execute_script(shown)


@pytest.mark.any_broker
@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "console#events"])
def test_live_figures_come_back(
    stack: Callable[..., Stack], shared_browser: Chrome, path: str
) -> None:
    """After the API was killed and started again, shop and console go on by themselves."""
    one = stack()
    api = one.start("api")
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    shared_browser.get(f"{one.url}/{path}")
    wait = WebDriverWait(shared_browser, 60)
    wait.until(lambda _: texts(shared_browser, "#live.live"))
    if not path:
        wait.until(lambda _: "There are no items yet" in texts(shared_browser, "#for-you")[0])
    api.kill()
    lost = ["connection lost, trying again…"]
    wait.until(lambda _: texts(shared_browser, "#live.connecting") == lost)

    one.start("api")

    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready again")
    wait.until(lambda _: texts(shared_browser, "#live.live"))
    if path:
        wait.until(lambda _: texts(shared_browser, "#tail-state") == ["live"])


@pytest.mark.slow
def test_page_shows_forwarded_events(stack: Callable[..., Stack], shared_browser: Chrome) -> None:
    """With a forwarder, each tracker has a row with the counts of its ledger."""
    one = stack()
    one.start("api")
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    shared_browser.get(one.url)
    WebDriverWait(shared_browser, 30).until(lambda _: texts(shared_browser, "#live.live"))
    assert texts(shared_browser, "#forwarding") == []
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
        WebDriverWait(shared_browser, 90).until(
            lambda _: texts(shared_browser, "#trackers td") == row
        )
        assert shared_browser.find_element(By.ID, "forwarding").is_displayed()
        told = json.loads(one.run("status", "--json").stdout)["trackers"]["shop"]

    assert [told[name] for name in ("forwarded", "waiting", "refused")] == [2, 0, 1]
    assert shared_browser.find_element(By.ID, "error").text == ""


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
