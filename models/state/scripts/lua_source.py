"""Texts of the server-side scripts: the Lua files of this folder, behind constants out of Python.

Sizes of records and decay rates stand in `models.state.layout` alone, positions of fields in the
NamedTuples that a request consists of. Scripts get them when they are made: lists as locals,
numbers in place of their names. A hundred locals more would be captured, at every step anew, by the
functions that use them, which took half of the time of a step that applies nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from models.state import layout
from models.state.scripts.registered_scripts import Script

Constant = float | Sequence[float]


_EFFECTS = (
    "TAKES_BACK_CART", "TAKES_BACK_PURCHASE", "UNDONE", "TAKEN_BACK",
    "LEAST_FACTOR", "MOST_FACTOR",
)  # fmt: skip
_HISTORY_CODES = (
    "HAS_WIDE_ITEMS", "HAS_TYPES", "HAS_EFFECTS", "TWO_BYTES", "THREE_BYTES", "FIVE_BYTES",
    "FIRST_OF_TWO", "FIRST_OF_THREE", "FIRST_OF_FIVE",
)  # fmt: skip
_OUTCOME_LIMITS = (
    "SHOWN_LISTS", "NAMED_EVENTS", "AWAITED_LISTS", "AWAITED_EVENTS", "MAX_POSITIONS",
    "OUTCOME_FIELDS", "EXPOSURE_TTL_S", "EXPERIMENT_TTL_S",
)  # fmt: skip


def make_script(
    name: str,
    *,
    shared: Sequence[str] = (),
    functions: Sequence[str] = (),
    records: Sequence[Any] = (),
    part: Any = None,  # noqa: ANN401  a NamedTuple's class, of which typing says nothing
    constants: Mapping[str, Constant] = {},
) -> Script:
    """The script of one Lua file, behind the files that it builds on.

    Parameters
    ----------
    shared
        Files with locals for all later files.
    functions
        Files that are bodies of functions: `items` of `open_items`, `apply_group` of `open_group`.
    records
        Classes of NamedTuples that the request holds; the position of a field `user_id` is
        `USER_ID` in Lua.
    part
        The class of NamedTuples that hold a partition's records; `PART_FIELD` and so on in Lua.
    constants
        Numbers beside those of `layout`, by their names in Lua.
    """
    known = layout_constants() | dict(constants)
    for record in records:
        known |= _positions(record)
    if part:
        known |= _positions(part, "PART_")
    lists = {name: value for name, value in known.items() if not isinstance(value, int | float)}
    texts = [
        *(read_lua(one) for one in shared),
        *(
            f"local function open_{one.removeprefix('apply_')}(...)\n{read_lua(one)}end\n"
            for one in functions
        ),
        read_lua(name),
    ]
    return Script.of(_locals(lists) + _with_numbers("".join(texts), known))


OUTCOME_FUNCTIONS = ("outcome_sums", "followed_ids", "exposures", "outcomes", "erasures")
"""Files of the counts of served lists and their outcomes, in the order in which they are opened."""


def read_lua(name: str) -> str:
    """The text of a Lua file of this folder."""
    return resources.files(__package__).joinpath(f"{name}.lua").read_text()


def layout_constants() -> dict[str, Constant]:
    """The numbers of `models.state.layout` that scripts need, by their names in Lua.

    Sizes end in `_BYTES`, and offsets in a record, from 0, in `_AT`.
    """
    pair_counts = {
        "BOTH": layout.BOTH_COUNT,
        "MONTH": layout.MONTH_COUNT,
        "DAY": layout.DAY_COUNT,
    }
    return {
        "EPOCH": layout.EPOCH,
        "STATE_FORMAT": layout.STATE_FORMAT,
        "IMPORTED": layout.IMPORTED,
        "MINUTE_S": 60,
        "PAIR_BYTES": layout.PAIR.itemsize,
        "PAIR_OTHERS_AT": _offset(layout.PAIR, "others"),
        "PAIR_HEAD_BYTES": layout.PAIR_HEAD.size,
        "SPARE_PAIRS": layout.SPARE_PAIRS,
        "FADES_LOG2": [d * math.log2(layout.FADE) for d in range(layout.WINDOW)],
        **{f"{name}_RATE": 1 / count.half_life_s for name, count in pair_counts.items()},
        **{f"{name}_STEP": count.step_log2 for name, count in pair_counts.items()},
        **{f"{name}_CODES": count.codes for name, count in pair_counts.items()},
        "SHARE_CODES": layout.SHARE_CODES,
        "FIRST_CODE": layout.FIRST_CODE,
        "STAT_BYTES": layout.STAT.itemsize,
        "STAT_LAST_AT": _offset(layout.STAT, "last"),
        "STATS_PER_PAGE": layout.STATS_PER_PAGE,
        "POPULARITY_RATES": layout.POPULARITY_RATES.tolist(),
        "HISTORY_HEAD_BYTES": layout.HISTORY_HEAD.size,
        **{name: getattr(layout, name) for name in _HISTORY_CODES},
        "HASH_BYTES": layout.EVENT_HASH.itemsize,
        **{name: getattr(layout, name) for name in _EFFECTS},
        "OWNERS_PER_PAGE": layout.OWNERS_PER_PAGE,
        "SESSION_HEAD_BYTES": layout.SESSION_HEAD.size,
        "CONTEXT_TOTAL_BYTES": layout.CONTEXT_TOTAL.itemsize,
        "CONTEXT_COUNT_BYTES": layout.CONTEXT_COUNT.itemsize,
        "CONTEXT_LOG2_AT": _offset(layout.CONTEXT_COUNT, "log2"),
        "CONTEXT_RATE": 1 / layout.CONTEXT_HALF_LIFE_S,
        "RECENT_EVENT_BYTES": layout.RECENT_EVENT.itemsize,
        "RECENT_OWNER_AT": _offset(layout.RECENT_EVENT, "owner"),
        "EXPIRY_BYTES": layout.EXPIRY.itemsize,
        "PRODUCT_BYTES": layout.PRODUCT.itemsize,
        "HISTORY_NUMBER_BYTES": layout.HISTORY_NUMBER.itemsize,
        "RECORD_HEAD_BYTES": layout.RECORD_HEAD.size,
        **{name: getattr(layout, name) for name in _OUTCOME_LIMITS},
        "COLD_EVENTS": layout.COLD_EVENTS,
        "TERM_COLD_ITEMS": layout.TERM_COLD_ITEMS,
        "TERM_WARM_ITEMS": layout.TERM_WARM_ITEMS,
        "TERM_COUNT_UNIT": layout.TERM_COUNT_UNIT,
        "TERM_WARM": layout.TERM_WARM,
    }


def _offset(record: np.dtype[Any], field: str) -> int:
    fields = record.fields
    if fields is None:
        raise TypeError(f"{record} has no fields")
    return int(fields[field][1])


def _positions(record: Any, prefix: str = "") -> dict[str, Constant]:  # noqa: ANN401  as above
    return {f"{prefix}{name.upper()}": n for n, name in enumerate(record._fields, 1)}


def _locals(constants: Mapping[str, Constant]) -> str:
    return "".join(f"local {name} = {_lua(value)}\n" for name, value in constants.items())


_TOKEN = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'|(?<![\w.:])[A-Z]\w*(?!\w)")
"""A comment, a string or a name in capitals that is no field."""


def _with_numbers(text: str, known: Mapping[str, Constant]) -> str:
    """A Lua text with numbers in place of their names.

    >>> _with_numbers("call('TIME', event[TIME]) -- TIME", {"TIME": 2})
    "call('TIME', event[2]) -- TIME"
    """

    def number(found: re.Match[str]) -> str:
        value = known.get(found[0])
        if not isinstance(value, int | float):
            return found[0]
        return _lua(value) if value >= 0 else f"({_lua(value)})"

    return _TOKEN.sub(number, text)


def _lua(value: Constant) -> str:
    """A number, or a list of them, as Lua reads it: to the last bit.

    >>> _lua([16, 0.1])
    '{16, 0.1}'
    """
    if isinstance(value, int | float):
        return repr(value)
    return "{" + ", ".join(map(_lua, value)) + "}"
