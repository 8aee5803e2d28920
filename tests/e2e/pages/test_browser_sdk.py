"""The browser SDK in a real browser: on the API's own page, and on a page of another origin."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.pages.shop_page import run_in_page
from tests.servers import ROOT
from tests.stack import Stack

IMPORT = "const {Recommender} = await import('/static/recommender.js');"
SPIED = """
const sent = fetch, bodies = [];
window.fetch = (url, init) => {
  if (init?.body) bodies.push(JSON.parse(init.body));
  return sent(url, init);
};
"""
"""Notes the bodies that are sent."""


NAMES = """
return [...document.querySelectorAll("recommended-items strong")].map(name => name.textContent)
"""
"""Names on the cards of a row."""


@pytest.fixture
def on_page(running: Stack, shared_browser: Chrome) -> Callable[..., Any]:
    """Runs the body of an asynchronous function, which has the SDK, in a page of the API."""
    shared_browser.get(f"{running.url}/docs")

    def run(script: str, *arguments: object) -> Any:
        found = run_in_page(shared_browser, IMPORT + script, *arguments)
        assert not str(found).startswith("failed:"), found
        return found

    return run


def events_of(stack: Stack, user: str) -> list[str]:
    """Item ids of a user's events, the oldest first."""
    status, told = stack.ask("GET", f"/users/{user}?num_results=100")
    assert status == 200, told
    return [event["itemId"] for event in reversed(told["events"])]


def test_events_go_in_batches(running: Stack, on_page: Callable[..., Any]) -> None:
    """Twelve events take two requests; each event has its id, and each promise its receipt."""
    sizes, receipts = on_page(
        SPIED
        + """
        const client = new Recommender({userId: "sdk-batch"});
        const names = [...Array(12).keys()].map(n => `sdk-${n}`);
        const receipts = await Promise.all(names.map(name => client.track("click", name)));
        return [bodies.map(body => body.eventList.length), receipts]
        """
    )

    assert sizes == [10, 2]
    assert len({receipt["eventId"] for receipt in receipts}) == 12
    after = receipts[-1]["after"]
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "all are in effect"
    )
    assert events_of(running, "sdk-batch") == [f"sdk-{n}" for n in range(12)]


@pytest.mark.any_broker
@pytest.mark.slow
def test_a_bad_event_is_refused_alone(on_page: Callable[..., Any]) -> None:
    """The others of its batch are accepted."""
    outcomes = on_page("""
        const client = new Recommender({userId: "sdk-bad"});
        const types = ["click", "", "click"];
        const sent = types.map((type, place) => client.track(type, `sdk-${place}`));
        const ended = await Promise.allSettled(sent);
        return ended.map(one => one.status === "fulfilled" ? "sent" : one.reason.type)
    """)

    assert outcomes == ["sent", "invalid_event", "sent"]


@pytest.mark.any_broker
def test_events_wait_until_the_api_is_reached(running: Stack, on_page: Callable[..., Any]) -> None:
    """They are kept in the browser's storage, also for the next page, and count once."""
    kept, left = on_page("""
        const sent = fetch;
        window.fetch = () => Promise.reject(new TypeError("offline"));
        const client = new Recommender({storage: "away", userId: "sdk-away"});
        client.track("click", "sdk-a");
        client.track("click", "sdk-b");
        await client.flush();
        const kept = JSON.parse(localStorage.getItem("away.queue")).length;
        window.fetch = sent;
        // A second client stands for the next page, and sends the same.
        const next = new Recommender({storage: "away"});
        dispatchEvent(new Event("online"));
        await Promise.all([client.flush(), next.flush()]);
        return [kept, localStorage.getItem("away.queue")]
    """)

    assert (kept, left) == (2, None)
    running.wait(lambda: len(events_of(running, "sdk-away")) >= 2, "both are in effect")
    running.recommend(f"after={running.click('sdk-a', user='sdk-away', session='later')}")
    assert sorted(events_of(running, "sdk-away")) == ["sdk-a", "sdk-a", "sdk-b"]


@pytest.mark.any_broker
@pytest.mark.slow
def test_leaving_the_page_loses_nothing(running: Stack, on_page: Callable[..., Any]) -> None:
    """What waits for its batch goes by a beacon."""
    on_page("""
        const client = new Recommender({userId: "sdk-leaving"});
        client.track("click", "sdk-last");
        setTimeout(() => { location.href = "about:blank" }, 0)
    """)

    running.wait(lambda: events_of(running, "sdk-leaving") == ["sdk-last"], "the beacon arrived")


