"""Rules of a request: what its answer may hold, what it prefers, and what stands where.

`models.serving.merchandising.ruled_answers` applies them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from models.filters.filter import Filter

Hidden = Literal["seen", "purchased", "disliked", "shown"]


class Hide(NamedTuple):
    """Items to leave out: of the user's events, of purchases or dislikes, or of the lists shown.

    Those of the last `window_s`.
    """

    kind: Hidden
    window_s: float = math.inf


class Boost(NamedTuple):
    """Items that a filter allows have their score multiplied by a factor."""

    filter: Filter
    factor: float


class Cap(NamedTuple):
    """At most so many items of an answer with the same value of a property."""

    property: str
    most: int


def _reads_user(found: Filter) -> bool:
    return not found.reads.isdisjoint(("interactions", "user"))


class Rules(msgspec.Struct, frozen=True):
    """The rules of one request.

    Attributes
    ----------
    filters
        Each decides which items the answer may hold.
    exclude
        Items to leave out.
    hide
        Items to leave out because of what the user did.
    boosts
        Preferences; the factors of all that allow an item are multiplied.
    pins
        Item by slot, from 1.
    caps
        Bounds of what the items have in common; all hold.
    diversity
        Dial between the order of scores, 0, and items that differ from each other, 1.
    """

    filters: tuple[Filter, ...] = ()
    exclude: frozenset[str] = frozenset()
    hide: tuple[Hide, ...] = ()
    boosts: tuple[Boost, ...] = ()
    pins: Mapping[int, str] = msgspec.field(default_factory=dict)
    caps: tuple[Cap, ...] = ()
    diversity: float = 0.0

    @property
    def reads_user(self) -> bool:
        """True if they depend on what the user did or is."""
        filters = [*self.filters, *(boost.filter for boost in self.boosts)]
        return bool(self.hide) or any(map(_reads_user, filters))

    def without_user(self) -> Rules:
        """The same without what depends on the user."""
        if not self.reads_user:
            return self
        return msgspec.structs.replace(
            self,
            filters=tuple(one for one in self.filters if not _reads_user(one)),
            hide=(),
            boosts=tuple(one for one in self.boosts if not _reads_user(one.filter)),
        )


def joined_rules(every: Sequence[Rules], k: int) -> Rules:
    """Rules that hold together, of an answer of k items.

    All filters and caps hold, all boosts and the greatest diversity count. Of two pins at one slot,
    or of one item, the first stands; pins beyond the answer are left out.
    """
    if len(every) == 1 and max(every[0].pins, default=0) <= k:
        return every[0]
    pins: dict[int, str] = {}
    for slot, item_id in ((slot, one) for rules in every for slot, one in rules.pins.items()):
        if slot <= k and slot not in pins and item_id not in pins.values():
            pins[slot] = item_id
    return Rules(
        filters=tuple(dict.fromkeys(one for rules in every for one in rules.filters)),
        exclude=frozenset().union(*(rules.exclude for rules in every)),
        hide=tuple(dict.fromkeys(one for rules in every for one in rules.hide)),
        boosts=tuple(one for rules in every for one in rules.boosts),
        pins=pins,
        caps=tuple(dict.fromkeys(one for rules in every for one in rules.caps)),
        diversity=max(rules.diversity for rules in every),
    )


class Asker(NamedTuple):
    """User or session that an answer is for, and the item being looked at."""

    user_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None
