"""Two objectives on one stream: any interaction, and purchases."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from models.ranking.champions import OBJECTIVES, Champion, Measures, stored_champions
from models.ranking.examples import Example, compared_orders
from models.ranking.features import FEATURES
from models.ranking.objectives import learn, load_learners
from models.serving.local import LocalRecommender
from models.settings import Settings
from ops.embedded_servers import start_redis


def test_a_purchase_counts_for_both_objectives_and_a_click_for_one() -> None:
    """Each learner counts examples of its objective, and is restored as it was stored."""
    learned = load_learners()
    ranks = dict.fromkeys(compared_orders(), 1)

    learn(learned, Example(len(FEATURES), {"interactions": ranks}))
    learn(learned, Example(len(FEATURES), {"interactions": ranks, "purchases": ranks}))

    assert [learned[name].scoreboard.n for name in OBJECTIVES] == [2, 1]
    stored: dict[str, bytes] = {}
    for name in OBJECTIVES:
        for key, value in learned[name].fields(name).items():
            stored[key] = value if isinstance(value, bytes) else value.encode()
    again = load_learners(stored)
    champions = stored_champions(stored)
    for name in OBJECTIVES:
        board = learned[name].scoreboard
        assert champions[name] == Champion(board.champion(), Measures(board.n, board.means))
        assert again[name].scoreboard == board
        assert again[name].ranker.state() == learned[name].ranker.state()


@pytest.mark.slow
def test_objectives_rank_differently(tmp_path: Path) -> None:
    """Users click phones and buy a case: each objective ranks its own items first."""
    chance = random.Random(7)
    server = start_redis(tmp_path)
    try:
        with LocalRecommender(Settings(redis=server.url, cache_s=0)) as shop:
            at_s = 1_790_000_000.0
            for visit in range(700):
                # Of any number, or the length of a history alone would tell what comes next.
                phones = chance.sample(range(12), chance.randint(1, 8))
                for phone in phones:
                    at_s += 10
                    shop.learn(f"u{visit}", f"phone{phone}", "click", at_s=at_s)
                at_s += 10
                shop.learn(f"u{visit}", f"case{chance.randrange(6)}", "purchase", at_s=at_s)
            shop.learn("ada", "phone1", "click", at_s=at_s + 10)

            looked_at = [name for name, _ in shop.recommend("ada", k=5)]
            bought = [name for name, _ in shop.recommend("ada", k=5, objective="purchases")]
    finally:
        server.stop()

    assert shop.learners["purchases"].champion != "blend"
    assert all(name.startswith("phone") for name in looked_at)
    assert all(name.startswith("case") for name in bought)
