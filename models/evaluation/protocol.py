"""Prequential evaluation on recorded events: each event is predicted first and learned after.

The protocol: every k-th of the queries of `query_steps` is evaluated, the same ones for all models.
All items seen so far are ranked, ties count against the model, and a target never seen is a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.basket_recalls import BasketRecall, basket_recall, compared_baskets
from models.evaluation.intervals import compared_means
from models.evaluation.list_measures import (
    CategoryMeasures,
    ListMeasures,
    mean_measures,
    measures_text,
)
from models.evaluation.query_steps import (
    Step,
)
from models.state.users.interactions import Interaction

CUTS = (10, 20, 100)
TOP = 20


class Scores(NamedTuple):
    """Items with scores, higher is better, in no order; other items are not ranked."""

    items: Indexes
    scores: Floats


class Model(Protocol):
    """A model that ranks items; users and items are numbered from 0 by their first event."""

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """Scores of all items it would show to this user now; barred items may be left out."""

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Learn one event."""

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Add one event to the user's history, and learn nothing else from it."""


class QueryTraits(NamedTuple):
    """A query for one item, without its rank; the same for all models.

    Attributes
    ----------
    event
        Number of the event that is predicted, from 0.
    is_new
        Whether the item is new to the user.
    item_events
        Events of the item before.
    """

    event: int
    is_new: bool
    item_events: int


@dataclass
class ModelResult:
    """Results of one model on all queries.

    Attributes
    ----------
    ranks
        Rank of each query's target, from 1; 0 if it was not ranked.
    asked
        Of each of these queries, what it asked.
    recalls
        Recalls within the best 20 of each whole basket.
    shown
        Items among the best 20 of any query.
    lists
        Measures of each query's best 20, where there are categories.
    """

    ranks: list[int] = field(default_factory=list)
    asked: list[QueryTraits] = field(default_factory=list)
    recalls: list[BasketRecall] = field(default_factory=list)
    shown: set[int] = field(default_factory=set)
    lists: list[ListMeasures] = field(default_factory=list)
    novelty_bits: float = 0.0
    query_s: float = 0.0
    learn_s: float = 0.0


def rank_of(ranked: Scores, target: int, barred: Indexes) -> int:
    """Rank of the target among items that are not barred, from 1; ties count against it.

    >>> rank_of(Scores(np.array([1, 2, 3]), np.array([0.5, 0.5, 0.9])), 1, np.array([3]))
    2
    """
    place = np.flatnonzero(ranked.items == target)
    if not len(place) or not ranked.scores[place[0]] > -np.inf:
        return 0
    better = ranked.items[ranked.scores >= ranked.scores[place[0]]]
    return int(len(better) - np.isin(better, barred).sum())


def best_of(ranked: Scores, k: int, barred: Indexes) -> Indexes:
    """The k best items that are not barred, best first; ties by number."""
    is_open = ~np.isin(ranked.items, barred) & (ranked.scores > -np.inf)
    items, scores = ranked.items[is_open], ranked.scores[is_open]
    return items[np.lexsort((items, -scores))[:k]]


def measures(ranks: Sequence[int]) -> dict[str, Floats]:
    """Hits, reciprocal rank and discounted gain of each query; ``(n,)`` each.

    >>> {name: float(values[0]) for name, values in measures([2]).items()}["mrr_20"]
    0.5
    """
    rank = np.array(ranks, np.float64)
    found = rank > 0
    measured = {f"hr_{k}": (found & (rank <= k)).astype(np.float64) for k in CUTS}
    top = found & (rank <= TOP)
    measured[f"mrr_{TOP}"] = np.where(top, 1.0 / np.maximum(rank, 1.0), 0.0)
    measured[f"ndcg_{TOP}"] = np.where(top, 1.0 / np.log2(rank + 1.0 + ~found), 0.0)
    return measured


