"""Thompson sampling of new items, and what drawn rankers vote for."""

from __future__ import annotations

import numpy as np

from models.serving.exploration import thompson_order


def test_items_without_success_are_sampled_less() -> None:
    """An item never shown comes first far more often than one shown a hundred times in vain."""
    rng = np.random.default_rng(7)
    events, shown = np.zeros(2), np.array([0.0, 100.0])

    firsts = [int(thompson_order(events, shown, 1, rng)[0]) for _ in range(300)]

    assert firsts.count(0) > 280
    assert len(thompson_order(events, shown, 5, rng)) == 2
