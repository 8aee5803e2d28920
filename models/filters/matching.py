"""Whether conditions hold: of many candidates at once, or of one user.

A property is a text, of which `a|b` is both a and b, or a number; whatever else is stored counts as
absent. A condition holds if it holds for any of a property's values, so an absent one meets none;
NOT IN and != are the plain opposites of IN and =.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInput
from models.filters.grammar import (
    ANY_TYPE,
    IDENTITIES,
    INTERACTIONS,
    ORDERINGS,
    Condition,
    number_in,
)
from models.metadata_records import normalized

Number = int | float
Scalar = str | Number | None
Properties = Mapping[str, Any]
"""Of one item, user or action: what is stored by name."""
Given = Mapping[str, Sequence[str]]
"""The values of parameters by their names."""
Bools = NDArray[np.bool_]

NO_PROPERTIES: Properties = MappingProxyType({})

_SCALARS = frozenset({str, int, float})
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Operand(NamedTuple):
    """What a condition compares with, once parameters and the current item are known.

    Attributes
    ----------
    texts
        What a text must equal one of.
    numbers
        What a number must equal one of: also every text that reads as a number.
    plain
        Those of the numbers that were not given as texts: any text that reads so equals them.
    limit
        What an ordering compares with; None if there is no one number.
    """

    texts: frozenset[str]
    numbers: frozenset[Number]
    plain: frozenset[Number]
    limit: Number | None


def meets(condition: Condition, given: Given, properties: Properties) -> bool:
    """Whether one with these properties meets a condition that no current item has a part in.

    Raises
    ------
    InvalidInput
        A parameter's value is not of the kind that the test takes.
    """
    operand = _operand(condition, given, NO_PROPERTIES)
    (is_met,) = _met(condition, operand, [value_in(properties, condition.field)])
    return is_met != condition.negates


def value_in(properties: Properties, field: str) -> Scalar:
    """The value of a field, whose name may be spelled otherwise there; None if it has none.

    >>> value_in({"numRatings": 7}, "NUM_RATINGS")
    7
    """
    (value,) = _column([properties], _spellings(properties, field))
    return value


class CandidateProperties:
    """Candidates with what is known of them, as `models.filters.filter.Filter.allowed` takes it."""

    def __init__(
        self,
        ids: Sequence[str],
        properties: Sequence[Properties | None] = (),
        interactions: Mapping[str, Collection[str]] = NO_PROPERTIES,
    ) -> None:
        self._ids = ids
        self._rows = [row or NO_PROPERTIES for row in properties]
        self._interactions = interactions

    @functools.cached_property
    def _keys(self) -> set[str]:
        return set().union(*self._rows)

    def meeting(self, condition: Condition, given: Given, current_item: Properties) -> Bools:
        """Which of them meet a condition; ``(n,)``.

        Raises
        ------
        InvalidInput
            A parameter's value is not of the kind that the test takes.
        """
        operand = _operand(condition, given, current_item)
        if condition.dataset in INTERACTIONS:
            seen = self._with_types({text.lower() for text in operand.texts})
            met = [one in seen for one in self._ids]
        elif normalized(condition.field) == IDENTITIES[condition.dataset]:
            met = [one in operand.texts for one in self._ids]
        elif len(self._rows) != len(self._ids):
            raise ValueError(f"{len(self._ids)} candidates, but properties of {len(self._rows)}")
        else:
            values = _column(self._rows, _spellings(self._keys, condition.field))
            met = _met(condition, operand, values)
        bools = np.array(met, np.bool_)
        return ~bools if condition.negates else bools

    def _with_types(self, wanted: set[str]) -> set[str]:
        """Those with an interaction of a wanted type."""
        if ANY_TYPE in wanted:
            return {one for one, types in self._interactions.items() if types}
        return {
            one
            for one, types in self._interactions.items()
            if not wanted.isdisjoint(map(str.lower, types))
        }


def _spellings(keys: Iterable[str], field: str) -> list[str]:
    """Which keys name a field: the one spelled just so, then the others by name."""
    folded = normalized(field)
    found = [key for key in keys if normalized(key) == folded]
    return sorted(found, key=lambda key: (key != field, key))


def _column(rows: Sequence[Properties], keys: Sequence[str]) -> list[Scalar]:
    """Each row's value under the first of the keys that has one which counts."""
    found: list[Scalar] = [None] * len(rows)
    for key in keys:
        new = [row.get(key) for row in rows]
        found = [
            (other if type(other) in _SCALARS else None) if one is None else one
            for one, other in zip(found, new, strict=True)
        ]
    return found


def _operand(condition: Condition, given: Given, current_item: Properties) -> Operand:
    if condition.current_item:
        value = value_in(current_item, condition.current_item)
        if isinstance(value, str):
            return _of(value.split("|"), (), number_in(value))
        return _of((), (), None) if value is None else _of((str(value),), (value,), value)
    texts: list[str] = []
    plain: list[Number] = []
    for kind, text in condition.values:
        texts += given[text] if kind == "parameter" else (text,)
        if kind == "number" and (number := number_in(text)) is not None:
            plain.append(number)
    limit = number_in(texts[0]) if len(texts) == 1 else None
    if condition.test in ORDERINGS and limit is None:
        _refuse(condition, "one number")
    if condition.test in ("=", "!=") and len(texts) != 1:
        _refuse(condition, "one value")
    return _of(texts, plain, limit)


def _of(texts: Sequence[str], plain: Sequence[Number], limit: Number | None) -> Operand:
    numbers = {number for text in texts if (number := number_in(text)) is not None}
    return Operand(frozenset(texts), frozenset(numbers.union(plain)), frozenset(plain), limit)


def _refuse(condition: Condition, wanted: str) -> None:
    # The value itself is not repeated: the service's model calls it sensitive.
    (name,) = condition.parameters
    raise InvalidInput(
        f"filterValues must have {wanted} for {name}, it stands after {condition.test}"
    )


def _met(condition: Condition, operand: Operand, values: Sequence[Scalar]) -> list[bool]:
    """Of each value, as it is stored, whether it meets the condition if that negates nothing."""
    if condition.test not in ORDERINGS:
        # A field that is tested for equality has few different values, as a rule.
        decided = {value: _equals(operand, value) for value in set(values)}
        return [decided[value] for value in values]
    compare, limit = _ORDERS[condition.test], operand.limit
    if limit is None:
        return [False] * len(values)
    return [
        any(compare(number, limit) for number in _numbers(value))
        if isinstance(value, str)
        else value is not None and compare(value, limit)
        for value in values
    ]


def _equals(operand: Operand, value: Scalar) -> bool:
    if not isinstance(value, str):
        return value in operand.numbers
    if not operand.texts.isdisjoint(value.split("|")):
        return True
    return bool(operand.plain) and not operand.plain.isdisjoint(_numbers(value))


def _numbers(text: str) -> Iterator[Number]:
    return (number for part in text.split("|") if (number := number_in(part)) is not None)
