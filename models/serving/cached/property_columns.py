"""Properties of all items by columns, which tell which items a filter may allow.

Four bytes for each item and property with texts, eight for one with numbers, and distinct texts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats, Indexes
from models.events import MICROSECONDS_FROM, MILLISECONDS_FROM, NANOSECONDS_FROM
from models.filters.filter import Filter, given_values
from models.filters.grammar import IDENTITIES, ORDERINGS, Condition, moment_in, number_in
from models.filters.matching import (
    NO_PROPERTIES,
    Bools,
    Given,
    Operand,
    Properties,
    configuration_for,
    meets,
    operand_of,
    scalar_of,
    spellings,
)
from models.metadata_records import normalized

MAX_COLUMNS = 64
"""Properties that have a column; of further ones it is not known what matches."""

MAX_TEXTS = 100_000
"""Distinct texts of a property; of one with more it is not known what matches."""

MAX_TEXT_CHARACTERS = 256

ABSENT, UNKNOWN, FIRST_TEXT = 0, 1, 2
"""Codes of a value: none, or a number; one that is not kept; and those of texts from there on."""

MAX_EXACT = 2**53
"""Whole numbers up to which doubles tell all apart."""

_COMPARE: Final[Mapping[str, Callable[[Floats, float], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class PropertyColumns:
    """Values of properties by column and item index; grows with the greatest index.

    >>> from models.filters.short_form import parse_item_filter
    >>> columns = PropertyColumns()
    >>> columns.put(1, {"BRAND": "acme", "PRICE": 9.5})
    >>> columns.put(3, {"BRAND": "acme|zenith", "PRICE": 20})
    >>> columns.may_allow(parse_item_filter("brand:acme;price<10"), {}, 4).tolist()
    [1]
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._is_whole = True

    @property
    def names(self) -> frozenset[str] | None:
        """The columns' names, `normalized`; None where properties have no column."""
        return frozenset(map(normalized, self._columns)) if self._is_whole else None

    def put(self, index: int, properties: Properties | None) -> None:
        """Replace what is known of an item; None if it has no properties any more."""
        known = properties or {}
        for name in known:
            if name not in self._columns:
                if len(self._columns) >= MAX_COLUMNS:
                    self._is_whole = False
                    continue
                self._columns[name] = _Column()
        for name, column in self._columns.items():
            column.put(index, known.get(name))

    def may_allow(
        self,
        found: Filter,
        values: Mapping[str, str],
        n: int,
        *,
        user: Properties | None = None,
        current_item: Properties | None = None,
    ) -> Indexes:
        """Indexes from 1 to n - 1 of the items that a filter of items may allow, in order.

        All that it allows are among them; others only where it looks at ids or interactions, or at
        properties that have no column. Some ms for a million items.

        Parameters
        ----------
        user, current_item
            Their properties, where the filter reads them; none of the one means that it has none.

        Raises
        ------
        InvalidInput
            A value of a parameter is invalid.
        """
        given = given_values(values, found.parameters)
        included: Bools | None = None
        excluded = np.zeros(n, np.bool_)
        for one in found.expressions:
            if not one.parameters <= given.keys():
                continue
            is_certain = not one.includes
            if not all(meets(condition, given, user or NO_PROPERTIES) for condition in one.only_if):
                continue
            matching = np.zeros(n, np.bool_)
            for all_of in one.any_of:
                every = np.ones(n, np.bool_)
                for condition in all_of:
                    every &= self._meeting(
                        condition, given, current_item or NO_PROPERTIES, n, is_certain=is_certain
                    )
                matching |= every
            if one.includes:
                included = matching if included is None else included | matching
            else:
                excluded |= matching
        allowed = ~excluded if included is None else included & ~excluded
        allowed[:1] = False
        return np.flatnonzero(allowed)

    def _meeting(
        self,
        condition: Condition,
        given: Given,
        current_item: Properties,
        n: int,
        *,
        is_certain: bool,
    ) -> Bools:
        """``(n,)`` whether items meet a condition: for certain, or perhaps."""
        if condition.dataset != "Items" or normalized(condition.field) == IDENTITIES["Items"]:
            return np.full(n, not is_certain)
        operand = operand_of(condition, given, current_item)
        met, known = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        unknown = np.zeros(n, np.bool_)
        for name in spellings(self._columns, condition.field):
            has, is_met, is_kept = self._columns[name].meeting(condition, operand, n)
            new = has & ~known
            met[new], known[new] = is_met[new], True
            unknown |= new & ~is_kept
            if not self._is_whole and name != condition.field:
                # A spelling without a column may come before this one.
                unknown |= new
        if condition.negates:
            met = ~met
        if not self._is_whole:
            unknown |= ~known
        met[unknown] = not is_certain
        return met


