"""Lists of the items whose texts have a term."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from models.state.store import Store


async def term_lists(store: Store, indexes: Sequence[int]) -> list[list[bytes | None]]:
    """Stored list of each term of each item's text; two round trips."""
    if not indexes:
        return []
    stored = await store.packed_terms(indexes)
    terms = [np.frombuffer(raw or b"", "<u4").tolist() for raw in stored]
    distinct = list(dict.fromkeys(itertools.chain.from_iterable(terms)))
    raws = await store.shared_values([store.key(f"term:{term}") for term in distinct])
    by_term = dict(zip(distinct, raws, strict=True))
    return [[by_term[term] for term in of_item] for of_item in terms]
