"""Purchases and dislikes in a generated shop whose truth is known: what orders find of them.

    python -m benchmarks.behaviour              the generated shop
    python -m benchmarks.behaviour FILE         recorded events with types, such as OTTO's

The shop has 30 categories of 20 items in 4 styles. A visit is for one category, and a visitor looks
at items there by their appeal, whatever they are worth; what is put into the cart is by worth, of
the style that the visitor likes, and two of three carts are bought. After a purchase half of the
visitors buy the item that goes with it, of another category, without having looked at it. Of a
style that a visitor dislikes, half of what is looked at is disliked, and never looked at again. So
clicks lead to items of appeal, purchases to items of worth and to what goes with them, and dislikes
to a style. Asked is before each purchase, for what comes next beside the last item.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.conditions import report
from models.evaluation.intervals import interval
from models.evaluation.protocol import measures
from models.ranking.champions import OBJECTIVES, Objective
from models.retrieval import negative_feedback
from models.retrieval.candidates import TOP_LIST_SIZES
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.event_types import EventTypes
from models.state.users.interactions import Interaction
from ops.embedded_servers import start_redis
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import read_events

START_S = 1_780_000_000.0
CATEGORIES, STYLES, ITEMS_OF_STYLE = 30, 4, 5
WARM_UP = 0.2


class Item(NamedTuple):
    """An item of the generated shop: how much it is looked at, and how much it is wanted."""

    name: str
    category: int
    style: int
    appeal: float
    worth: float


def catalogue(chance: random.Random) -> list[Item]:
    """All items; appeal and worth have nothing to do with each other."""
    return [
        Item(
            f"i{category}-{style}-{n}", category, style,
            chance.paretovariate(1.2), chance.betavariate(0.5, 0.8),
        )
        for category in range(CATEGORIES)
        for style in range(STYLES)
        for n in range(ITEMS_OF_STYLE)
    ]  # fmt: skip


def visits(n: int, seed: int) -> Iterator[Interaction]:
    """Events of so many visits, by 600 visitors."""
    chance = random.Random(seed)
    items = catalogue(chance)
    of_category = [[one for one in items if one.category == c] for c in range(CATEGORIES)]
    goes_with = {one.name: chance.choice(items).name for one in items}
    visitors = [(f"v{n}", chance.sample(range(STYLES), 2)) for n in range(600)]
    at_s, turned_away = START_S, set[tuple[str, str]]()
    for _ in range(n):
        visitor, (liked, disliked) = chance.choice(visitors)
        shelf = of_category[chance.randrange(CATEGORIES)]
        shelf = [one for one in shelf if (visitor, one.name) not in turned_away]
        drawn_to = {liked: 3.0, disliked: 0.5}
        weights = [one.appeal * drawn_to.get(one.style, 1.0) for one in shelf]
        at_s += 600.0
        carts: list[Item] = []
        for one in chance.choices(shelf, weights, k=chance.randint(2, 7)):
            if (visitor, one.name) in turned_away:
                continue
            at_s += 20.0
            if one.style == disliked and chance.random() < 0.5:
                turned_away.add((visitor, one.name))
                yield Interaction(visitor, one.name, "dislike", at_s, True)
                continue
            yield Interaction(visitor, one.name, "click", at_s)
            fits = {liked: 1.0, disliked: 0.0}.get(one.style, 0.3)
            if chance.random() < one.worth * fits:
                at_s += 5.0
                carts.append(one)
                yield Interaction(visitor, one.name, "cart", at_s)
        for one in carts:
            at_s += 30.0
            if chance.random() < 2 / 3:
                yield Interaction(visitor, one.name, "purchase", at_s)
                if chance.random() < 0.5:
                    at_s += 30.0
                    yield Interaction(visitor, goes_with[one.name], "purchase", at_s)


class Asked(NamedTuple):
    """One query: by objective the target's rank, 0 if it is not among the best 20.

    `disliked_share` is that of items of the style that the visitor dislikes, among the best 20 for
    interactions.
    """

    kind: str
    ranks: dict[Objective, int]
    disliked_share: float = 0.0


def of_purchases(events: Sequence[Interaction], settings: Settings) -> list[Asked]:
    """Ask by each objective for each purchase."""
    types = EventTypes.of(settings)
    return _asked(events, settings, OBJECTIVES, lambda _, event: types.is_purchase(event.type))


def of_interactions(
    events: Sequence[Interaction], settings: Settings, *, with_dislikes: bool = True
) -> list[Asked]:
    """Ask for every third event of visitors who have disliked something."""
    return _asked(
        events, settings, ("interactions",), lambda number, _: number % 3 == 0,
        only_with_dislikes=True, learns_dislikes=with_dislikes,
    )  # fmt: skip


def _asked(
    events: Sequence[Interaction],
    settings: Settings,
    objectives: Sequence[Objective],
    is_asked: Callable[[int, Interaction], bool],
    *,
    only_with_dislikes: bool = False,
    learns_dislikes: bool = True,
) -> list[Asked]:
    """Each query is asked before the event that it is for is learned, as a worker would."""
    types = EventTypes.of(settings)
    last: dict[str, str] = {}
    own: dict[str, set[str]] = defaultdict(set)
    styles: dict[str, str] = {}
    found: list[Asked] = []
    with LocalRecommender(settings, list_sizes=TOP_LIST_SIZES, seed=1) as local:
        for number, event in enumerate(events):
            user, item, kind, at_s, *_ = event
            is_negative = types.effect(kind) > 0
            is_late = number > WARM_UP * len(events) and item != last.get(user, item)
            is_meant = user in styles or not only_with_dislikes
            if is_late and is_meant and not is_negative and is_asked(number, event):
                ranks: dict[Objective, int] = {}
                best: list[str] = []
                for objective in objectives:
                    ranked = local.recommend(user, k=20, barred=[last[user]], objective=objective)
                    best = [name for name, _ in ranked]
                    ranks[objective] = best.index(item) + 1 if item in best else 0
                is_of_style = [one.split("-")[1:2] == [styles.get(user)] for one in best]
                share = sum(is_of_style) / max(1, len(best))
                found.append(Asked("new" if item not in own[user] else "own", ranks, share))
            if is_negative:
                styles[user] = item.split("-")[1]
            else:
                last[user] = item
                own[user].add(item)
            if learns_dislikes or not is_negative:
                local.learn(user, item, kind, at_s=at_s)
    return found


def compared(one: Sequence[int], other: Sequence[int]) -> dict[str, object]:
    """MRR@20 and HR@20 of two orders on the same queries, and the differences with intervals."""
    both = [measures(ranks) for ranks in (one, other)]
    table: dict[str, object] = {"queries": len(one)}
    for name in ("mrr_20", "hr_20"):
        mean, half = interval(both[1][name] - both[0][name])
        table[name] = {
            "before": round(float(both[0][name].mean()), 4),
            "after": round(float(both[1][name].mean()), 4),
            "difference": round(mean, 4),
            "ci95": round(half, 4),
        }
    return table


def by_objective(found: Sequence[Asked]) -> dict[str, object]:
    """The order for purchases beside that for interactions: of all, new and own items."""
    groups = {"all": found} | {
        kind: [one for one in found if one.kind == kind] for kind in ("new", "own")
    }
    return {
        kind: compared(*([one.ranks[name] for one in asked] for name in OBJECTIVES))
        for kind, asked in groups.items()
        if asked
    }


def by_penalty(
    events: Sequence[Interaction], settings: Settings, penalties: Sequence[float]
) -> dict[str, object]:
    """Dislikes by how much similar items sink, beside the same shop without its dislikes."""
    usual, table = negative_feedback.PENALTY, dict[str, object]()
    before = of_interactions(events, _in_group(settings, "none"), with_dislikes=False)
    for penalty in penalties:
        negative_feedback.PENALTY = penalty
        after = of_interactions(events, _in_group(settings, f"by-{penalty}"))
        ranks = ([one.ranks["interactions"] for one in side] for side in (before, after))
        shares = [sum(one.disliked_share for one in side) / len(side) for side in (before, after)]
        table[f"penalty {penalty}"] = {
            **compared(*ranks),
            "of the disliked style": [round(share, 4) for share in shares],
        }
    negative_feedback.PENALTY = usual
    return table


def _in_group(settings: Settings, group: str) -> Settings:
    return settings.model_copy(update={"group": group})


def recorded(file: Path) -> list[Interaction]:
    """Events of a file, in order of time."""
    rows = read_events(file, now_s=time.time())
    return sorted(interactions(rows)[0], key=lambda one: one.at_s)


def main() -> None:
    """Print a JSON report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--visits", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--penalties", type=float, nargs="*", default=[])
    arguments = parser.parse_args()
    if arguments.file:
        events = recorded(arguments.file)
    else:
        events = list(visits(arguments.visits, arguments.seed))
    found: dict[str, object] = {"events": len(events)}
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            settings = Settings(redis=server.url, group="behaviour", cache_s=0)
            found["purchases"] = by_objective(of_purchases(events, settings))
            if arguments.penalties:
                found["dislikes"] = by_penalty(events, settings, arguments.penalties)
        finally:
            server.stop()
    report("behaviour", found)


if __name__ == "__main__":
    main()
