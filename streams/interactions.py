"""Recorded events as the evaluation takes them."""

from __future__ import annotations

from collections.abc import Iterable

from models.errors import InvalidEvent
from models.evaluation import Interaction
from streams.recordings import Row


def interactions(
    rows: Iterable[Row], *, min_value: float | None = None
) -> tuple[list[Interaction], int]:
    """Who did what to which item when, out of what `read` gives, and how many rows were bad.

    Events without an item are left out, and with `min_value` those of a smaller eventValue or of
    none, such as low ratings.
    """
    found: list[Interaction] = []
    n_bad = 0
    for _, row in rows:
        if isinstance(row, InvalidEvent):
            n_bad += 1
            continue
        owner = row.user_id or row.session_id
        found += [
            Interaction(owner, event.item_id, event.event_type, event.sent_at)
            for event in row.event_list
            if event.item_id and (min_value is None or (event.event_value or 0.0) >= min_value)
        ]
    return found, n_bad
