"""Boosts, pins and caps, on the items of an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import msgspec

from models.ranking.explanations import Reason
from models.ranking.selection import CapGroup
from models.serving.answers import Recommendation
from models.serving.merchandising.rules import Cap


def boosted(
    items: Sequence[Recommendation], among: Collection[str], factor: float
) -> list[Recommendation]:
    """The items with some scores multiplied, best first; equal scores keep their order.

    >>> tent, lamp = Recommendation("tent", 0.4), Recommendation("lamp", 0.3)
    >>> [one.item_id for one in boosted([tent, lamp], ["lamp"], 2.0)]
    ['lamp', 'tent']
    """
    changed = [
        msgspec.structs.replace(item, score=item.score * factor) if item.item_id in among else item
        for item in items
    ]
    return sorted(changed, key=lambda one: -one.score)


def pinned(
    items: Sequence[Recommendation], pins: Mapping[int, str], k: int
) -> list[Recommendation]:
    """The items with pinned ones at their slots, from 1; where too few are left, behind the last.

    >>> tent, lamp = Recommendation("tent", 0.4), Recommendation("lamp", 0.3)
    >>> [one.item_id for one in pinned([tent, lamp], {1: "stove", 3: "tent"}, 3)]
    ['stove', 'lamp', 'tent']
    """
    if not pins:
        return [*items[:k]]
    by_id = {item.item_id: item for item in items}
    placed = {
        slot: by_id.get(item_id) or Recommendation(item_id, 0.0, (Reason("pinned"),))
        for slot, item_id in sorted(pins.items())
    }
    chosen = frozenset(pins.values())
    others = iter([item for item in items if item.item_id not in chosen])
    found: list[Recommendation] = []
    for slot in range(1, k + 1):
        one = placed.pop(slot, None) or next(others, None)
        if one is None:
            break
        found.append(one)
    return [*found, *placed.values()][:k]


def capped(
    items: Sequence[str],
    groups: Mapping[str, Collection[CapGroup]],
    caps: Sequence[Cap],
    *,
    first: Sequence[str] = (),
) -> list[str]:
    """The items, in their order, without those that a cap leaves no room for.

    Parameters
    ----------
    groups
        The cap groups of each item, see `value_groups`; none for an item that is never capped.
    first
        Items that count before all others and stay, whether they are among the items or not.

    Examples
    --------
    >>> brands = {"tent": [("brand", "acme")], "lamp": [("brand", "acme")]}
    >>> capped(["tent", "lamp", "rope"], brands, [Cap("brand", 1)])
    ['tent', 'rope']
    """
    most = {
        one.property: min(cap.most for cap in caps if cap.property == one.property) for one in caps
    }
    counts = dict(Counter(one for item in first for one in groups.get(item, ())))
    stays, kept = frozenset(first), list[str]()
    for item in items:
        own = () if item in stays else groups.get(item, ())
        for one in own:
            if counts.get(one, 0) >= most[one[0]]:
                break
        else:
            for one in own:
                counts[one] = counts.get(one, 0) + 1
            kept.append(item)
    return kept
