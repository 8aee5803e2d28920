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


def first_item(one: Stack, user: str) -> str:
    """The first recommendation."""
    answer = one.recommend(f"user_id={user}&reasons=true")
    return str(answer["items"][0]["itemId"])


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
    for number in range(2, N_ITEMS + 1):
        # The more popular the lower the number, which are given in order of effect.
        for time in range(N_ITEMS + 2 - number):
            reach(one, one.click(f"i{number}", session=f"s{number}-{time}"))
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
