"""A challenger on a running service: measured by the worker, served by the API, told by status."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from kafka import KafkaProducer

from models.ranking.examples import Choice, encode, make_example
from models.ranking.features import FEATURES
from models.ranking.ranker import ListwiseRanker
from models.settings import Settings
from streams.kafka.topics import Topics
from tests.stack import Stack

NEXT = "tests.models.ranking.challenger_classes:NextNumber"
N_ITEMS = 8


def send_examples(settings: Settings, n: int) -> None:
    """Examples in which the item is taken whose number follows the last one's."""
    chance = np.random.default_rng(1)
    producer = KafkaProducer(bootstrap_servers=settings.kafka)
    for _ in range(n):
        last = int(chance.integers(1, 29))
        choice = Choice(np.arange(1, 31), chance.random((30, len(FEATURES))), last + 1, last)
        made = make_example(
            choice, {"interactions": ListwiseRanker()}, chance, for_challengers=True
        )
        producer.send(Topics.of(settings).examples, encode(made))
    producer.close()


def reach(one: Stack, after: str) -> None:
    """Wait until an event is in effect."""
    one.wait(lambda: bool(one.recommend(f"after={after}")["freshness"]["afterReached"]), "applied")


def first_item(one: Stack, user: str, more: str = "") -> str:
    """The first recommendation."""
    answer = one.recommend(f"user_id={user}&reasons=true{more}")
    return str(answer["items"][0]["itemId"])


def click_items(one: Stack) -> None:
    """Items from number 2 on, the more popular the lower the number, given in order of effect."""
    for number in range(2, N_ITEMS + 1):
        for time in range(N_ITEMS + 2 - number):
            reach(one, one.click(f"i{number}", session=f"s{number}-{time}"))


@pytest.mark.slow
@pytest.mark.parametrize("named", [f"{NEXT},river.naive_bayes:GaussianNB"])
def test_a_challenger_that_leads_serves(embedded_stack: Callable[..., Stack], named: str) -> None:
    """From the examples that Kafka keeps, in processes that began before and after it led.

    Without the setting the built-in champion serves again.
    """
    one = embedded_stack(
        challengers=named.split(","), examples_per_s=0, challenger_share=1.0, exploration_share=0.0
    )
    worker, api = one.start("worker"), one.start("api")
    one.wait_ready()  # it sends the first event: the item `warm` has number 1
    click_items(one)
    reach(one, one.click("i4", user="u"))
    assert first_item(one, "u") != "i5"

    send_examples(one.settings, 400)
    one.wait(lambda: one.status().serving["interactions"] == "NextNumber", "it leads")
    one.wait(lambda: first_item(one, "u") == "i5", "it serves")
    assert one.recommend("user_id=u")["level"] == "ranked"
    status = json.loads(one.run("status", "--json").stdout)
    assert status["quality"]["interactions"]["NextNumber"]["mrr"] == pytest.approx(1.0)
    assert "GaussianNB" in status["quality"]["interactions"]
    text = one.run("status").stdout
    assert "NextNumber's order is served" in text
    assert "NextNumber 1.0000" in text

    for process in (worker, api):
        process.terminate()
        process.wait(60)
    worker, api = one.start("worker"), one.start("api")
    one.wait_ready()
    one.wait(lambda: first_item(one, "u") == "i5", "it is learned again, and serves")

    for process in (worker, api):
        process.terminate()
        process.wait(60)
    one.environment["RECOMMENDER_CHALLENGERS"] = ""
    one.start("worker")
    one.start("api")
    one.wait_ready()
    assert first_item(one, "u") != "i5"
    one.wait(lambda: one.status().serving["interactions"] != "NextNumber", "it is forgotten")
    refused = one.run("worker", RECOMMENDER_CHALLENGERS="no.such:thing")
    assert refused.returncode == 1
    assert "RECOMMENDER_CHALLENGERS: no.such:thing" in refused.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_challenger_that_does_not_serve_may_be_an_arm(
    embedded_stack: Callable[..., Stack],
) -> None:
    """It begins to learn when a question meets it; everybody else has the built-in order."""
    one = embedded_stack(
        challengers=[NEXT], examples_per_s=0, challenger_share=1.0, exploration_share=0.0
    )
    one.start("worker")
    one.start("api")
    one.wait_ready()
    click_items(one)
    # Too few to be the champion by.
    send_examples(one.settings, 200)
    one.ask("PUT", "/placements/home", {"num_results": 5})
    arms = [{"name": "control"}, {"name": "next", "configuration": {"ranker": "NextNumber"}}]
    assert one.ask("POST", "/experiments/e/start", {"placement": "home", "arms": arms})[0] == 200
    by_arm: dict[str, str] = {}
    for n in range(12):
        reach(one, one.click("i4", user=f"u{n}", session=f"of-u{n}"))
    for n in range(12):
        shown = one.recommend(f"user_id=u{n}&placement=home")["placement"]
        by_arm.setdefault(shown.get("arm", ""), f"u{n}")
    assert {"control", "next"} <= by_arm.keys()

    at_home = "&placement=home"
    one.wait(lambda: first_item(one, by_arm["next"], at_home) == "i5", "it has learned")

    assert first_item(one, by_arm["control"], at_home) != "i5"
    assert first_item(one, by_arm["next"]) != "i5"
    assert one.status().serving["interactions"] != "NextNumber"
    refused = one.ask("PUT", "/placements/home", {"ranker": "NextNumbers"})
    assert "built-in, blend, ranker, ranker-alone, NextNumber - at" in str(refused[1])
