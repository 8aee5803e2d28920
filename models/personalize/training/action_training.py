"""Training of the next-best-action recipe: which actions have interactions enough for a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from models.state.store import Store
from models.state.users.action_features import outcome_of
from models.state.users.interactions import Interaction, histories

SCORED_FROM = 50
"""Interactions of the type TAKEN, and of the other two types together, from which on an action has
a score; as Amazon documents it."""

SPAN_S = 6 * 7 * 86_400
"""Only interactions that are at most so much older than the newest count."""


async def scored_actions(store: Store) -> list[str]:
    """Actions with interactions enough, by their ids; O(keys of all groups).

    `store` is that of the actions.
    """
    newest_s = (await store.counts()).get("clock", 0.0)
    counted: Counter[tuple[str, bool]] = Counter()
    async for _, own, _ in histories(store):
        counted.update(counts_of(own, since_s=newest_s - SPAN_S))
    return enough(counted)


def counts_of(interactions: Iterable[Interaction], *, since_s: float) -> Counter[tuple[str, bool]]:
    """Interactions by action and whether it was taken; those before a time are left out."""
    found: Counter[tuple[str, bool]] = Counter()
    for one in interactions:
        outcome = outcome_of(one.type)
        if outcome and one.at_s >= since_s:
            found[one.item, outcome == "taken"] += 1
    return found


def enough(counted: Counter[tuple[str, bool]], *, least: int = SCORED_FROM) -> list[str]:
    """The actions that were taken, and not taken or viewed, so often at least.

    >>> counted = Counter({("join", True): 50, ("join", False): 50, ("app", True): 99})
    >>> enough(counted)
    ['join']
    """
    return sorted(
        action
        for action, is_taken in counted
        if is_taken and min(counted[action, True], counted[action, False]) >= least
    )
