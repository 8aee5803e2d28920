"""The console in a real browser."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from kafka import KafkaProducer
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from streams.kafka.topics import Topics
from tests.e2e.pages.shop_page import Open, Page
from tests.stack import Stack


def test_overview_is_live(running: Stack, console: Open) -> None:
    """Counts and charts follow the events, and the routes that were asked for are listed."""
    page = console("overview")
    page.wait(lambda: page.text("#ready").startswith("Ready"))
    page.wait(lambda: re.match("[0-9]", page.text(".tile dd")))
    before = int(page.text(".tile dd").replace(",", ""))

    running.click("console-tent")

    page.wait(lambda: int(page.text(".tile dd").replace(",", "")) == before + 1)
    page.wait(lambda: re.fullmatch(r"[0-9.]+ s", page.text("#age b")))
    page.wait(lambda: "/readyz" in page.text("#requests tbody"))
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_a_question_is_tried(running: Stack, console: Open) -> None:
    """The answer with its reasons and time, and a curl command that gives the same."""
    running.click("console-tent", session="one")
    running.click("console-stove", session="one")
    after = running.click("console-tent", user="console-ada", session="ada")
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "all are in effect"
    )
    page = console("try")
    page.wait(lambda: page.text("#ask"))
    page.find(".question input").send_keys("console-ada")
    page.press("#ask")
    page.wait(lambda: page.text(".answer li"))

    assert "console-stove" in page.text(".answer")
    assert "Because you looked at Console tent" in page.text(".answer")
    assert re.fullmatch(r"[0-9.]+ ms", page.text("#took"))
    assert "get_recommendations" in page.text(".halves section:nth-child(2)")
    command = page.text("pre")
    told = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, check=True)
    shown = page.browser.execute_script(
        "return [...document.querySelectorAll('.answer li')].map(one => one.dataset.item)"
    )
    assert [item["itemId"] for item in json.loads(told.stdout)["items"]][:1] == shown[:1]


@pytest.mark.any_broker
@pytest.mark.slow
def test_an_item_is_found_and_changed(running: Stack, console: Open) -> None:
    """Search, counts, neighbours; changed properties are saved, and wrong ones refused."""
    put = {"items": [{"itemId": "console-lamp", "properties": {"NAME": "Console lamp"}}]}
    _, answer = running.ask("PUT", "/items", put)
    after = f"{answer['after']}.{running.click('console-lamp')}"
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "all are in effect"
    )
    page = console("items")
    page.wait(lambda: page.text(".found li"))
    page.find("form input").send_keys("console lamp", Keys.ENTER)
    page.wait(lambda: page.text("#found-title") == "1 item")
    page.press(".found button")
    page.wait(lambda: page.text("#events") == "1")

    page.run_script("document.querySelector('#properties').select()")
    page.find("#properties").send_keys('{"NAME": "Brighter lamp"}')
    page.press("#save")
    assert running.ask("GET", "/items/console-lamp")[1]["properties"] == {"NAME": "Console lamp"}
    page.press(".asking .yes")
    page.wait(lambda: "saved" in page.text("#done"))

    _, told = running.ask("GET", "/items/console-lamp")
    assert told["properties"] == {"NAME": "Brighter lamp"}
    assert "Brighter lamp" in page.text("#item-title")
    page.run_script("document.querySelector('#properties').select()")
    page.find("#properties").send_keys('{"NAME": ["no list"]}')
    page.press("#save")
    page.press(".asking .yes")
    page.wait(lambda: "properties" in page.text(".detail .error"))


@pytest.mark.any_broker
@pytest.mark.slow
def test_an_item_is_hidden_and_imported(running: Stack, console: Open) -> None:
    """Hiding asks first, and the next answer lacks the item; a file is previewed."""
    for name in ("one", "two"):
        running.click("console-cup", session=f"hiding-{name}")
        after = running.click("console-pot", session=f"hiding-{name}")
    put = {"items": [{"itemId": "console-pot", "properties": {"NAME": "Console pot"}}]}
    after = f"{running.ask('PUT', '/items', put)[1]['after']}.{after}"

    def near(token: str = "") -> list[str]:
        answer = running.ask("GET", f"/similar/console-cup?after={token}" if token else asked)[1]
        return [one["itemId"] for one in answer["items"]]

    asked = "/similar/console-cup"
    assert "console-pot" in near(after)
    page = console("items")
    page.wait(lambda: page.text(".found li"))
    page.find("form input").send_keys("console pot", Keys.ENTER)
    page.wait(lambda: page.text("#found-title") == "1 item")
    page.press(".found button")
    page.wait(lambda: page.text("#save"))
    page.press_text(".detail form", "Hide")
    page.press(".asking .danger")
    page.wait(lambda: "no answer holds it" in page.text("#done"))
    assert "console-pot" not in near()
    assert page.text("#hidden") == "hidden"
    assert "put_items" in audited(running)

    bad = "x" * 300
    rows = rf"itemId;NAME;PRICE\nconsole-new;\"Jug; big\";9.5\n;nameless;\n{bad};long id;1\n"
    page.run_script(
        f"""const file = new File(["{rows}"], "new.csv"), moved = new DataTransfer();
        moved.items.add(file);
        const input = document.querySelector("input[type=file]");
        input.files = moved.files;
        input.dispatchEvent(new Event("change", {{bubbles: true}}))"""
    )
    page.wait(lambda: "number, 1 empty" in page.text("#preview"))
    page.press("#put > button")
    assert running.ask("GET", "/items/console-new")[0] == 404
    page.press("#put .yes")
    said = "Put of new.csv: 1 item. Refused: 1 row. Left out, without an id: 1 row."
    page.wait(lambda: said in page.text("#put-done"))
    assert page.text("#refused").startswith("row 3: ")
    running.wait(lambda: running.ask("GET", "/items/console-new")[0] == 200, "it is in effect")
    told = running.ask("GET", "/items/console-new")[1]
    assert told["properties"] == {"NAME": "Jug; big", "PRICE": 9.5}


@pytest.mark.slow
def test_a_dead_letter_is_inspected_and_replayed(running: Stack, console: Open) -> None:
    """Its bytes and reason are shown; a replay fails again and comes back; discarding asks."""
    producer = KafkaProducer(bootstrap_servers=running.settings.kafka)
    producer.send(Topics.of(running.settings).clicks, key=b"s", value=b"{bad for the console")
    producer.close()
    running.wait(lambda: running.ask("GET", "/dead-letters")[1]["letters"] != [], "it is refused")
    page = console("events")
    page.wait(lambda: page.text(".letters li"))
    assert "invalid" in page.text(".letters strong")
    page.press(".letters summary")
    assert page.text(".letters pre") == "{bad for the console"
    place = page.text(".letters .note")

    page.press(".letters .line button")
    page.press(".letters .yes")
    page.wait(lambda: "Sent again: 1" in page.text("#letters-done"))
    page.wait(lambda: _looked_again(page) and page.text(".letters .note") not in ("", place))
    page.press(".letters .line button:last-child")
    page.press(".letters .danger")
    page.wait(lambda: page.text("#letters-done") == "Discarded: 1.")

    assert running.ask("GET", "/dead-letters")[1]["letters"] == []
    assert {"replay_dead_letters", "discard_dead_letters"} <= audited(running)
    assert page.problems() == []


def audited(stack: Stack) -> set[str]:
    """What the audit log says was done."""
    return {one["action"] for one in stack.ask("GET", "/audit")[1]["entries"]}


def _looked_again(page: Page) -> bool:
    """Reads the dead letters anew."""
    page.press("#letters p.line button")
    return True


@pytest.mark.any_broker
@pytest.mark.slow
def test_what_is_kept_is_drawn(running: Stack, console: Open) -> None:
    """Figures over time, measured quality, settings, and events as they come."""
    running.click("console-drawn")
    running.ask("PUT", "/filters/console-drawn", {"filter": "price<20"})
    page = console("overview")
    page.wait(lambda: re.match("[0-9.]+ /s", page.text("#kept-events b")))
    page.wait(lambda: re.match("[0-9.]+ MiB", page.text("#kept-memory b")))
    # A source weighs something once what is clicked was a candidate, and others were not.
    for n in range(8):
        for item in ("console-drawn", "console-next"):
            after = running.click(item, user=f"drawn{n}", session=f"drawn{n}")
        running.recommend(f"after={after}")
    running.wait(
        lambda: any(
            one["parameters"] for one in running.ask("GET", "/transparency")[1]["objectives"]
        ),
        "the examples are learned",
    )
    page = console("quality")
    page.wait(lambda: re.match(r"\d+ %", page.text(".weights")))
    page = console("settings")
    page.wait(lambda: page.text("#settings-list"))
    page.find("input[type=search]").send_keys("prefix of topics group")
    page.press("input[type=checkbox]")
    page.wait(lambda: len(page.all("#settings-list dt")) < 5)
    page = console("personalize")
    page.wait(lambda: re.fullmatch(r"\d+ dataset groups?", page.text("#groups-title")))
    page.wait(lambda: page.text("#none").startswith("None yet: datasets, solutions"))
    assert "console-drawn" in page.text("main")
    assert page.text("#forwarding").startswith("Forwarded to Amazon Personalize\nNothing:")
    page = console("events")
    page.wait(lambda: page.text("#tail-state") == "live")
    page.wait(lambda: bool(running.click("console-tail")) and "console-tail" in page.text("#tail"))
    assert page.all("#tail a[href='#items/console-tail']")
    page.press("#tail tbody button")
    page.wait(lambda: "yes" in page.text("#followed tbody tr"))
    assert page.problems() == []


@pytest.mark.any_broker
@pytest.mark.slow
def test_a_user_is_shown_and_erased(running: Stack, console: Open) -> None:
    """History and answers of a user; erasing asks first, and says what it did."""
    after = running.click("console-tent", user="console-leaving", session="leaving")
    running.wait(
        lambda: bool(running.ask("GET", f"/events/{after}")[1]["isInEffect"]), "it is in effect"
    )
    page = console("users")
    page.wait(lambda: page.browser.find_elements(By.CSS_SELECTOR, "form.line input"))
    page.find("form.line input").send_keys("console-leaving", Keys.ENTER)
    page.wait(lambda: "console-tent" in page.text("#history"))
    assert page.run_script("return location.hash") == "#users/console-leaving"
    # By keyboard alone: the question has the focus, Escape is a no, and the button has it again.
    page.run_script("document.querySelector('p.line button').focus()")
    _type_at(page, "Erase…", Keys.ENTER)
    _type_at(page, "No", Keys.ESCAPE)
    _type_at(page, "Erase…", Keys.ENTER)
    assert page.text("#count") == "1"
    _type_at(page, "No", Keys.SHIFT + Keys.TAB)
    _type_at(page, "Yes", Keys.ENTER)
    page.wait(lambda: "Erased of console-leaving: 1 event, " in page.text("#done"))

    page.wait(lambda: page.text("#history") == "")
    assert running.ask("GET", "/users/console-leaving")[1]["events"] == []
    assert "erase_user" in audited(running)
    page.press("#now .item")
    page.wait(lambda: page.text("#item-title"))
    page.browser.back()
    page.wait(lambda: page.text("#history-title") == "console-leaving")


def _type_at(page: Page, button: str, keys: str) -> None:
    """Type once a button of this text has the focus."""
    page.wait(lambda: page.browser.switch_to.active_element.text == button)
    page.browser.switch_to.active_element.send_keys(keys)


@pytest.mark.slow
def test_an_event_is_sent_and_followed(running: Stack, console: Open) -> None:
    """Its place in Kafka, and that it is in effect; a wrong token is an error in words."""
    page = console("events")
    fields = page.browser.find_elements(By.CSS_SELECTOR, "#send input")
    fields[1].send_keys("console-tent")
    fields[2].send_keys("console-sender")
    page.press("#send button")
    page.press("#send .yes")
    page.wait(lambda: page.text("#followed tbody tr"))
    assert re.match(
        r"clicks \d+ \d+ [0-9.]+ ms (yes, waited|not yet)", page.text("#followed tbody tr")
    )
    running.wait(
        lambda: bool(running.ask("GET", "/users/console-sender")[1]["events"]), "it is in effect"
    )

    event = {"eventId": "console-id", "eventType": "click", "itemId": "tent", "sentAt": 1}
    message = {"sessionId": "console-id", "eventList": [event]}
    running.ask("POST", "/events", message)
    page.type("#follow input", "console-id")
    page.find("#follow input").send_keys(Keys.ENTER)
    page.wait(lambda: len(page.all("#followed tbody tr")) == 2)
    page.type("#follow input", "nonsense")
    page.find("#follow input").send_keys(Keys.ENTER)
    page.wait(lambda: "No event has the id nonsense" in page.text(".error:not(:empty)"))


@pytest.mark.any_broker
@pytest.mark.slow
def test_a_key_is_created_and_revoked(console: Open) -> None:
    """Its secret is shown once, and the audit log says that it was made and revoked."""
    page = console("access")
    page.wait(lambda: page.text("#create button"))
    page.find("#create [name=name]").send_keys("Console backend")
    page.press("#create [name=read]")
    page.press("#create > button")
    page.press("#create .yes")
    page.wait(lambda: page.text("#secret code").startswith("srk_"))
    key_id = page.text("#secret code")[4:16]
    row = f"[data-key='{key_id}']"
    page.wait(lambda: "Console backend" in page.text(row))
    page.press("#secret button:last-child")
    page.wait(lambda: "srk_" not in page.text("main"))

    page.press(f"{row} button")
    page.press(f"{row} .danger")
    page.wait(lambda: not page.browser.find_elements(By.CSS_SELECTOR, row))
    page.press("#again")
    page.wait(lambda: re.search(rf"revoke_key \S+ {key_id}", page.text("#audit tbody")))
    assert page.problems() == []
