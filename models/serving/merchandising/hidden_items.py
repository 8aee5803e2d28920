"""Items that a request hides: what its user has seen, bought, disliked or been shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import NO_ITEMS
from models.errors import InvalidInput
from models.retrieval.negative_feedback import negative_feedback_of
from models.serving.merchandising.rules import Asker, Hide
from models.serving.recommender import Recommender
from models.state.histories import History, item_indexes
from models.state.outcomes.served_outcomes import shown_lists


async def hidden_items(
    recommender: Recommender,
    hide: Sequence[Hide],
    history: History | None,
    asker: Asker,
    now_s: float,
) -> frozenset[str]:
    """Ids of the items that the user's own events hide, or the lists that were shown."""
    if not hide or history is None:
        return frozenset()
    shown_s = max((window_s for kind, window_s in hide if kind == "shown"), default=0.0)
    shown = await _shown(recommender, asker, now_s - shown_s, now_s) if shown_s else frozenset()
    shared = await recommender.cache.with_types(history.types, now_s)
    is_positive, items = history.items > 0, [NO_ITEMS]
    for kind, window_s in hide:
        is_late = history.times >= now_s - window_s
        if kind == "seen":
            items.append(history.items[is_late & is_positive])
        elif kind == "purchased":
            is_purchase = shared.purchase_types[history.types]
            items.append(history.items[is_late & is_positive & is_purchase])
        elif kind == "disliked":
            disliked = negative_feedback_of(history, shared.strong_types).hidden
            items.append(np.intersect1d(disliked, item_indexes(history)[is_late]))
    own = np.unique(np.concatenate(items))
    item_ids = await recommender.cache.item_ids.of(own.tolist())
    return shown | frozenset(item_id for item_id in item_ids if item_id is not None)


async def _shown(
    recommender: Recommender, asker: Asker, since_s: float, now_s: float
) -> frozenset[str]:
    """Ids of the items of lists that were served to the user or session since a moment."""
    store = recommender.store
    if not store.settings.outcomes:
        raise InvalidInput("hide=shown needs RECOMMENDER_OUTCOMES, which keeps what was shown")
    owners = [] if asker.user_id is None else [f"u:{asker.user_id}"]
    if asker.session_id is not None:
        owners.append(f"s:{asker.session_id}")
        linked = await store.linked_user(asker.session_id, now_s=now_s)
        if linked is not None and asker.user_id is None:
            owners.append(f"u:{linked}")
    lists = [one for one in await shown_lists(store, owners) if one.served_at >= since_s]
    indexes = list(dict.fromkeys(index for one in lists for index in one.indexes))
    item_ids = await recommender.cache.item_ids.of(indexes)
    names = (name for one in lists for name in one.names)
    return frozenset([*(one for one in item_ids if one is not None), *names])
