"""Outcomes of served lists: the events that count for each of their items.

An event counts for one list at most, as in `models.state.outcomes`: the one that it names, else the
last that showed its item to its user or session within the window before it.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from models.evaluation.drawn_lists import RewardedList
from models.served_messages import ServedList

Reward = Literal["clicks", "conversions", "value"]


class TakenItem(NamedTuple):
    """An event of a user on an item.

    Attributes
    ----------
    owners
        "u:<user>" and "s:<session>" of whom it is.
    list_id
        The list that it names; empty for none.
    """

    item_id: str
    owners: tuple[str, ...]
    at_s: float
    list_id: str
    is_purchase: bool
    value: float


def rewarded_lists(
    served: Iterable[ServedList], taken: Iterable[TakenItem], reward: Reward, *, window_s: float
) -> list[RewardedList]:
    """The lists with what each item brought: 1 if it was clicked or bought, or the sum of values.

    A list that is there twice counts once.
    """
    lists = sorted({one.recommendation_id: one for one in served}.values(), key=_served_at)
    by_id = {one.recommendation_id: number for number, one in enumerate(lists)}
    shown = defaultdict[tuple[str, str], list[int]](list)
    for number, one in enumerate(lists):
        for owner in _owners(one):
            for item_id in one.items:
                shown[owner, item_id].append(number)
    rewards = [[0.0] * len(one.items) for one in lists]
    for event in taken:
        is_counted = {
            "clicks": not event.is_purchase,
            "conversions": event.is_purchase,
            "value": True,
        }[reward]
        found = _counts_for(event, lists, by_id, shown, window_s) if is_counted else None
        if found is None:
            continue
        place = lists[found].items.index(event.item_id)
        if reward == "value":
            rewards[found][place] += event.value
        else:
            rewards[found][place] = 1.0
    return [RewardedList(*pair) for pair in zip(lists, rewards, strict=True)]


def _counts_for(
    event: TakenItem,
    lists: Sequence[ServedList],
    by_id: dict[str, int],
    shown: dict[tuple[str, str], list[int]],
    window_s: float,
) -> int | None:
    """Number of the list that an event counts for."""
    named = by_id.get(event.list_id)
    if named is not None and event.item_id in lists[named].items:
        return named
    best: int | None = None
    for owner in event.owners:
        numbers = shown.get((owner, event.item_id), ())
        at = bisect_right(numbers, event.at_s, key=lambda number: lists[number].served_at)
        if at and lists[numbers[at - 1]].served_at >= event.at_s - window_s:
            best = numbers[at - 1] if best is None else max(best, numbers[at - 1])
    return best


def _served_at(one: ServedList) -> tuple[float, str]:
    return one.served_at, one.recommendation_id


def _owners(one: ServedList) -> list[str]:
    owners = [f"u:{one.user_id}"] if one.user_id else []
    return [*owners, f"s:{one.session_id}"] if one.session_id else owners
