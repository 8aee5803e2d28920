"""Evaluation of conditions, for many candidates at once or for one user.

A property is a text, of which `a|b` has the values a and b, or a number; a truth value is the text
`true` or `false`, and any other value counts as absent. A condition holds if it holds for any
value, so an absent property meets none; NOT IN and != are the plain negations of IN and =.
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
from models.events import in_seconds
from models.filters.grammar import (
    ANY_TYPE,
    IDENTITIES,
    INTERACTIONS,
    ORDERINGS,
    Condition,
    moment_in,
    number_in,
)
from models.metadata_records import normalized

Number = int | float
Scalar = str | Number | None
Properties = Mapping[str, Any]
"""Properties of one item, user or action, by name."""
Given = Mapping[str, Sequence[str]]
"""Values of parameters, by name."""
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
    """The right side of a condition, with parameters and the current item filled in.

    Attributes
    ----------
    texts
        Texts, one of which a text must equal.
    numbers
        Numbers, one of which a number must equal: also each text that is a number.
    plain
        Numbers that were not given as texts: a text that is such a number equals it.
    limit
        The number that an ordering compares with; None unless there is exactly one.
    moment
        The moment that it compares with, Unix seconds, if it is given as a date.
    """

    texts: frozenset[str]
    numbers: frozenset[Number]
    plain: frozenset[Number]
    limit: Number | None
    moment: float | None = None


def meets(condition: Condition, given: Given, properties: Properties) -> bool:
    """True if these properties meet a condition that does not involve the current item.

    Raises
    ------
    InvalidInput
        A parameter's value is of the wrong kind for the test.
    """
    operand = operand_of(condition, given)
    (is_met,) = configuration_for(condition, operand, [value_in(properties, condition.field)])
    return is_met != condition.negates


def operand_of(
    condition: Condition, given: Given, current_item: Properties = NO_PROPERTIES
) -> Operand:
    """The right side of a condition.

    Raises
    ------
    InvalidInput
        A parameter's value is of the wrong kind for the test.
    """
    if condition.current_item:
        value = value_in(current_item, condition.current_item)
        if isinstance(value, str):
            return _of(value.split("|"), (), number_in(value), moment_in(value))
        return _of((), (), None) if value is None else _of((str(value),), (value,), value)
    texts: list[str] = []
    plain: list[Number] = []
    for kind, text in condition.values:
        texts += given[text] if kind == "parameter" else (text,)
        if kind == "number" and (number := number_in(text)) is not None:
            plain.append(number)
    limit = number_in(texts[0]) if len(texts) == 1 else None
    moment = moment_in(texts[0]) if len(texts) == 1 else None
    if condition.test in ORDERINGS and limit is None and moment is None:
        _refuse(condition, "one number")
    if condition.test in ("=", "!=") and len(texts) != 1:
        _refuse(condition, "one value")
    return _of(texts, plain, limit, moment)


def value_in(properties: Properties, field: str) -> Scalar:
    """Value of a field, under any spelling of its name; None without one.

    >>> value_in({"numRatings": 7}, "NUM_RATINGS")
    7
    """
    (value,) = _column([properties], spellings(properties, field))
    return value


class CandidateProperties:
    """Candidates with their properties and interactions, as `Filter.allowed` takes them."""

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
        """True for each candidate that meets a condition; ``(n,)``.

        Raises
        ------
        InvalidInput
            A parameter's value is of the wrong kind for the test.
        """
        operand = operand_of(condition, given, current_item)
        if condition.dataset in INTERACTIONS:
            seen = self._with_types({text.lower() for text in operand.texts})
            met = [one in seen for one in self._ids]
        elif normalized(condition.field) == IDENTITIES[condition.dataset]:
            met = [one in operand.texts for one in self._ids]
        elif len(self._rows) != len(self._ids):
            raise ValueError(f"{len(self._ids)} candidates, but properties of {len(self._rows)}")
        else:
            values = _column(self._rows, spellings(self._keys, condition.field))
            met = configuration_for(condition, operand, values)
        bools = np.array(met, np.bool_)
        return ~bools if condition.negates else bools

    def _with_types(self, wanted: set[str]) -> set[str]:
        """Candidates with an interaction of a wanted type."""
        if ANY_TYPE in wanted:
            return {one for one, types in self._interactions.items() if types}
        return {
            one
            for one, types in self._interactions.items()
            if not wanted.isdisjoint(map(str.lower, types))
        }


def spellings(keys: Iterable[str], field: str) -> list[str]:
    """Keys that name a field: first the one with exactly this spelling, then the others by name."""
    folded = normalized(field)
    found = [key for key in keys if normalized(key) == folded]
    return sorted(found, key=lambda key: (key != field, key))


def _column(rows: Sequence[Properties], keys: Sequence[str]) -> list[Scalar]:
    """Each row's first value under the keys that is a text or a number."""
    found: list[Scalar] = [None] * len(rows)
    for key in keys:
        new = [row.get(key) for row in rows]
        found = [
            scalar_of(other) if one is None else one for one, other in zip(found, new, strict=True)
        ]
    return found


def scalar_of(value: object) -> Scalar:
    """A stored value as conditions see it.

    >>> [scalar_of(value) for value in ("a", 5, True, None, ["a"])]
    ['a', 5, 'true', None, None]
    """
    if type(value) is bool:
        return "true" if value else "false"
    return value if type(value) in _SCALARS else None  # type: ignore[return-value]


def _of(
    texts: Sequence[str],
    plain: Sequence[Number],
    limit: Number | None,
    moment: float | None = None,
) -> Operand:
    numbers = {number for text in texts if (number := number_in(text)) is not None}
    every = frozenset(numbers.union(plain))
    return Operand(frozenset(texts), every, frozenset(plain), limit, moment)


def _refuse(condition: Condition, wanted: str) -> None:
    # The value itself is not repeated: the service model marks it as sensitive.
    (name,) = condition.parameters
    raise InvalidInput(
        f"filterValues must have {wanted} for {name}, it stands after {condition.test}"
    )


def configuration_for(
    condition: Condition, operand: Operand, values: Sequence[Scalar]
) -> list[bool]:
    """True for each stored value that meets the condition, its negation aside."""
    if condition.test not in ORDERINGS:
        # A field that is tested for equality usually has few distinct values.
        decided = {value: _equals(operand, value) for value in set(values)}
        return [decided[value] for value in values]
    compare, limit = _ORDERS[condition.test], operand.limit
    if operand.moment is not None:
        return [
            any(compare(moment, operand.moment) for moment in _moments(value)) for value in values
        ]
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


def _moments(value: Scalar) -> Iterable[float]:
    if isinstance(value, str):
        return (moment for part in value.split("|") if (moment := moment_in(part)) is not None)
    return () if value is None else (in_seconds(value),)


def _numbers(text: str) -> Iterator[Number]:
    return (number for part in text.split("|") if (number := number_in(part)) is not None)