def run(
    planned: Sequence[Step],
    compared: dict[str, Model],
    *,
    clock: Callable[[], float],
    progress: Callable[[], object] = lambda: None,
    catalogue: Sequence[str] = (),
    list_measures: CategoryMeasures | None = None,
) -> dict[str, ModelResult]:
    """Evaluate and teach all models on the steps, in order.

    Parameters
    ----------
    clock
        Seconds, for the time that queries and learning take.
    progress
        Called after each step.
    catalogue
        Items that are known before their first event; they have the first numbers.
    list_measures
        Measures the best 20 of each query for one item.
    """
    users: dict[str, int] = {}
    items = {item: number for number, item in enumerate(catalogue)}
    seen = np.zeros(1024 + len(items))
    pasts: dict[int, set[int]] = {}
    results = {name: ModelResult() for name in compared}
    for number, step in enumerate(planned):
        user = users.setdefault(step.event.user, len(users))
        past = pasts.setdefault(user, set())
        for query in (step.query, step.basket):
            if query is None:
                continue
            targets = [items.get(target, -1) for target in query.targets]
            barred = np.array([items[item] for item in query.barred if item in items], np.int64)
            shares = (seen[: len(items)] + 1.0) / (number + len(items))
            events = int(seen[targets[0]]) if targets[0] >= 0 else 0
            asked = QueryTraits(number, targets[0] not in past, events)
            for name, model in compared.items():
                _evaluate(
                    results[name], model, user, step.event.at_s, targets, barred, shares, clock,
                    asked=None if query is step.basket else asked, past=past,
                    list_measures=list_measures,
                )  # fmt: skip
        item = items.setdefault(step.event.item, len(items))
        if item >= len(seen):
            seen = np.append(seen, np.zeros(len(seen)))
        seen[item] += 1
        past.add(item)
        for name, model in compared.items():
            start = clock()
            (model.observe if step.is_frozen else model.learn)(user, item, step.event)
            results[name].learn_s += clock() - start
        progress()
    return results


def _evaluate(
    result: ModelResult,
    model: Model,
    user: int,
    at_s: float,
    targets: Sequence[int],
    barred: Indexes,
    shares: Floats,
    clock: Callable[[], float],
    *,
    asked: QueryTraits | None,
    past: set[int],
    list_measures: CategoryMeasures | None,
) -> None:
    start = clock()
    ranked = model.rank(user, at_s, barred)
    result.query_s += clock() - start
    best = best_of(ranked, TOP, barred)
    if asked is None:
        result.recalls.append(basket_recall(best, targets, past, TOP))
        return
    result.ranks.append(rank_of(ranked, targets[0], barred))
    result.asked.append(asked)
    result.shown.update(best.tolist())
    if list_measures is not None:
        result.lists.append(list_measures.of(best.tolist(), past))
    if len(best):
        result.novelty_bits -= float(np.log2(shares[best]).mean())


def report(results: Mapping[str, ModelResult], n_events: int, n_items: int) -> dict[str, Any]:
    """Results as plain numbers; the first model is the reference of the comparison.

    Returns
    -------
    dict
        By model: every measure with half the width of its 95 % interval, its difference from the
        reference on the same queries, coverage (share of all items among the best 20 of
        some query), novelty (mean bits of surprise of the items shown), microseconds, and with
        categories the means of `ListMeasures`.
    """
    compared: dict[str, Any] = {}
    first = next(iter(results.values()))
    reference = measures(first.ranks)
    for name, result in results.items():
        n_queries = max(1, len(result.ranks))
        found: dict[str, Any] = {}
        for measure, values in measures(result.ranks).items():
            found[measure] = compared_means(values, reference[measure])
        if result.recalls:
            found |= compared_baskets(result.recalls, first.recalls)
        if result.lists:
            found |= mean_measures(result.lists)
        compared[name] = found | {
            "coverage": round(len(result.shown) / max(1, n_items), 4),
            "novelty_bits": round(result.novelty_bits / n_queries, 2),
            "query_us": round(1e6 * result.query_s / (n_queries + len(result.recalls))),
            "learn_us": round(1e6 * result.learn_s / max(1, n_events)),
        }
    return compared


def as_text(compared: Mapping[str, Any]) -> str:
    """A report as a table of text."""
    columns = [*(f"hr_{k}" for k in CUTS), f"mrr_{TOP}", f"ndcg_{TOP}"]
    lines = [
        f"{'':<22}" + "".join(f"{column:>9}" for column in columns) + f"{'±':>8}"
        f"{'basket':>8}{'coverage':>10}{'novelty':>9}{'µs/query':>10}{'µs/learn':>10}"
    ]
    has_lists = any("intra_list_distance" in found for found in compared.values())
    lines[0] += f"{'distance':>10}{'divergence':>12}" if has_lists else ""
    for name, found in compared.items():
        recall = found.get("next_basket_recall_20")
        lines.append(
            f"{name:<22}"
            + "".join(f"{found[column]['mean']:>9.4f}" for column in columns)
            + f"{found[f'mrr_{TOP}']['ci95']:>8.4f}"
            + (f"{recall['mean']:>8.4f}" if recall else f"{'':>8}")
            + f"{found['coverage']:>10.3f}{found['novelty_bits']:>9.1f}"
            f"{found['query_us']:>10}{found['learn_us']:>10}"
            + (measures_text(found) if has_lists else "")
        )
    return "\n".join(lines)


def over_time(result: ModelResult, parts: int = 20) -> list[float]:
    """MRR@20 in equal parts of the queries, in their order."""
    reciprocal = measures(result.ranks)[f"mrr_{TOP}"]
    return [float(part.mean()) for part in np.array_split(reciprocal, parts) if len(part)]