class _Column:
    """Values of one property, under one spelling of its name."""

    def __init__(self) -> None:
        self._codes = np.zeros(0, np.int32)
        self._numbers: NDArray[np.float64] = np.zeros(0)
        self._texts: dict[str, int] = {}
        # Those that may be met by more than an equal text: with several values, or a number.
        self._special: dict[str, int] = {}
        self._moments: dict[int, float] = {}

    def put(self, index: int, stored: object) -> None:
        value = scalar_of(stored)
        code, number = ABSENT, np.nan
        if isinstance(value, str):
            code = self._code(value)
        elif value is not None:
            if abs(value) <= MAX_EXACT:
                number = float(value)
            else:
                code = UNKNOWN
        if code != ABSENT or index < len(self._codes):
            self._codes = _grown(self._codes, index, ABSENT)
            self._codes[index] = code
        if number == number or index < len(self._numbers):  # noqa: PLR0124  not a NaN
            self._numbers = _grown(self._numbers, index, np.nan)
            self._numbers[index] = number

    def _code(self, text: str) -> int:
        code = self._texts.get(text)
        if code is None:
            if len(text) > MAX_TEXT_CHARACTERS or len(self._texts) >= MAX_TEXTS:
                return UNKNOWN
            code = self._texts[text] = FIRST_TEXT + len(self._texts)
            if "|" in text or number_in(text) is not None:
                self._special[text] = code
            elif (moment := moment_in(text)) is not None:
                self._moments[code] = moment
        return code

    def meeting(self, condition: Condition, operand: Operand, n: int) -> tuple[Bools, Bools, Bools]:
        """``(n,)`` each: has a value; meets the condition, its negation aside; is kept."""
        codes, numbers = _first(self._codes, n, ABSENT), _first(self._numbers, n, np.nan)
        by_code = np.zeros(FIRST_TEXT + len(self._texts), np.bool_)
        if condition.test not in ORDERINGS:
            by_code[[self._texts[one] for one in operand.texts if one in self._texts]] = True
        by_code[list(self._special.values())] = configuration_for(
            condition, operand, list(self._special)
        )
        compare = _COMPARE.get(condition.test)
        if compare is not None and operand.moment is not None:
            moments = np.array(list(self._moments.values()))
            by_code[list(self._moments)] = compare(moments, operand.moment)
        met = by_code[codes]
        is_number = ~np.isnan(numbers)
        if compare is not None:
            if operand.moment is not None:
                met |= is_number & compare(_in_seconds(numbers), operand.moment)
            elif operand.limit is not None:
                met |= is_number & compare(numbers, float(operand.limit))
        elif operand.numbers:
            met |= np.isin(numbers, [float(number) for number in operand.numbers])
        return is_number | (codes != ABSENT), met, codes != UNKNOWN


def _in_seconds(times: Floats) -> Floats:
    """Times as `models.events.in_seconds` has them."""
    limits = (NANOSECONDS_FROM, MICROSECONDS_FROM, MILLISECONDS_FROM)
    found: Floats = times / np.select([times > limit for limit in limits], [1e9, 1e6, 1e3], 1.0)
    return found


def _grown(values: NDArray[Any], index: int, filler: float) -> NDArray[Any]:
    """The array, if need be in a longer one that has room for an index."""
    if index < len(values):
        return values
    room = np.full(max(index + 1, len(values) * 5 // 4, 256), filler, values.dtype)
    room[: len(values)] = values
    return room


def _first(values: NDArray[Any], n: int, filler: float) -> NDArray[Any]:
    """The first n values, filled up."""
    if len(values) >= n:
        return values[:n]
    filled = np.full(n, filler, values.dtype)
    filled[: len(values)] = values
    return filled
