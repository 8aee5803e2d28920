"""Guesses about files without metadata: is the first line a header, and which column is which.

Evidence is in names, types of values, and prefixes of ids. If two interpretations fit, the error
names both and the user decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from models.errors import CannotPrepare, UnreadableRecording
from streams.reading.column_mapping import DatasetKind, is_known_name, normalized_name
from streams.reading.fields import text_or_none
from streams.reading.times import EARLIEST_S, ReadTime, number_of

MIN_SHARE = 0.9
"""Least share of times or numbers in a column of them; the others may be bad rows."""

LATEST_S = 4_102_444_800.0
"""2100: a greater number is no time."""

_STRONG = frozenset(
    {
        *("userid", "user", "customerid", "customer", "visitorid", "sessionid", "memberid"),
        *("itemid", "item", "productid", "movieid", "articleid", "videoid", "sku", "asin"),
        *("timestamp", "eventtime", "eventtype"),
    }
)
"""Names that are never ids of users or items, nor categories."""

_PREFIX = re.compile(r"[^\W\d_]+")
_OF_USERS = frozenset({"u", "user", "usr", "uid", "customer", "cust", "visitor", "member"})
_OF_ITEMS = frozenset(
    {"i", "item", "iid", "p", "prod", "product", "sku", "movie", "article", "book", "song", "video"}
)


class ColumnTraits(NamedTuple):
    """Common traits of the values of a column."""

    is_numeric: bool
    is_time: bool
    prefix: str


def column_traits(values: Sequence[Any], read_time: ReadTime) -> ColumnTraits:
    """Common traits of values; none without values."""
    texts = [text for value in values if (text := text_or_none(value)) is not None]
    if not texts:
        return ColumnTraits(is_numeric=False, is_time=False, prefix="")
    numbers = sum(number_of(text) is not None for text in texts)
    times = sum(_is_time(text, read_time) for text in texts)
    prefixes = {found.group().lower() if (found := _PREFIX.match(text)) else "" for text in texts}
    return ColumnTraits(
        is_numeric=numbers >= MIN_SHARE * len(texts),
        is_time=times >= MIN_SHARE * len(texts),
        prefix=prefixes.pop() if len(prefixes) == 1 else "",
    )


def _is_time(text: str, read_time: ReadTime) -> bool:
    moment = read_time(text)
    return moment is not None and EARLIEST_S <= moment.s <= LATEST_S


def has_header(first: Sequence[str], rest: Sequence[Sequence[str]], read_time: ReadTime) -> bool:
    """True if the first line is a header.

    A header has usual column names, or text above numbers or times. A first line with a number, and
    without either, is data.

    Raises
    ------
    UnreadableRecording
        All is text, and a text of the first line also occurs below it.
    """
    if any(normalized_name(field) in _STRONG for field in first):
        return True
    below = [
        column_traits([row[n] for row in rest if n < len(row)], read_time)
        for n in range(len(first))
    ]
    firsts = [column_traits([field], read_time) for field in first]
    for field, one, column in zip(first, firsts, below, strict=True):
        is_named = (column.is_numeric and not one.is_numeric) or (
            column.is_time and not one.is_time
        )
        if is_named and text_or_none(field) is not None:
            return True
    if any(one.is_numeric or one.is_time for one in firsts):
        return False
    if sum(map(is_known_name, first)) > 1:
        return True
    for n, field in enumerate(first):
        if field and any(n < len(row) and row[n] == field for row in rest):
            raise UnreadableRecording(
                f"the first line, {', '.join(first)[:100]}, may name the columns or be data"
                f" ({field!r} stands below it too): name the columns with --columns"
            )
    return True


def guess_columns_by_values(
    columns: Sequence[str], rows: Sequence[Sequence[str]], kind: DatasetKind, read_time: ReadTime
) -> dict[str, str]:
    """Columns of the fields, by the values of columns without names.

    Raises
    ------
    CannotPrepare
        Several interpretations fit; the text names them.
    """
    found = {
        column: column_traits([row[n] for row in rows], read_time)
        for n, column in enumerate(columns)
    }
    if kind != "interactions":
        raise _ambiguous(f"nothing tells which of {', '.join(columns)} is the id")
    times = [column for column in columns if found[column].is_time]
    if len(times) != 1:
        named = " or ".join(times) or "none of them"
        raise _ambiguous(f"{named} may be the time")
    users = [column for column in columns if found[column].prefix in _OF_USERS]
    items = [column for column in columns if found[column].prefix in _OF_ITEMS]
    if len(users) != 1 or len(items) != 1:
        others = [column for column in columns if column not in times]
        one, other = (*others, "?", "?")[:2]
        raise _ambiguous(
            f"{one} may be the user and {other} the item, or {other} the user and {one} the item"
        )
    return {"USER_ID": users[0], "ITEM_ID": items[0], "TIMESTAMP": times[0]}


def _ambiguous(why: str) -> CannotPrepare:
    return CannotPrepare(
        f"the file does not name its columns, and {why}: name them all in their order, as in"
        " --columns USER_ID,ITEM_ID,TIMESTAMP, or each with --map USER_ID=column1"
    )


def is_list_of_objects(value: object) -> bool:
    """True for a list of objects, such as the items of an order."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def same_name(column: str, other: str) -> bool:
    """True if two names differ only in case and in signs between letters.

    >>> same_name("userId", "USER_ID")
    True
    """
    return normalized_name(column) == normalized_name(other)