@pytest.mark.any_broker
def test_without_consent_nothing_is_sent_or_kept(on_page: Callable[..., Any]) -> None:
    """Lists are asked for without profiling, and what was kept is removed."""
    told = on_page("""
        const asked = [], sent = fetch;
        window.fetch = (url, init) => {
          asked.push(url + init?.body);
          return sent(url, init);
        };
        const client = new Recommender({storage: "asked", userId: "sdk-private"});
        const session = client.sessionId;
        const before = Object.keys(localStorage).filter(name => name.startsWith("asked."));
        client.consent(false);
        const refused = await client.track("click", "sdk-a").catch(error => error.type);
        await client.recommend({item_id: "sdk-a"});
        await client.rank(["sdk-a"]);
        const after = Object.keys(localStorage).filter(name => name.startsWith("asked."));
        return [before, refused, after, asked, session]
    """)
    before, refused, after, asked, session = told

    assert (before, refused, after) == (["asked.session"], "no_consent", [])
    assert len(asked) == 2
    assert all("profiling=off" in one for one in asked)
    assert not any("sdk-private" in one or session in one for one in asked)


@pytest.mark.any_broker
@pytest.mark.slow
def test_sessions_end_at_logout(on_page: Callable[..., Any]) -> None:
    """A session goes on from page to page and over a login, and not over a logout."""
    first, again, logged_in, after = on_page("""
        const client = new Recommender({storage: "visit"});
        const first = client.sessionId;
        const again = new Recommender({storage: "visit"}).sessionId;
        client.identify("sdk-user");
        const loggedIn = client.sessionId;
        client.identify(null);
        return [first, again, loggedIn, client.sessionId]
    """)

    assert first == again == logged_in != after


def test_clicks_say_which_list_they_follow_and_what_was_seen(
    running: Stack, on_page: Callable[..., Any]
) -> None:
    """An event has the id of the list that showed its item, and the items that were in view."""
    running.recommend(f"after={running.click('sdk-seen')}")
    list_id, seen, hidden, event = on_page(
        SPIED
        + """
        const client = new Recommender({userId: "sdk-seeing"});
        const answer = await client.popular({num_results: 2});
        const [seen, hidden] = ["seen", "hidden"].map((name, place) => {
          const box = document.createElement("p");
          box.style = "position: fixed; left: 0; width: 9px; height: 9px";
          box.style.top = place ? "-99px" : "0";
          document.body.append(box);
          client.observe(box, name, answer.recommendationId);
          return name;
        });
        await new Promise(resolve => setTimeout(resolve, 1500));
        await client.track("click", answer.items[0].itemId, {now: true});
        return [answer.recommendationId, seen, hidden, bodies.at(-1).eventList[0]]
        """
    )

    assert event["recommendationId"] == list_id
    assert event["impression"] == [seen]
    assert hidden not in event["impression"]


@pytest.fixture
def other_origin(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a server of another origin, and the folder that it serves."""
    handler = functools.partial(_Silent, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()
        thread.join()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.any_broker
@pytest.mark.slow
def test_the_example_page_works(
    stack: Callable[..., Stack], other_origin: tuple[str, Path], shared_browser: Chrome
) -> None:
    """On another origin a row has the page's cards, and follows a click until consent ends."""
    origin, folder = other_origin
    one = stack(cors_origins=[origin], cache_s=0)
    one.start("worker")
    one.start("api")
    one.wait_ready()
    for session in range(3):
        for item in ("two-person-tent", "sleeping-bag"):
            after = one.click(item, session=f"camper-{session}")
    one.recommend(f"after={after}")
    text = (ROOT / "docs" / "examples" / "recommended-items.html").read_text()
    assert "http://localhost:8080/static/" in text
    (folder / "index.html").write_text(text.replace("http://localhost:8080", one.url))
    shared_browser.get(origin)

    def cards() -> list[str]:
        """Names on the cards."""
        names: list[str] = shared_browser.execute_script(NAMES)
        return names

    wait = WebDriverWait(shared_browser, 60)
    wait.until(lambda _: "Two-person tent" in cards())
    tent = "[data-item-id=two-person-tent]"
    assert "219 €" in shared_browser.find_element(By.CSS_SELECTOR, tent).text

    shared_browser.find_element(By.CSS_SELECTOR, tent).click()
    wait.until(lambda _: (shown := cards()) and "Two-person tent" not in shown)
    assert cards()[0] == "sleeping-bag"

    shared_browser.find_element(By.ID, "consent").click()
    wait.until(lambda _: "Two-person tent" in cards())
