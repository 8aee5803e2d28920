"""What exploration brings a shop with new items, against its cost: shops whose truth is known.

    python -m benchmarks.exploration_gain [--shops 5] [--days 30] [--shares 0 .04 .2]

A shop has 20 categories and begins with 400 items, known to all; every day 8 are new. Each visitor
likes some categories. A visit begins with an item that the visitor came for, drawn by how known it
is in the category; then a list of 25 is looked at, the lower slots more seldom, and what is looked
at is taken by its appeal. Nobody comes for an item that nobody has taken: a new one is found by
lists alone, or by one visit in 50 that looks at what is new. With `--fading` appeal halves every 10
days, as of fashion or news. Lists are those of the production path, which learns what is taken and
what was shown in vain. The same visitors come for the same in each share; measured is what a list
brings in the last half of the days. A share of .04 explores
one item of 25, and nothing of shorter lists.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.conditions import report
from models.arrays import Floats
from models.evaluation.intervals import compared_means
from models.retrieval.candidates import TOP_LIST_SIZES
from models.serving.answers import Answer
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state.outcomes.served_lists import log_served
from ops.embedded_servers import start_redis

START_S, DAY_S = 1_780_000_000.0, 86400.0
CATEGORIES, FIRST_ITEMS, NEW_A_DAY, VISITORS, VISITS_A_DAY = 20, 400, 8, 300, 100
LISTED = 25
BROWSES = 0.02
"""Share of visits that begin with a new item."""

FADES_IN_DAYS = 10.0


class Shop:
    """A shop whose truth is known."""

    def __init__(self, seed: int, days: int, *, fading: bool) -> None:
        self.rng, self.chance = np.random.default_rng(seed), random.Random(seed)
        n = FIRST_ITEMS + NEW_A_DAY * days
        self.category = self.rng.integers(CATEGORIES, size=n)
        self.appeal = self.rng.beta(0.6, 5.0, n)
        first = np.zeros(FIRST_ITEMS) - self.rng.uniform(0.0, 2 * FADES_IN_DAYS, FIRST_ITEMS)
        self.born = np.append(first, np.repeat(np.arange(days), NEW_A_DAY))
        self.likes = self.rng.dirichlet(np.full(CATEGORIES, 0.15), VISITORS)
        self.looked_at = 1.0 / (1.0 + 0.1 * np.arange(LISTED))
        self.fading = fading
        self.taken = np.append(np.full(FIRST_ITEMS, 1.0), np.zeros(n - FIRST_ITEMS))

    def worth(self, items: Sequence[int], visitor: int, day: int) -> Floats:
        """How likely a visitor takes each item that is looked at."""
        at = np.array(items, np.int64)
        fade = 0.5 ** ((day - self.born[at]) / FADES_IN_DAYS) if self.fading else 1.0
        likes = np.minimum(1.0, 4.0 * self.likes[visitor, self.category[at]])
        worth: Floats = self.appeal[at] * likes * fade
        return worth

    def sought(self, visitor: int, day: int) -> int:
        """The item that a visit begins with."""
        known = FIRST_ITEMS + NEW_A_DAY * (day + 1)
        if self.rng.random() < BROWSES:
            return int(self.rng.integers(known - NEW_A_DAY, known))
        category = self.rng.choice(CATEGORIES, p=self.likes[visitor])
        odds = np.where(self.category[:known] == category, self.taken[:known], 0.0)
        odds = odds if odds.any() else self.taken[:known]
        return int(self.rng.choice(known, p=odds / odds.sum()))


class Brought(NamedTuple):
    """What a list brought: items taken; new ones among them; share of new items taken 10 times."""

    a_list: float
    new_a_list: float
    found: float


def run(seed: int, days: int, share: float, *, fading: bool) -> Brought:
    """A shop over so many days, its lists explored by a share."""
    shop, taken, of_new, lists = Shop(seed, days, fading=fading), 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            settings = Settings(redis=server.url, exploration_share=share)
            with LocalRecommender(settings, examples_of=2, list_sizes=TOP_LIST_SIZES) as local:
                describe(local, shop, range(FIRST_ITEMS))
                for day in range(days):
                    known = FIRST_ITEMS + NEW_A_DAY * day
                    describe(local, shop, range(known, known + NEW_A_DAY))
                    # Visits of their own seeds: whatever was taken before, the same people come.
                    shop.rng = np.random.default_rng((seed, day))
                    for visit in range(VISITS_A_DAY):
                        visitor = int(shop.rng.integers(VISITORS))
                        at_s = START_S + DAY_S * day + 800.0 * visit
                        clicks = visited(local, shop, visitor, day, at_s)
                        if day >= days // 2:
                            lists += 1
                            taken += len(clicks)
                            of_new += sum(item >= FIRST_ITEMS for item in clicks)
        finally:
            server.stop()
    return Brought(taken / lists, of_new / lists, float((shop.taken[FIRST_ITEMS:] >= 10).mean()))


def describe(local: LocalRecommender, shop: Shop, items: Sequence[int]) -> None:
    """Store the records of items, which have a category and no text."""
    local.describe({f"i{item}": {"CATEGORY": f"c{shop.category[item]}"} for item in items})


def visited(local: LocalRecommender, shop: Shop, visitor: int, day: int, at_s: float) -> list[int]:
    """Items that a visitor took from the list of one visit; the shop and its recommender learn."""
    user, sought = f"v{visitor}", shop.sought(visitor, day)
    local.learn(user, f"i{sought}", at_s=at_s)

    async def listed(recommender: Recommender, now_s: float) -> Answer:
        answer = await recommender.recommend(user_id=user, k=LISTED, now_s=now_s)
        explored = [one.item_id for one in answer.items if one.is_exploration]
        await log_served(recommender.store, {}, explored, now_s=now_s)
        return answer

    shown = [int(one.item_id[1:]) for one in local.run(listed).items]
    odds = shop.looked_at[: len(shown)] * shop.worth(shown, visitor, day)
    drawn = shop.rng.random(LISTED)[: len(shown)]
    clicks = [item for item, wanted in zip(shown, drawn < odds, strict=True) if wanted]
    for n, item in enumerate(clicks, 1):
        local.learn(user, f"i{item}", at_s=at_s + 20.0 * n)
    shop.taken[[sought, *clicks]] += 1.0
    return clicks


def compared(
    n_shops: int, days: int, shares: Sequence[float], *, fading: bool
) -> dict[str, dict[str, float]]:
    """Means of each share over the shops, and the difference from the first share."""
    found: dict[float, list[Brought]] = {share: [] for share in shares}
    for seed in tqdm(range(n_shops), unit=" shops", disable=None):
        for share in shares:
            found[share].append(run(seed, days, share, fading=fading))
    base = np.array([one.a_list for one in found[shares[0]]])
    results = {}
    for share, every in found.items():
        a_list = compared_means(np.array([one.a_list for one in every]), base)
        results[f"share {share:g}"] = a_list | {
            "of_new_items": round(float(np.mean([one.new_a_list for one in every])), 4),
            "new_items_found": round(float(np.mean([one.found for one in every])), 3),
        }
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shops", type=int, default=5)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.04, 0.2])
    parser.add_argument("--fading", action="store_true", help="Appeal halves every 10 days.")
    options = parser.parse_args()
    found = compared(options.shops, options.days, options.shares, fading=options.fading)
    report("exploration-gain", found, shops=options.shops, days=options.days, fading=options.fading)


if __name__ == "__main__":
    main()
