"""Recorded events as interactions for evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from models.errors import InvalidEvent
from models.state.users.interactions import Interaction
from streams.recordings.recorded_events import RecordedRow

MAX_SHOWN = 3


def interactions(
    rows: Iterable[RecordedRow], *, min_value: float | None = None
) -> tuple[list[Interaction], list[tuple[int, str]]]:
    """Interactions of recorded rows, and the places of bad rows with the first reasons.

    Events without an item are left out; with `min_value` also those with a smaller eventValue, such
    as low ratings, or without one.
    """
    found: list[Interaction] = []
    bad: list[tuple[int, str]] = []
    for place, row in rows:
        if isinstance(row, InvalidEvent):
            bad.append((place, str(row) if len(bad) < MAX_SHOWN else ""))
            continue
        owner = row.user_id or row.session_id
        found += [
            Interaction(owner, event.item_id, event.event_type, event.sent_at)
            for event in row.event_list
            if event.item_id and (min_value is None or (event.event_value or 0.0) >= min_value)
        ]
    return found, bad
