"""Amazon Personalize's evaluation of a recipe: training users, and held-out test users.

Nine users in ten are for training. The oldest nine tenths of a test user's events are the input,
and the recommendations are compared with the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evaluation.query_steps import sort_and_shuffle
from models.personalize.recipes import Recipe
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import Answer
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.state.users.interactions import Interaction

TEST_ONE_IN = 10
CONTEXT_SHARE = 0.9
EXAMPLES_OF = 4
"""The ranker trains on every 4th interaction only: a live stream brings far more."""

CUTS = (5, 10, 25)
DEPTH = 25
"""Recommendations of each list that count."""

METRICS = (
    "mean_reciprocal_rank_at_25",
    "coverage",
    *(f"normalized_discounted_cumulative_gain_at_{k}" for k in CUTS),
    *(f"precision_at_{k}" for k in CUTS),
)
"""Names of all metrics of recipes that recommend items."""

WatchEvents = Callable[[Iterable[Interaction]], Iterable[Interaction]]
"""Passes events on, and raises to end the evaluation."""


class HeldOutUser(NamedTuple):
    """A test user: the input events, and the items of the held-out ones."""

    user: str
    context: Sequence[Interaction]
    taken: frozenset[str]


def split(interactions: Iterable[Interaction]) -> tuple[list[Interaction], list[HeldOutUser]]:
    """Training events, in order, and test users; the same at every run.

    A test user with a single event is for training: nothing could be held out.

    >>> from models.state.users.interactions import Interaction
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


class Trial(NamedTuple):
    """A recipe with options, which is measured under a name."""

    name: str
    recipe: Recipe
    options: AnswerOptions = NO_OPTIONS


def evaluate_recipes(
    local: LocalRecommender,
    trials: Sequence[Trial],
    interactions: Iterable[Interaction],
    *,
    n_items: int,
    watched: WatchEvents = iter,
) -> dict[str, dict[str, float]]:
    """Metrics of each trial, by its name; `local` learns the events of the training users.

    Parameters
    ----------
    n_items
        Items of the group, for the coverage.
    watched
        Passes on all events that are learned.
    """
    train, tests = split(interactions)
    for event in watched(train):
        local.learn(event.user, event.item, event.type, at_s=event.at_s)
    lists: dict[str, list[list[str]]] = {trial.name: [] for trial in trials}
    for test in tests:
        for event in watched(test.context):
            local.observe(event.user, event.item, at_s=event.at_s)
        for trial in trials:
            lists[trial.name].append(_listed(local, trial, test))
    taken = [test.taken for test in tests]
    return {
        name: solution_metrics(listed, taken, n_items=n_items) for name, listed in lists.items()
    }


def solution_metrics(
    recommended: Sequence[Sequence[str]], taken: Sequence[Collection[str]], *, n_items: int
) -> dict[str, float]:
    """Coverage, and the means over users of reciprocal rank, NDCG and precision.

    As Amazon's guide defines them: a hit at position p has the gain 1 / log(1 + p), and NDCG
    divides the sum by that of as many hits at the top of the list. A user without a hit counts 0.

    Parameters
    ----------
    recommended
        Distinct items for each test user, best first.
    taken
        Items of each test user's held-out interactions, in the same order.
    n_items
        Distinct items in the interactions and items data sets.

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


def _listed(local: LocalRecommender, trial: Trial, test: HeldOutUser) -> list[str]:
    """Recommendations of a trial to a test user after the input events."""
    recipe, options = trial.recipe, trial.options

    async def ask(recommender: Recommender, now_s: float) -> Answer:
        if recipe.type == "RELATED_ITEMS":
            return await recommender.similar(
                test.context[-1].item, k=DEPTH, now_s=now_s, options=options
            )
        if recipe.name.endswith("trending-now"):
            return await recommender.trending(k=DEPTH, now_s=now_s, options=options)
        return await recommender.popular(k=DEPTH, now_s=now_s, options=options)

    if recipe.type in {"RELATED_ITEMS", "POPULAR_ITEMS"}:
        return [item.item_id for item in local.run(ask).items]
    return [name for name, _ in local.recommend(test.user, k=DEPTH, options=options)]


def _is_test(user: str) -> bool:
    digest = hashlib.blake2b(user.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % TEST_ONE_IN == 0


def _ndcg(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """NDCG of each row of hits; ``(n,)``."""
    weights = 1.0 / np.log2(np.arange(2.0, k + 2.0))
    # Without a hit the sum is 0, whatever divides it.
    ideals = np.concatenate([[1.0], np.cumsum(weights)])
    shares: NDArray[np.float64] = (hits[:, :k] @ weights) / ideals[hits[:, :k].sum(axis=1)]
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
