"""Negative feedback of one user: items that leave the answers, and how far similar ones sink.

Pure functions on arrays; nothing here reads a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.retrieval.candidates import Candidates
from models.retrieval.covisitation import BOTH, unpack_neighbours
from models.retrieval.signals import BOTH_10, TINY
from models.retrieval.user_neighbours import NeighbourItems
from models.state import layout
from models.state.histories import History, effects, item_indexes

STRENGTHS = {
    layout.HIDES: 1.0,
    layout.SINKS: 0.3,
    layout.TAKES_BACK_CART: 0.2,
    layout.TAKES_BACK_PURCHASE: 0.5,
}
"""Weight of an event of each effect against its item and similar ones."""

MAX_ITEMS = 20
"""Items of the newest negative events that count."""

PENALTY = 0.5
"""Most that a score loses for its item's similarity to a disliked one, in log-odds. More costs
hits where what is seen together has little to do with what is disliked: docs/quality.md."""


NO_STRENGTHS: Floats = np.empty(0)


LAST = 1000.0
"""Loss of a disliked item's score where items are given: all others come before it."""


class NegativeFeedback(NamedTuple):
    """Items that a user has shown no interest in.

    Attributes
    ----------
    hidden
        Items that are in no answer to the user.
    items, strengths
        ``(n,)`` distinct items that the user turned away from, the newest first.
    """

    hidden: Indexes = NO_ITEMS
    items: Indexes = NO_ITEMS
    strengths: Floats = NO_STRENGTHS


NO_NEGATIVE_FEEDBACK = NegativeFeedback()


def negative_feedback_of(history: History, strong_types: NDArray[np.bool_]) -> NegativeFeedback:
    """The negative feedback of a history: of each item, what came last; O(events).

    A later event of a strong type, such as a purchase, is interest again; a click is not.
    """
    hidden: list[int] = []
    strengths: dict[int, float] = {}
    wanted_again: set[int] = set()
    indexes, codes = item_indexes(history), effects(history)
    for at in range(len(indexes) - 1, -1, -1):
        item, effect = int(indexes[at]), int(codes[at])
        if item == 0 or item in wanted_again:
            continue
        if effect in STRENGTHS:
            if effect == layout.HIDES:
                hidden.append(item)
            strengths.setdefault(item, STRENGTHS[effect])
        elif not effect and strong_types[history.types[at]]:
            wanted_again.add(item)
    items = list(strengths)[:MAX_ITEMS]
    return NegativeFeedback(
        np.array(list(dict.fromkeys(hidden)), np.int64),
        np.array(items, np.int64),
        np.array([strengths[item] for item in items]),
    )


def penalties(
    candidates: Candidates,
    feedback: NegativeFeedback,
    lists: Sequence[bytes],
    similar_texts: Sequence[NeighbourItems],
    clock_s: float,
) -> Floats:
    """Loss of each candidate's score for being like the items, ``(n,)``.

    Only as far as it is more like one of them than like what the user took: within a visit
    all items have much in common, wanted ones too.

    Parameters
    ----------
    lists, similar_texts
        Stored neighbour list of each item of the feedback; and the items with similar texts.
    """
    table = {item: place for place, item in enumerate(candidates.items.tolist())}
    wanted = candidates.signals[:, BOTH_10]
    wanted = wanted / max(wanted.max(initial=0.0), TINY)
    alike = np.zeros(len(wanted))
    for item, strength, raw, texts in zip(
        feedback.items.tolist(), feedback.strengths.tolist(), lists, similar_texts, strict=True
    ):
        own = np.zeros(len(wanted))
        neighbours = unpack_neighbours(raw, clock_s)
        shares = neighbours.shares[:, BOTH]
        of_events = shares / max(shares.max(initial=0.0), TINY)
        # Weights of texts are squares of cosines.
        of_texts = np.sqrt(texts.weights)
        for found, weights in ((neighbours.items, of_events), (texts.items, of_texts)):
            for other, weight in zip(found.tolist(), weights.tolist(), strict=True):
                place = table.get(other)
                if place is not None:
                    own[place] = max(own[place], weight)
        own = np.maximum(own - wanted, 0.0)
        if item in table:
            own[table[item]] = 1.0
        alike += strength * own
    lost = PENALTY * np.minimum(alike, 1.0)
    for item in feedback.hidden.tolist():
        if item in table:
            lost[table[item]] = LAST
    return lost
