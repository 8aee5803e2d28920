"""The short form of filters, for query strings: `genre:horror,space;price<20`.

Conditions on items' properties, separated by semicolons; an item must meet all of them. `:` takes
any of several values and `!:` none of them, separated by commas. What it cannot say, a value with a
comma or an OR, the language of `models.filters.grammar` can.
"""

from __future__ import annotations

import functools
import re

from models.errors import InvalidInput
from models.filters.filter import Filter, parse_filter_expression
from models.filters.grammar import MAX_CHARACTERS, moment_in, number_in

FILTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
"""Name of a saved filter, which stands where its expression could: this has a sign, or blanks."""

_LONG = re.compile(r"\s*(?:INCLUDE|EXCLUDE)\b", re.IGNORECASE)
_CONDITION = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(!:|:|<=|>=|!=|<|>|=)(.+)")
_TESTS = {":": "IN", "!:": "NOT IN"}


def is_filter_name(text: str) -> bool:
    """True for the name of a saved filter.

    >>> is_filter_name("in-stock"), is_filter_name("brand:acme"), is_filter_name("include-sale")
    (True, False, True)
    """
    return re.match(FILTER_NAME, text) is not None


@functools.lru_cache(maxsize=1024)
def parse_item_filter(text: str, *, takes_parameters: bool = False) -> Filter:
    """A filter of items in the short form, or in the language of filters.

    Raises
    ------
    InvalidInput
        With the condition, or line and column, that breaks a rule.

    Examples
    --------
    >>> str(parse_item_filter("genre:horror,space;price<20"))
    'INCLUDE ItemID WHERE Items.genre IN ("horror", "space") AND Items.price < 20'
    >>> parse_item_filter("price<cheap")
    Traceback (most recent call last):
    models.errors.InvalidInput: filter, condition 1: price < takes one number, or one date as ...
    """
    if not 1 <= len(text) <= MAX_CHARACTERS:
        raise InvalidInput(f"filter must have 1 to {MAX_CHARACTERS} characters, not {len(text)}")
    if not _LONG.match(text):
        conditions = [_condition(n, part) for n, part in enumerate(text.split(";"), 1)]
        text = f"INCLUDE ItemID WHERE {' AND '.join(conditions)}"
    found = parse_filter_expression(text)
    if found.target != "ItemID":
        raise InvalidInput(f"filter chooses by {found.target}, not among items")
    if found.parameters and not takes_parameters:
        raise InvalidInput("filter has a $PARAMETER: write its values")
    return found


def _condition(number: int, text: str) -> str:
    """One condition in the language of filters."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f"filter, condition {number}: expected property:value, or a comparison such as price<20"
        )
    name, sign, right = (part.strip() for part in match.groups())
    if sign in _TESTS:
        values = [_literal(number, value) for value in right.split(",")]
        return f"Items.{name} {_TESTS[sign]} ({', '.join(values)})"
    if sign in ("=", "!="):
        return f"Items.{name} {sign} {_literal(number, right)}"
    if moment_in(right) is not None:
        return f'Items.{name} {sign} "{right}"'
    if number_in(right) is None:
        raise InvalidInput(
            f"filter, condition {number}: {name} {sign} takes one number, or one date as 2026-03-01"
        )
    return f"Items.{name} {sign} {right}"


def _literal(number: int, value: str) -> str:
    value = value.strip()
    if not value:
        raise InvalidInput(f"filter, condition {number}: a value is empty")
    if '"' in value and "'" in value:
        raise InvalidInput(f"filter, condition {number}: a value has both kinds of quotes")
    quote = "'" if '"' in value else '"'
    return f"{quote}{value}{quote}"
