"""Features of users for the next-best-action recipe, as they are when an action is shown.

An interaction with an action is counted under each of its features' values, once for each outcome,
as contexts are (context_counts.lua): in the atomic step, decayed, and without the name of any user.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from models.metadata_records import Properties, categories_of
from models.state import layout
from models.state.catalogue.metadata import stored_properties
from models.state.histories import History, merge_histories, unpack_history
from models.state.store import Store

OUTCOMES: Final = ("taken", "nottaken", "viewed")
"""Outcomes of showing an action: event types TAKEN, NOT_TAKEN and VIEWED, folded."""

FEATURES: Final = ("activity", "response", "before", "interest", "profile")

COLUMNS: Final = tuple(f"{outcome}{feature}" for outcome in OUTCOMES for feature in FEATURES)
"""Contextual columns of a group of actions."""

EVERY: Final = "activity"
"""The feature that every interaction has: its columns count all of them."""

LAST_ITEMS, MAX_INTERESTS = 10, 3
"""Items of the user whose categories count, and the most frequent of these."""

LAST_DECISIONS = 10
MAX_ACTIVITY = 10
FEW, MANY = 1 / 3, 2 / 3
"""Shares of taken actions among a user's last decisions, up to which they are few, and not many."""


class UserFeatures(NamedTuple):
    """Features of a user at a moment.

    Attributes
    ----------
    values
        Values by feature, but `before`, which is of an action.
    decided
        The last decision about each action by its index: `taken` or `nottaken`.
    last_s
        Time of the last interaction with each action by its index, Unix seconds.
    """

    values: Mapping[str, Sequence[str]]
    decided: Mapping[int, str]
    last_s: Mapping[int, float]

    def of_action(self, index: int) -> dict[str, Sequence[str]]:
        """Values by feature where an action is shown; the index 0 is of a new one."""
        return {**self.values, "before": [self.decided.get(index, "never")]}


def outcome_of(event_type: str) -> str:
    """The outcome that an event type stands for, in any spelling; empty for another type.

    >>> outcome_of("Not Taken"), outcome_of("TAKEN"), outcome_of("click")
    ('nottaken', 'taken', '')
    """
    folded = event_type.replace("_", "").replace(" ", "").lower()
    return folded if folded in OUTCOMES else ""


def action_event_type(event_type: str) -> str:
    """TAKEN, NOT_TAKEN or VIEWED for an event type in any spelling; empty for another type.

    >>> action_event_type("Not Taken"), action_event_type("nottaken"), action_event_type("click")
    ('NOT_TAKEN', 'NOT_TAKEN', '')
    """
    outcome = outcome_of(event_type)
    return "NOT_TAKEN" if outcome == "nottaken" else outcome.upper()


def counted_context(event_type: str, values: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The context of an interaction as the atomic step counts it; empty for other event types.

    >>> counted_context("TAKEN", {"activity": ["3"], "interest": []})
    {'takenactivity': ['3']}
    """
    outcome = outcome_of(event_type)
    if not outcome:
        return {}
    return {f"{outcome}{name}": [*found] for name, found in values.items() if found}


async def read_user_features(
    items: Store, actions: Store, user_id: str | None, session_id: str | None
) -> UserFeatures:
    """The features of a user, or of an anonymous session, as they are now; two round trips.

    Parameters
    ----------
    items, actions
        States of the dataset group, and of its actions.
    """
    owners = [f"history:s:{name}" for name in dict.fromkeys((session_id, user_id)) if name]
    if user_id:
        owners.append(f"history:u:{user_id}")
    pipe = items.redis.pipeline(transaction=False)
    pipe.hget(items.key("users"), user_id or "")
    pipe.hgetall(actions.key("types"))
    for store in (items, actions):
        if owners:
            pipe.mget([store.key(owner) for owner in owners])
    raw, types, *histories = await pipe.execute()
    seen, answered = (_merged(one) for one in histories) if owners else (_merged(()), _merged(()))
    last = [index for index in dict.fromkeys(seen.items[::-1].tolist()) if index > 0][:LAST_ITEMS]
    categories = await items.redis.hmget(items.key("categories"), last) if last else []
    return features_of(
        seen,
        answered,
        layout.type_names(types),
        [msgspec.msgpack.decode(one, type=list[str]) for one in categories if one],
        stored_properties(raw),
    )


def features_of(
    seen: History,
    answered: History,
    types: Mapping[int, str],
    categories: Iterable[Sequence[str]],
    properties: Properties | None,
) -> UserFeatures:
    """Features out of a user's events on items and on actions.

    Parameters
    ----------
    types
        Event types on actions by code.
    categories
        Of each of the user's last items.
    properties
        The user's metadata record; None without one.

    Examples
    --------
    >>> from models.state.histories import NO_HISTORY
    >>> found = features_of(NO_HISTORY, NO_HISTORY, {}, [["a=b"], ["a=b", "a=c"]], {"AGE": "young"})
    >>> found.of_action(0)["interest"], found.of_action(0)["before"]
    (['a=b', 'a=c'], ['never'])
    """
    decided: dict[int, str] = {}
    decisions: list[bool] = []
    for index, code in zip(answered.items.tolist(), answered.types.tolist(), strict=True):
        outcome = outcome_of(types.get(code, ""))
        if index and outcome in {"taken", "nottaken"}:
            decided[index] = outcome
            decisions.append(outcome == "taken")
    counted = Counter(name.casefold() for names in categories for name in names)
    values = {
        "activity": [str(min(int(math.log2(1 + seen.count)), MAX_ACTIVITY))],
        "response": [_response(decisions[-LAST_DECISIONS:])],
        "interest": [name for name, _ in counted.most_common(MAX_INTERESTS)],
        "profile": [name.casefold() for name in categories_of(properties or {})],
    }
    last_s = dict(zip(answered.items.tolist(), answered.times.tolist(), strict=True))
    return UserFeatures(values, decided, last_s)


def _response(decisions: Sequence[bool]) -> str:
    """Answers of the user to actions lately; an action that is only seen is no answer."""
    if not decisions:
        return "none"
    share = float(np.mean(decisions))
    return "few" if share <= FEW else "some" if share <= MANY else "many"


def _merged(raws: Iterable[bytes | None]) -> History:
    merged = unpack_history(None)
    for raw in raws:
        if raw:
            merged = merge_histories(merged, unpack_history(raw))
    return merged
