"""Histories as they are stored, written by the plainest means: for tests of what reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from models.state import layout


class PackedEvent(NamedTuple):
    """An event of a history: index of its item, Unix seconds, code of its type, effect, hash."""

    item: int
    time: int
    type: int = 1
    effect: int = 0
    hash: int = 0


def pack_history(
    events: Sequence[PackedEvent], *, count: int = 0, number: int = 1, accepted_at: float = 0.0
) -> bytes:
    """Events, oldest first, in the narrowest columns."""
    types = {event.type for event in events}
    effects = bytes(event.effect for event in events)
    is_wide = any(event.item >= 2**16 for event in events)
    flags = (
        layout.HAS_WIDE_ITEMS * is_wide
        + layout.HAS_TYPES * (len(types) > 1)
        + layout.HAS_EFFECTS * any(effects)
    )
    head = layout.HISTORY_HEAD.pack(
        count or len(events), number, accepted_at, events[-1].time if events else 0, len(events),
        flags, events[0].type if events else 0,
    )  # fmt: skip
    times = [event.time for event in events]
    return b"".join(
        [
            head,
            *(event.hash.to_bytes(layout.EVENT_HASH.itemsize, "little") for event in events),
            *(event.item.to_bytes(3 if is_wide else 2, "little") for event in events),
            bytes(event.type for event in events) if len(types) > 1 else b"",
            effects if any(effects) else b"",
            *(gap_code(after - before) for before, after in itertools.pairwise(times)),
        ]
    )


def gap_code(gap: int) -> bytes:
    """Seconds from an event to the next, in the shortest code.

    >>> [gap_code(gap).hex() for gap in (5, 127, 128, 24_703, 24_704, 2_056_319, 2_056_320)]
    ['05', '7f', '8000', 'dfff', 'e00000', 'feffff', 'ff001f6080']
    """
    for first, begin, n in (
        (layout.FIVE_BYTES, layout.FIRST_OF_FIVE, 5),
        (layout.THREE_BYTES, layout.FIRST_OF_THREE, 3),
        (layout.TWO_BYTES, layout.FIRST_OF_TWO, 2),
    ):
        if gap >= begin:
            held = gap if n == 5 else gap - begin
            return (held + (first << 8 * (n - 1))).to_bytes(n, "big")
    return gap.to_bytes(1, "big")
