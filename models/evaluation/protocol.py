"""Prequential evaluation on recorded events: each event is predicted first and learned after.

The protocol: events in order of time, exact duplicates dropped, events of one time shuffled, since
their order carries no information. The first tenth is for learning only. After that an event is a
query if its user has a history and its item is not the last one again; every k-th of these is
evaluated, the same ones for all models. All items seen so far are ranked, ties count against the
model, and a target that was never seen is a miss.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

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
from models.state.users.interactions import Interaction

RepeatPolicy = Literal["sessions", "users", "baskets"]
"""Treatment of repeats: sessions return to items, users want new ones, baskets come at once."""

WARM_UP = 0.1
CUTS = (10, 20, 100)
TOP = 20


class Query(NamedTuple):
    """Prediction of the items that a user takes next.

    Attributes
    ----------
    targets
        The relevant items; one, except for a whole basket.
    barred
        Items that are not ranked, the user's last one among them.
    """

    targets: tuple[str, ...]
    barred: frozenset[str]


class Step(NamedTuple):
    """An event to learn, and the queries just before it.

    A frozen step is not learned: its event is only added to the user's history.
    """

    event: Interaction
    query: Query | None = None
    basket: Query | None = None
    is_frozen: bool = False


def sort_and_shuffle(events: Iterable[Interaction], *, seed: int = 7) -> list[Interaction]:
    """Events by time without exact duplicates; those of one time shuffled, each user's together.

    >>> late, early = Interaction("u", "b", "click", 2), Interaction("u", "a", "click", 1)
    >>> sort_and_shuffle([late, early, late]) == [early, late]
    True
    """
    rng = random.Random(seed)
    distinct = sorted(dict.fromkeys(events), key=lambda event: event.at_s)
    ordered: list[Interaction] = []
    for _, moment in itertools.groupby(distinct, key=lambda event: event.at_s):
        users: dict[str, list[Interaction]] = {}
        for event in moment:
            users.setdefault(event.user, []).append(event)
        order = list(users)
        rng.shuffle(order)
        for user in order:
            rng.shuffle(users[user])
            ordered += users[user]
    return ordered


def steps(
    events: Sequence[Interaction],
    kind: RepeatPolicy,
    *,
    max_queries: int,
    seed: int = 7,
    warm_up: float = WARM_UP,
) -> list[Step]:
    """Steps of the ordered events, with queries by the protocol of this module.

    `warm_up` is the share of events that only teach.
    """
    warm = int(len(events) * warm_up)
    planned = (
        _basket_steps(events, warm, seed=seed)
        if kind == "baskets"
        else _choice_steps(events, kind, warm)
    )
    eligible = [n for n, step in enumerate(planned) if step.query]
    every = max(1, math.ceil(len(eligible) / max_queries))
    queried = set(eligible[::every])
    baskets = [n for n, step in enumerate(planned) if step.basket]
    queried_baskets = set(baskets[:: max(1, math.ceil(len(baskets) / max_queries))])
    return [
        Step(
            step.event,
            step.query if n in queried else None,
            step.basket if n in queried_baskets else None,
        )
        for n, step in enumerate(planned)
    ]


def split_steps(
    train: Sequence[Interaction],
    test: Sequence[Interaction],
    *,
    frozen: bool,
    kind: RepeatPolicy = "sessions",
) -> list[Step]:
    """Steps of a given split: each event of a user in the test but the first is a query.

    Nothing is barred, as in evaluations of session recommenders; with the kind "users", only items
    that are new to a user are asked for, and those that are not are barred. Unless the test is
    frozen, its events are learned after their queries.
    """
    planned = [Step(event) for event in train]
    seen: dict[str, set[str]] = {}
    for event in train if kind == "users" else ():
        seen.setdefault(event.user, set()).add(event.item)
    known: set[str] = set()
    for event in test:
        past = seen.setdefault(event.user, set())
        query = None
        if event.user in known and kind != "users":
            query = Query((event.item,), frozenset())
        elif event.user in known and event.item not in past:
            query = Query((event.item,), frozenset(past))
        planned.append(Step(event, query, is_frozen=frozen))
        known.add(event.user)
        past.add(event.item)
    return planned


def _choice_steps(events: Sequence[Interaction], kind: RepeatPolicy, warm: int) -> list[Step]:
    last: dict[str, str] = {}
    seen: dict[str, set[str]] = {}
    planned = []
    for number, event in enumerate(events):
        past = seen.setdefault(event.user, set())
        query = None
        if number >= warm and past and event.item != last[event.user]:
            if kind == "sessions":
                query = Query((event.item,), frozenset([last[event.user]]))
            elif event.item not in past:
                query = Query((event.item,), frozenset(past))
        planned.append(Step(event, query))
        last[event.user] = event.item
        past.add(event.item)
    return planned


def _basket_steps(events: Sequence[Interaction], warm: int, *, seed: int) -> list[Step]:
    """One completion query for a basket of two lines or more, and a query for each whole basket."""
    rng = random.Random(seed)
    known: set[str] = set()
    planned: list[Step] = []
    for (user, _), lines in itertools.groupby(events, key=lambda event: (event.user, event.at_s)):
        basket = list(dict.fromkeys(lines))
        items = [event.item for event in basket]
        completed = rng.randrange(1, len(basket)) if len(basket) > 1 else 0
        for at, event in enumerate(basket):
            counts = len(planned) >= warm
            query = whole = None
            if counts and at and at == completed and event.item not in items[:at]:
                query = Query((event.item,), frozenset(items[:at]))
            if counts and at == 0 and user in known:
                whole = Query(tuple(dict.fromkeys(items)), frozenset())
            planned.append(Step(event, query, whole))
        known.add(user)
    return planned


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
