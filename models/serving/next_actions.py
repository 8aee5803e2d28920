"""Next best actions: those that a user is likeliest to take, within the rules of the actions.

Actions are the items of a state group of their own (`models.action_groups`). An action that has
expired, or that the user had to do with less than its repeat frequency ago, is left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.events import in_seconds
from models.metadata_records import Properties, created_at, named_values
from models.ranking.context_lift import unpack_counts
from models.ranking.propensity import OutcomeCounts, propensities
from models.serving.item_filters import ItemFilter
from models.serving.recommender import Recommender
from models.state import layout
from models.state.store import Store
from models.state.users.action_features import EVERY, OUTCOMES, UserFeatures, read_user_features

MAX_CONSIDERED = 1000
"""Actions that are considered: those with the newest interactions and records first."""

EXPIRES = ("ACTION_EXPIRATION_TIMESTAMP", "EXPIRATION_TIMESTAMP")
REPEATS, VALUE = "REPEAT_FREQUENCY", "VALUE"
MAX_REPEAT_DAYS = 30

DECISIONS = ("never", "taken", "nottaken")
"""Values of the feature `before`."""


class RankedAction(NamedTuple):
    """An action with the user's propensity to take it; 0.0 where too little is known."""

    action_id: str
    score: float


class _Candidate(NamedTuple):
    number: int
    action_id: str
    properties: Properties


@dataclass(frozen=True)
class ActionRequest:
    """A request for actions.

    Attributes
    ----------
    length
        Actions wanted, at most.
    filter
        Which actions the answer may hold; None for all.
    scored
        Actions that have a score; all others are explored.
    """

    user_id: str | None
    length: int
    filter: ItemFilter | None
    scored: Collection[str]


async def next_actions(
    items: Store, recommender: Recommender, request: ActionRequest, *, now_s: float
) -> list[RankedAction]:
    """Actions for a user, the likeliest first; five round trips.

    Without a user id by the rates of all users.
    Of equally likely ones (by two digits) the more valuable comes first. The last places go to
    actions without a score, as many as `exploration_share` says, or more where few have one: those
    that were shown least, the valuable and then the new ones first.

    Parameters
    ----------
    items
        State of the dataset group, with the user's metadata and events on items.
    recommender
        Of the group's actions.

    Raises
    ------
    InvalidInput
        The filter needs a value that the request lacks.
    """
    known = await _candidates(recommender, now_s)
    user = await read_user_features(items, recommender.store, request.user_id, None)
    known = [one for one in known if is_allowed(one.properties, user.last_s.get(one.number), now_s)]
    if request.filter is not None:
        names = [one.action_id for one in known]
        allowed = {*await request.filter.allowed(recommender, names, now_s=now_s)}
        known = [one for one in known if one.action_id in allowed]
    indexes = np.array([one.number for one in known], np.int64)
    counts, features = await _counts(recommender.store, indexes, user)
    scores = propensities(counts, features)
    shown = counts.shown
    ranked: list[tuple[float, float, str]] = []
    rest: list[tuple[int, float, float, str]] = []
    for one, score, times in zip(known, scores.tolist(), shown.tolist(), strict=True):
        value = _number(one.properties, VALUE)
        if one.action_id in request.scored:
            ranked.append((-float(f"{score:.2g}"), -value, one.action_id))
        else:
            new = -(created_at(one.properties) or 0.0)
            rest.append((round(times), -value, new, one.action_id))
    explored = [name for *_, name in sorted(rest)]
    slots = min(len(explored), recommender.lists.exploration_slots(request.length))
    best = [RankedAction(name, -score) for score, _, name in sorted(ranked)]
    best = best[: request.length - slots]
    left = request.length - len(best)
    return [*best, *(RankedAction(name, 0.0) for name in explored[:left])]


def is_allowed(properties: Properties, last_s: float | None, now_s: float) -> bool:
    """False for an action that has expired, or is not to be repeated yet.

    Parameters
    ----------
    last_s
        Time of the user's last interaction with the action, Unix seconds; None without one.

    Examples
    --------
    >>> day_s = 86400.0
    >>> is_allowed({"REPEAT_FREQUENCY": 7}, 0.0, 6 * day_s), is_allowed({}, 0.0, 1.0)
    (False, True)
    >>> is_allowed({"EXPIRATION_TIMESTAMP": 100}, None, 100.0)
    False
    """
    for name in EXPIRES:
        until = _number(properties, name)
        if until > 0 and now_s >= in_seconds(until):
            return False
    days = min(_number(properties, REPEATS), MAX_REPEAT_DAYS)
    return last_s is None or days <= 0 or now_s - last_s >= days * layout.DAY_S


async def _candidates(recommender: Recommender, now_s: float) -> list[_Candidate]:
    """Actions with a record, those that were interacted with or changed last first."""
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    known = await recommender.store.some_items(MAX_CONSIDERED)
    tops = [shared.top_lists.get(name, NO_ITEMS) for name in ("recent", "fresh")]
    all_of_them = np.concatenate([*tops, known]).astype(np.int64)
    indexes = shared.shown(
        np.array([*dict.fromkeys(all_of_them.tolist())][:MAX_CONSIDERED], np.int64)
    )
    properties = await cache.properties(indexes.tolist(), now_s)
    names = await cache.item_ids.of(indexes.tolist())
    return [
        _Candidate(index, name, row)
        for index, name, row in zip(indexes.tolist(), names, properties, strict=True)
        if name is not None and row is not None
    ]


async def _counts(
    store: Store, indexes: Indexes, user: UserFeatures
) -> tuple[OutcomeCounts, list[list[tuple[OutcomeCounts, Floats]]]]:
    """Counts of the actions, and those under the user's features, as `propensities` takes them."""
    values = {**user.values, "before": DECISIONS}
    named = [(name, value) for name, of_name in values.items() for value in of_name]
    keys = [f"circumstance:{outcome}{EVERY}" for outcome in OUTCOMES]
    keys += [
        f"circumstance:{outcome}{name}={value}" for name, value in named for outcome in OUTCOMES
    ]
    raws = await store.values([store.key(key) for key in keys])
    clock_s = (await store.counts()).get("clock", 0.0)
    n = len(OUTCOMES)
    read = [_of_actions(raws[at : at + n], indexes, clock_s) for at in range(0, len(keys), n)]
    decided = [user.decided.get(index, "never") for index in indexes.tolist()]
    by_feature: dict[str, list[tuple[OutcomeCounts, Floats]]] = {}
    for (name, value), found in zip(named, read[1:], strict=True):
        mask = np.ones(len(indexes))
        if name == "before":
            mask = np.array([one == value for one in decided], np.float64)
        by_feature.setdefault(name, []).append((found, mask))
    return read[0], [*by_feature.values()]


def _of_actions(raws: Sequence[bytes | None], indexes: Indexes, clock_s: float) -> OutcomeCounts:
    found = []
    for raw in raws:
        counted = unpack_counts(raw, clock_s)
        events = dict(zip(counted.items.tolist(), counted.events.tolist(), strict=True))
        found.append(np.array([events.get(index, 0.0) for index in indexes.tolist()]))
    return OutcomeCounts(*found)


def _number(properties: Mapping[str, Any], name: str) -> float:
    """The finite number of a property, also as text; 0 without one."""
    value = named_values(properties, [name]).get(name)
    if isinstance(value, bool) or value is None:
        return 0.0
    try:
        number = float(value)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
