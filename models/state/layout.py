"""The store's binary layouts: apply_group.lua writes them, the code beside it reads them."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

EPOCH = 1_577_836_800
"""2020-01-01 in Unix seconds: decay counts time from here, which keeps the logarithms small."""

DAY_S = 86400.0


class PairChannel(NamedTuple):
    """One way of counting that two items were seen together."""

    name: str
    half_life_s: float


PAIR_CHANNELS = (
    PairChannel("next", 180 * DAY_S),
    PairChannel("after", 180 * DAY_S),
    PairChannel("before", 180 * DAY_S),
    PairChannel("day", DAY_S),
    PairChannel("month", 30 * DAY_S),
)
"""next: directly after; after, before: within the window; day, month: both ways, before at half."""

WINDOW = 10
FADE = 0.8
"""A pair at distance d within the window counts FADE ** (d - 1)."""

FADES = FADE ** np.arange(WINDOW)
"""Weight of the context's items, newest first."""

NEIGHBOURS = 200
"""Neighbours kept of an item; a new one then takes the place of one of the weakest."""

TRIMMED_IDS_PER_EVENT = 2
"""Ids kept of events that a history has trimmed, as a multiple of the events it holds: at a login
a session's own ones and as many of its events may come at once."""

RECENT_OWNERS = 128
"""Newest owners of histories that an item remembers."""

OWNERS_PER_PAGE = 128
"""Owners' names that share one key."""

POPULARITY_HALF_LIVES_S = {"hour": 3600.0, "day": DAY_S, "week": 7 * DAY_S, "month": 30 * DAY_S}
TOPS = 300
"""Items kept of each top list: the most popular by each half-life, of all time, recent, new."""

CONTEXT_ITEMS = 1000
"""Items counted under one circumstance; a new one then takes the place of one of the weakest."""

CONTEXT_VALUES = 100
"""Values of a contextual column that are counted apart."""

CONTEXT_HALF_LIFE_S = POPULARITY_HALF_LIVES_S["month"]
"""Of what is counted under circumstances. A value unseen for so long makes room for a new one."""

TYPES = 255
LINK_SHARDS = 256
STATS_PER_PAGE = 64
"""Items whose counts share one key."""

PAIR = np.dtype([("item", "<u4"), ("log2", "<f4", (len(PAIR_CHANNELS),))])
STAT = np.dtype(
    [
        ("events", "<u4"),
        ("purchases", "<u4"),
        ("first", "<u4"),
        ("last", "<u4"),
        ("log2", "<f8", (len(POPULARITY_HALF_LIVES_S),)),
    ]
)
ENTRY = np.dtype([("item", "<u4"), ("time", "<u4"), ("type", "u1"), ("hash", "V6")])
CONTEXT_TOTAL = np.dtype("<f8")
CONTEXT_COUNT = np.dtype([("item", "<u4"), ("log2", "<f8")])
HEAD = np.dtype([("count", "<u4"), ("owner", "<u4"), ("accepted_at", "<f8")])

PAIR_RATES = np.array([1 / channel.half_life_s for channel in PAIR_CHANNELS])
POPULARITY_RATES = np.array([1 / half_life_s for half_life_s in POPULARITY_HALF_LIVES_S.values()])

_WITNESS = struct.Struct("<ddd")


def unpack_witness(raw: bytes) -> tuple[int, int, int]:
    """Offset, time in milliseconds and checksum of a message, as apply_batch.lua keeps them."""
    offset, timestamp_ms, checksum = _WITNESS.unpack(raw)
    return int(offset), int(timestamp_ms), int(checksum)
