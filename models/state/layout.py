"""Binary layouts and decay rates of the state: the scripts get them from here (lua_source.py)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

EPOCH = 1_577_836_800
"""2020-01-01 in Unix seconds: decay counts time from here, which keeps the logarithms small."""

STATE_FORMAT = 4
"""Number of the format of all that is described here: another one is refused (format_check.py)."""

DAY_S = 86400.0


SHOWN_LISTS = 20
"""Lists kept of an owner, the newest: events count for no other."""

NAMED_EVENTS = 100
"""Events kept of an owner that name a list or have a value, the newest."""

AWAITED_LISTS, AWAITED_EVENTS = 20_000, 20
"""Lists of a group, not known yet, whose events are kept, and events kept of each, at most."""

MAX_POSITIONS = 50
"""Positions in lists that are counted apart; those behind them are counted together."""

OUTCOME_FIELDS = 20_000
"""Placements, arms and so on that are counted in an hour or day, at most; 150 bytes each."""

EXPOSURE_TTL_S, EXPERIMENT_TTL_S = 100 * 86400, 400 * 86400
"""Time for which a user's arm and an experiment's sums are kept after their last change."""


class PairCount(NamedTuple):
    """A decayed count in a pair's record: a code that stands for its logarithm.

    Code 0 is no count. Code c from 1 stands for 2 ** ((base + c) * step_log2), before decay; the
    base is an integer in the head of the list.
    """

    half_life_s: float
    step_log2: float
    codes: int


BOTH_COUNT = PairCount(180 * DAY_S, 0.03, 1024)
MONTH_COUNT = PairCount(30 * DAY_S, 0.03, 1024)
DAY_COUNT = PairCount(DAY_S, 0.16, 256)
"""Counts of both directions: that of `after` and half of that of `before`; `month`; `day`."""


class PairChannel(NamedTuple):
    """A channel of co-visitation: one way of counting two items in the same history."""

    name: str
    half_life_s: float


PAIR_CHANNELS = (
    PairChannel("next", BOTH_COUNT.half_life_s),
    PairChannel("after", BOTH_COUNT.half_life_s),
    PairChannel("before", BOTH_COUNT.half_life_s),
    PairChannel("day", DAY_COUNT.half_life_s),
    PairChannel("month", MONTH_COUNT.half_life_s),
)
"""next: directly after; after, before: within the window; day, month: both ways, before at half.
`PAIR` says how they are stored."""

WINDOW = 10
"""Distinct items before an event that are counted as pairs with its item."""

FADE = 0.8
"""A pair at distance d within the window counts FADE ** (d - 1)."""

FADES = FADE ** np.arange(WINDOW)
"""Weight of the profile's items, newest first."""

NEIGHBOURS = 200
"""Neighbours of an item; a further one replaces one of the weakest."""

SPARE_PAIRS = 16
"""Free places for neighbours that an item's list gets at most when it grows."""

TRIMMED_IDS_PER_EVENT = 2
"""Ids kept of events that a history has trimmed, per event that it may hold: at a login the
session's own trimmed events and as many of its last ones may come again at once."""

RECENT_OWNERS = 128
"""Newest owners of histories that an item remembers."""

OWNERS_PER_PAGE = 128
"""Owners' names in one key."""

POPULARITY_HALF_LIVES_S = {"hour": 3600.0, "day": DAY_S, "week": 7 * DAY_S, "month": 30 * DAY_S}
TOPS = 300
"""Items of each top list: the most popular by each half-life, of all time, recent, new."""

UPDATED = 10_000
"""Items with the last changed records, which are read again; after more, all records are."""

CONTEXT_ITEMS = 1000
"""Items counted under one context value; a further one replaces one of the weakest."""

CONTEXT_VALUES = 100
"""Values of a contextual column that have counts of their own."""

CONTEXT_HALF_LIFE_S = POPULARITY_HALF_LIVES_S["month"]
"""Of counts under context values. A value unseen for so long makes room for a new one."""

TYPES = 127
"""Event types of a group that have a code; further ones share code 0."""

IMPORTED = 256
"""In a history, an event that was imported in bulk has this less its type's code as its type: an
import may replace it. Code 0, and codes beyond `TYPES` of an earlier version, stay as they are."""


def type_names(stored: Mapping[bytes, bytes]) -> dict[int, str]:
    """Event type of each code in histories, out of the stored codes of types.

    >>> type_names({b"click": b"1"})
    {1: 'click', 255: 'click'}
    """
    names = {int(code): name.decode() for name, code in stored.items()}
    imported = {IMPORTED - code: name for code, name in names.items() if code <= TYPES}
    return names | {code: name for code, name in imported.items() if code not in names}


def plain_types(stored: Mapping[bytes, bytes]) -> int:
    """The greatest code in a history that is not of an imported event, by the codes of types."""
    return max(TYPES, len(stored))


LINK_SHARDS = 256
"""Hashes that a group's links from sessions to users are spread over."""

STATS_PER_PAGE = 64
"""Items whose counts share one key."""


SHARE_CODES = 64
"""Codes of a share, in equal steps from 0 to 1."""

FIRST_CODE = 0.6
"""Place, among all its codes, of a count for which a list gets a new base: what is smaller by the
codes below it is no longer told apart, and the next base is needed once a count is larger by those
above."""

