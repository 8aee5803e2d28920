"""How often the intervals of `recommender whatif` cover the truth, in shops whose truth is known.

    python -m benchmarks.whatif [--shops 200] [--users 200]

Each shop has items of its own appeal, users who take more or less, and lists of 20 in an order that
is partly right; the second half is explored by the code that serves. Users look at a slot the more
seldom the lower it stands, and take what they look at by its appeal and their taste. The truth is
what other users of the shop would take on average, if the other policy drew their lists.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.conditions import report
from models.arrays import Floats
from models.evaluation.drawn_lists import OWN, Decisions, RewardedList, decisions_of
from models.evaluation.off_policy import estimate
from models.evaluation.slot_policies import (
    SlotPolicy,
    capped_policy,
    judged,
    listed_policy,
    share_policy,
    weighted_policy,
)
from models.ranking.explored_lists import exploration_rate, explore, joined_pool
from models.served_messages import LoggedExploration, ServedList

N_ITEMS, N_NEW, N_GROUPS, LISTED = 120, 12, 6, 20
FIRST = LISTED // 2
SHARE = 0.1
"""Two of twenty items, on average."""

N_TRUE = 2000
"""Lists of other users, of which the truth is the mean."""


class Asked(NamedTuple):
    """A list of the shop, by its own order.

    Attributes
    ----------
    taken
        How likely the user takes each item that they look at; ``(items,)``.
    """

    list_id: str
    taken: Floats
    own: list[int]
    pool: dict[int, int]


class Shop:
    """A shop whose truth is known."""

    def __init__(self, seed: int) -> None:
        self.chance, self.rng = random.Random(seed), np.random.default_rng(seed)
        self.appeal = self.rng.beta(1.2, 5.0, N_ITEMS + N_NEW)
        self.taste = self.rng.normal(0.0, 0.6, (N_ITEMS + N_NEW, 3))
        self.believed = self.appeal * np.exp(self.rng.normal(0.0, 0.6, N_ITEMS + N_NEW))
        self.otherwise = self.appeal * np.exp(self.rng.normal(0.0, 0.4, N_ITEMS + N_NEW))
        self.looked_at = 1.0 / (1.0 + self.rng.uniform(0.03, 0.15) * np.arange(LISTED))

    def lists(self, n_users: int) -> list[Asked]:
        """One to five lists of each user; what they explore among is partly new."""
        found = []
        for user in range(n_users):
            likes = np.exp(self.taste @ self.rng.normal(0.0, 1.0, 3) + self.rng.normal(-0.3, 0.5))
            taken = np.minimum(0.95, self.appeal * likes)
            for number in range(self.chance.randint(1, 5)):
                noise = np.exp(self.rng.normal(0.0, 0.3, N_ITEMS))
                scores = self.believed[:N_ITEMS] * noise * (0.5 + 0.5 * likes[:N_ITEMS])
                order = np.argsort(-scores, kind="stable").tolist()
                new = (self.rng.choice(N_NEW, 5, replace=False) + N_ITEMS).tolist()
                near = order[LISTED : LISTED + 4]
                pool = joined_pool(
                    [
                        {str(item): 8.0**-at for at, item in enumerate(new)},
                        {str(item): float(4 - at) for at, item in enumerate(near)},
                    ]
                )
                weights = {int(name): weight for name, weight in pool.items()}
                found.append(Asked(f"{user}-{number}", taken, order[:LISTED], weights))
        return found

    def log(self, asked: Sequence[Asked]) -> list[RewardedList]:
        """The lists as they are drawn and served, and what their users took."""
        rate, found = exploration_rate(LISTED, int(SHARE * LISTED)), []
        for one in asked:
            pool = {str(item): weight for item, weight in one.pool.items()}
            drawn = explore([str(item) for item in one.own], pool, rate, self.chance)
            shown = [*one.own[:FIRST], *(int(slot.item_id) for slot in drawn.slots)]
            logged = LoggedExploration(
                rate,
                [*pool],
                [*pool.values()],
                [*[1.0] * FIRST, *(slot.probability for slot in drawn.slots)],
                {at: own for at, (_, own, _) in enumerate(drawn.slots, FIRST) if own is not None},
            )
            served = ServedList(
                one.list_id, 1.0, [str(item) for item in shown], "k" * LISTED,
                user_id=one.list_id.split("-")[0], exploration=logged,
            )  # fmt: skip
            chances = self.looked_at * one.taken[shown]
            found.append(RewardedList(served, (self.rng.random(LISTED) < chances).tolist()))
        return found

    def challenger(self, asked: Sequence[Asked]) -> dict[str, list[str]]:
        """Lists whose two worst items, by another belief, make room for the best of the pool."""
        lists = {}
        for one in asked:
            other = [*one.own]
            places = sorted(range(FIRST, LISTED), key=lambda at: self.otherwise[one.own[at]])[:2]
            best = sorted(one.pool, key=lambda item: -self.otherwise[item])
            for place, item in zip(places, best, strict=False):
                if self.otherwise[item] > self.otherwise[other[place]]:
                    other[place] = item
            lists[one.list_id] = [str(item) for item in other]
        return lists

    def policies(self, asked: Sequence[Asked]) -> dict[str, SlotPolicy]:
        """The policies that are asked about."""
        names = range(N_ITEMS + N_NEW)
        return {
            "exploration share 0": share_policy(0.0),
            "exploration share .25": share_policy(0.25),
            "a sixth of the items 3 times as likely": weighted_policy(
                {str(item): 3.0 for item in names if item % N_GROUPS == 0}
            ),
            "at most 4 of a category": capped_policy(
                {str(item): [item % N_GROUPS] for item in names}, 4
            ),
            "a challenger's lists": listed_policy(self.challenger(asked)),
        }

    def brought(self, asked: Sequence[Asked], policy: SlotPolicy) -> Floats:
        """Mean reward of the second half of each list, drawn slot by slot by a policy."""
        n = np.arange(len(asked))
        taken = np.array([one.taken for one in asked])
        pools = np.array([[*one.pool] for one in asked])
        left = np.array([[*one.pool.values()] for one in asked], np.float64)
        served = [
            ServedList(one.list_id, 1.0, [str(item) for item in one.own], "k" * LISTED)
            for one in asked
        ]
        own = np.array([one.own for one in asked])
        item_ids = [str(item) for item in range(N_ITEMS + N_NEW)]
        rate, found = exploration_rate(LISTED, int(SHARE * LISTED)), np.zeros(len(asked))
        for place in range(FIRST, LISTED):
            items = np.column_stack([own[:, place], pools])
            drawn_odds = rate * left / np.maximum(left.sum(axis=1, keepdims=True), 1.0)
            odds = np.column_stack([1.0 - drawn_odds.sum(axis=1), drawn_odds])
            decisions = Decisions(
                item_ids, items, odds, np.zeros_like(n), np.zeros(len(n)), np.full_like(n, place),
                n, np.full(len(n), rate), n, np.zeros(len(n)), served,
                [one.own for one in asked],
            )  # fmt: skip
            wanted = policy(decisions).probabilities
            found += self.looked_at[place] * (wanted * taken[n[:, None], items]).sum(axis=1)
            sums = wanted.cumsum(axis=1)
            drawn = (sums <= self.rng.random((len(n), 1)) * sums[:, -1:]).sum(axis=1)
            explored = np.flatnonzero(drawn != OWN)
            left[explored, drawn[explored] - 1] = 0.0
        return found


def _as_it_is(decisions: Decisions) -> Any:  # noqa: ANN401  of a policy
    return share_policy(SHARE)(decisions)


class Checked(NamedTuple):
    """An estimate beside the truth."""

    covers: bool
    covers_difference: bool
    half_width: float
    difference: float
    error: float
    support: float


def checked(seed: int, n_users: int, n_true: int) -> dict[str, Checked]:
    """Estimates of all policies in one shop, beside the truth."""
    shop = Shop(seed)
    asked = shop.lists(n_users)
    decisions = decisions_of(shop.log(asked))
    estimates = {name: estimate(decisions, one) for name, one in shop.policies(asked).items()}
    others = shop.lists(n_true // 3)
    firsts = np.array([shop.looked_at[:FIRST] @ one.taken[one.own[:FIRST]] for one in others])
    logged = shop.brought(others, _as_it_is)
    found = {}
    for name, policy in shop.policies(others).items():
        difference = float((shop.brought(others, judged(policy)) - logged).mean())
        value = float((firsts + logged).mean()) + difference
        one = estimates[name]
        found[name] = Checked(
            abs(one.value - value) <= one.value_ci95,
            abs(one.difference - difference) <= one.difference_ci95,
            one.difference_ci95,
            difference,
            one.difference - difference,
            one.support,
        )
    return found


def coverage(n_shops: int, n_users: int, n_true: int = N_TRUE) -> dict[str, dict[str, float]]:
    """Of each policy, how many shops' intervals cover the truth, and how wide they are."""
    by_policy = defaultdict[str, list[Checked]](list)
    for seed in tqdm(range(n_shops), unit=" shops", disable=None):
        for name, one in checked(seed, n_users, n_true).items():
            by_policy[name].append(one)
    return {
        name: {
            "covers_value": sum(one.covers for one in every) / n_shops,
            "covers_difference": sum(one.covers_difference for one in every) / n_shops,
            "mean_difference": round(float(np.mean([one.difference for one in every])), 4),
            "mean_error": round(float(np.mean([one.error for one in every])), 4),
            "mean_half_width": round(float(np.mean([one.half_width for one in every])), 4),
            "support": round(float(np.mean([one.support for one in every])), 3),
        }
        for name, every in by_policy.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shops", type=int, default=200)
    parser.add_argument("--users", type=int, default=200)
    options = parser.parse_args()
    found = coverage(options.shops, options.users)
    report("whatif", found, shops=options.shops, users=options.users)


if __name__ == "__main__":
    main()
