"""Queries for items by their attributes, the input of user segments.

`ITEMS.genres = "Comedy" AND ITEMS.genres = "Action"`: only `=` and AND, otherwise as in filters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.filters.grammar import Condition, parse_attributes
from models.filters.matching import NO_PROPERTIES, Bools, CandidateProperties, Properties


@dataclass(frozen=True)
class AttributeQuery:
    """Conditions that an item must all meet; `str` of it is its text in a standard form."""

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        """Text in the language of queries; parsing it gives an equal query."""
        return " AND ".join(map(str, self.conditions))

    def matching(self, ids: Sequence[str], properties: Sequence[Properties | None]) -> Bools:
        """True for each item that meets all conditions; ``(n,)``, in their order.

        Parameters
        ----------
        ids, properties
            The items, as `models.filters.filter.Filter.allowed` takes them.
        """
        items = CandidateProperties(ids, properties)
        matching = np.ones(len(ids), np.bool_)
        for condition in self.conditions:
            matching &= items.meeting(condition, NO_PROPERTIES, NO_PROPERTIES)
        return matching


@functools.lru_cache(maxsize=128)
def parse_attribute_query(query: str) -> AttributeQuery:
    """Parse a query.

    Raises
    ------
    InvalidInput
        With line and column, counted from 1, the word found there, and the words expected.

    Examples
    --------
    >>> query = parse_attribute_query('ITEMS.genres = "Comedy" AND ITEMS.genres = "Action"')
    >>> query.matching(["i1", "i2"], [{"GENRES": "Action|Comedy"}, {"GENRES": "Comedy"}])
    array([ True, False])
    """
    return AttributeQuery(parse_attributes(query))