PAIR = np.dtype([("item_day", "<u4"), ("others", "<u4")])
"""A pair. `item_day`: the code of `DAY_COUNT` in the highest 8 bits, and the index. `others`,
from the highest bits: codes of `MONTH_COUNT` and `BOTH_COUNT`, 10 bits each; of the share of
`after` in both, and of that of `next` in `after`, 6 bits each. An unused record is all zeros."""

PAIR_HEAD = struct.Struct("<iii")
"""Before the pairs of a list: bases of both, month, day."""

MAX_ITEM_INDEX = 2**24 - 1
"""Greatest index of an item that a pair has room for."""

STAT = np.dtype(
    [
        ("events", "<u4"),
        ("purchases", "<u4"),
        ("first", "<u4"),
        ("last", "<u4"),
        ("log2", "<f8", (len(POPULARITY_HALF_LIVES_S),)),
    ]
)
EFFECT_PLACE = 2**24
"""An item below 0 in a history that was read is no interest in an item: minus its index, less the
effect times this."""

HIDES, SINKS, TAKES_BACK_CART, TAKES_BACK_PURCHASE = 1, 2, 3, 4
"""Effects of negative events: the item leaves the user's answers; it and similar ones sink; a cart,
or a purchase, of it is taken back."""

LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0
"""Bounds of what an eventValue multiplies the weight of an event by."""

UNDONE, TAKEN_BACK = 5, 6
"""In place of an effect, of events that no longer count: undone ones, whose item is forgotten, and
carts and purchases that a later event has taken back."""

EVENT_HASH = np.dtype("V5")
"""Hash of an event's id, little endian. Of n ids that are kept, a new one is taken for one of them
n times in a million millions."""

HISTORY_HEAD = struct.Struct("<IIdIHBB")
"""Before the columns of a history: events ever applied, the history's number, when the newest
applied one was accepted (Unix seconds), the time of the last event, the number of events, flags,
and the code of their type.

Then come, oldest event first: `EVENT_HASH` of each; the index of its item in 2 bytes, in 3 with
`HAS_WIDE_ITEMS`; codes of types with `HAS_TYPES`, else all have the one in the head; effects, a
byte each, with `HAS_EFFECTS`; and of each but the first the seconds since the one before, in codes
of 1, 2, 3 or 5 bytes (history_columns.lua, histories.py).
"""

HAS_WIDE_ITEMS, HAS_TYPES, HAS_EFFECTS = 1, 2, 4
"""Flags in the head of a history."""

TWO_BYTES, THREE_BYTES, FIVE_BYTES = 128, 224, 255
"""First bytes of gaps from which on a code has so many bytes; the shortest code that holds a gap is
taken, so a longer one begins where the shorter ones end."""
FIRST_OF_TWO = TWO_BYTES
FIRST_OF_THREE = FIRST_OF_TWO + (THREE_BYTES - TWO_BYTES) * 2**8
FIRST_OF_FIVE = FIRST_OF_THREE + (FIVE_BYTES - THREE_BYTES) * 2**16
"""Shortest gaps, in seconds, of codes of 2, 3 and 5 bytes. A code of 5 holds the gap itself."""

RECENT_EVENT = np.dtype([("hash", EVENT_HASH), ("mixed", "<u4"), ("owner", "<u4")])
"""A recent event: hash of its id, one of item, time and type, and its history's number or 0."""

SESSION_HEAD = struct.Struct("<BH")
"""Before the name of a session in a user's list of linked ones: its shard, and the name's bytes."""

CONTEXT_TOTAL = np.dtype("<f8")
CONTEXT_COUNT = np.dtype([("item", "<u4"), ("log2", "<f8")])
"""Counts under a context value: logarithm of the total, then of each item."""

COLD_EVENTS = 20
"""Events from which on an item is found by what was seen together with it, not by its text."""

TERM_COLD_ITEMS, TERM_WARM_ITEMS = 100, 28
"""Items in the list of a term: the newest cold ones, and the newest others."""

TERM_COUNT_UNIT = 2**24
TERM_WARM = 2**31
"""An entry in the list of a term, 4 bytes: the item's index, the number of its terms times
`TERM_COUNT_UNIT`, and `TERM_WARM` if it is not cold. Before the entries, in 4 bytes, the number of
items that have the term."""

EXPIRY = np.dtype("<u4")
"""An item's entry in `expires`, by its index: the second from which no answer may hold it, or 0."""

PRODUCT = np.dtype("<f8")
"""An item's entry in `variants`, by its index: the number of its product, or 0."""

HISTORY_NUMBER = np.dtype("<u4")
"""The number of a history in an item's `takers`."""

RECORD_HEAD = struct.Struct("<ddd")
"""Before the JSON text of a metadata record: its time, the first record's time, creation or 0."""

POPULARITY_RATES = np.array([1 / half_life_s for half_life_s in POPULARITY_HALF_LIVES_S.values()])
"""Half-lives a second."""

_WITNESS = struct.Struct("<ddd")


def pack_witness(offset: int, timestamp_ms: int, checksum: int) -> bytes:
    """Offset, time in milliseconds and checksum of a message, as `unpack_witness` reads them."""
    return _WITNESS.pack(offset, timestamp_ms, checksum)


def unpack_witness(raw: bytes) -> tuple[int, int, int]:
    """Offset, time in milliseconds and checksum of a message, as prelude.lua stores them."""
    offset, timestamp_ms, checksum = _WITNESS.unpack(raw)
    return int(offset), int(timestamp_ms), int(checksum)
