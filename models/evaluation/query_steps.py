"""Steps of an evaluation: recorded events in order of time, and the queries before each.

Exact duplicates are dropped, and events of one time shuffled, since their order carries no
information. The first tenth is for learning only. After that an event is a query if its user has a
history and its item is not the last one again.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from models.state.users.interactions import Interaction

RepeatPolicy = Literal["sessions", "users", "baskets"]
"""Treatment of repeats: sessions return to items, users want new ones, baskets come at once."""

WARM_UP = 0.1


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
