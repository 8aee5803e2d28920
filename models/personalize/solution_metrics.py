"""Amazon Personalize's protocol for measuring a recipe: some users are asked, the others teach.

Nine users in ten teach. Of each of the others, the oldest nine tenths of the events are given as
context, and what is recommended then is compared with the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evaluation.protocol import sort_and_shuffle
from models.personalize.recipes import Recipe
from models.serving.answers import Answer
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.state.interactions import Interaction

TEST_ONE_IN = 10
CONTEXT_SHARE = 0.9
EXAMPLES_OF = 4
"""Measuring teaches the ranking from each so-manieth choice: a live stream brings far more."""

CUTS = (5, 10, 25)
DEPTH = 25
"""How many recommendations of each list count."""

WatchEvents = Callable[[Iterable[Interaction]], Iterable[Interaction]]
"""Passes events on, and raises where the measuring is to end."""


class HeldOutUser(NamedTuple):
    """A test user: the events that are given, and the items that came after."""

    user: str
    context: Sequence[Interaction]
    taken: frozenset[str]


def split(interactions: Iterable[Interaction]) -> tuple[list[Interaction], list[HeldOutUser]]:
    """The events that teach, in order, and the test users; the same ones at every run.

    A test user with a single event teaches: there is nothing to ask about.

    >>> from models.state.interactions import Interaction
    >>> events = [Interaction(f"u{n}", f"i{k}", "view", k) for n in range(40) for k in range(10)]
    >>> train, tests = split(events)
    >>> len(train) + 10 * len(tests), {len(one.context) for one in tests}
    (400, {9})
    """
    train: list[Interaction] = []
    of_users: dict[str, list[Interaction]] = {}
    for event in sort_and_shuffle(interactions):
        if _is_test(event.user):
            of_users.setdefault(event.user, []).append(event)
        else:
            train.append(event)
    tests = []
    for user, own in of_users.items():
        if len(own) == 1:
            train += own
            continue
        cut = max(1, min(len(own) - 1, int(CONTEXT_SHARE * len(own))))
        tests.append(HeldOutUser(user, own[:cut], frozenset(event.item for event in own[cut:])))
    return sort_and_shuffle(train), tests


def evaluate_recipes(
    local: LocalRecommender,
    recipes: Sequence[Recipe],
    interactions: Iterable[Interaction],
    *,
    n_items: int,
    watched: WatchEvents = iter,
) -> dict[str, dict[str, float]]:
    """What each recipe measures, by its name; `local` learns the events of the training users.

    Parameters
    ----------
    n_items
        Items there are, for the coverage.
    watched
        Goes through all events that are learned.
    """
    train, tests = split(interactions)
    for event in watched(train):
        local.learn(event.user, event.item, event.type, at_s=event.at_s)
    lists: dict[str, list[list[str]]] = {recipe.name: [] for recipe in recipes}
    for test in tests:
        for event in watched(test.context):
            local.observe(event.user, event.item, at_s=event.at_s)
        for recipe in recipes:
            lists[recipe.name].append(_listed(local, recipe, test))
    taken = [test.taken for test in tests]
    return {
        name: solution_metrics(listed, taken, n_items=n_items) for name, listed in lists.items()
    }


def solution_metrics(
    recommended: Sequence[Sequence[str]], taken: Sequence[Collection[str]], *, n_items: int
) -> dict[str, float]:
    """Coverage, and the means over users of reciprocal rank, NDCG and precision.

    As Amazon's guide defines them: a hit at position p weighs 1 / log(1 + p), and NDCG divides the
    sum by what as many hits would weigh at the top of the list. A user without a hit counts 0.

    Parameters
    ----------
    recommended
        Of each test user, different items, the best first.
    taken
        Of each of them, in the same order, the items of the interactions held back.
    n_items
        Different items in the interactions and items data sets.

    Returns
    -------
    dict
        By Amazon's names, from 0 to 1; all 0 without a user.

    Examples
    --------
    >>> found = solution_metrics([["a", "b", "c", "d", "e"]], [{"b", "e"}], n_items=10)
    >>> found["coverage"], found["mean_reciprocal_rank_at_25"], found["precision_at_5"]
    (0.5, 0.5, 0.4)
    >>> round(found["normalized_discounted_cumulative_gain_at_5"], 4)
    0.6241
    """
    hits = np.zeros((len(recommended), DEPTH), np.bool_)
    for row, items, own in zip(hits, recommended, taken, strict=True):
        best = items[:DEPTH]
        row[: len(best)] = [item in own for item in best]
    shown = {item for items in recommended for item in items[:DEPTH]}
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    return {
        "coverage": len(shown) / n_items if n_items else 0.0,
        "mean_reciprocal_rank_at_25": _mean(1.0 / first),
        **{f"normalized_discounted_cumulative_gain_at_{k}": _mean(_ndcg(hits, k)) for k in CUTS},
        **{f"precision_at_{k}": _mean(hits[:, :k].mean(axis=1)) for k in CUTS},
    }


def _listed(local: LocalRecommender, recipe: Recipe, test: HeldOutUser) -> list[str]:
    """What a recipe recommends to a test user after the context."""

    async def ask(recommender: Recommender, now_s: float) -> Answer:
        if recipe.type == "RELATED_ITEMS":
            return await recommender.similar(test.context[-1].item, k=DEPTH, now_s=now_s)
        if recipe.name.endswith("trending-now"):
            return await recommender.trending(k=DEPTH, now_s=now_s)
        return await recommender.popular(k=DEPTH, now_s=now_s)

    if recipe.type in {"RELATED_ITEMS", "POPULAR_ITEMS"}:
        return [item.item_id for item in local.run(ask).items]
    return [name for name, _ in local.recommend(test.user, k=DEPTH)]


def _is_test(user: str) -> bool:
    digest = hashlib.blake2b(user.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % TEST_ONE_IN == 0


def _ndcg(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Of each row of hits; ``(n,)``."""
    weights = 1.0 / np.log2(np.arange(2.0, k + 2.0))
    # Without a hit anything divides the 0 to 0.
    ideals = np.concatenate([[1.0], np.cumsum(weights)])
    shares: NDArray[np.float64] = (hits[:, :k] @ weights) / ideals[hits[:, :k].sum(axis=1)]
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
