"""Rules as requests and placements write them, and what they mean: one schema for both."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from models.errors import InvalidInput, InvalidRequest
from models.filters.filter import MAX_VALUES, Filter, check_value_names
from models.filters.short_form import is_filter_name, parse_item_filter
from models.metadata_records import normalized
from models.serving.answers import MAX_RESULTS
from models.serving.merchandising.rules import Boost, Cap, Hide, Rules

MAX_EXCLUDED, MAX_HIDES, MAX_BOOSTS, MAX_PINS, MAX_CAPS = 500, 4, 10, 25, 5
MAX_FACTOR = 1000.0

_HIDE = re.compile(r"(seen|purchased|disliked|shown)(?::(\d{1,10}))?")

IdParam = Annotated[str, Meta(min_length=1, max_length=256)]
PropertyName = Annotated[str, Meta(min_length=1, max_length=64)]


class BoostParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A preference: items that the filter allows have their score multiplied."""

    filter: str
    factor: Annotated[float, Meta(gt=0, le=MAX_FACTOR)]


class PinParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item at a slot of the answer, from 1."""

    item_id: IdParam
    slot: Annotated[int, Meta(ge=1, le=MAX_RESULTS)]


class CapParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Most items of the answer with the same value of a property."""

    property: PropertyName
    most: Annotated[int, Meta(ge=1, le=MAX_RESULTS)]


FilterText = Annotated[
    str | None,
    Meta(description="genre:horror,space;price<20, or an expression as in docs/filters.md."),
]
Excluded = Annotated[
    tuple[IdParam, ...], Meta(max_length=MAX_EXCLUDED, description="Items to leave out: i1,i2")
]
Hides = Annotated[
    tuple[str, ...],
    Meta(
        max_length=MAX_HIDES,
        description="Leave out what the user has seen, purchased, disliked or was shown, maybe in "
        "the last s: purchased,seen:86400",
    ),
]
Boosts = Annotated[
    tuple[BoostParam, ...],
    Meta(max_length=MAX_BOOSTS, description="Factors of scores: brand:acme*1.5;price<20*1.2"),
]
Pins = Annotated[
    tuple[PinParam, ...], Meta(max_length=MAX_PINS, description="Items at slots, from 1: i9:1,i3:4")
]
Caps = Annotated[
    tuple[CapParam, ...],
    Meta(
        max_length=MAX_CAPS,
        description="Most items with the same value of a property: brand:2,category:3",
    ),
]


FilterValues = Annotated[
    dict[str, str],
    Meta(
        max_length=MAX_VALUES,
        description='Values of the $PARAMETERS of filters: GENRE:"war","drama";PRICE:20',
    ),
]
Diversity = Annotated[
    float,
    Meta(ge=0, le=1, description="0: by score alone; 1: items that differ from each other most."),
]


NO_VALUES: Mapping[str, str] = MappingProxyType({})


def make_rules(
    filter_text: str | None = None,
    exclude: Sequence[str] = (),
    hide: Sequence[str] = (),
    boost: Sequence[BoostParam] = (),
    pin: Sequence[PinParam] = (),
    cap: Sequence[CapParam] = (),
    diversity: float = 0.0,
    *,
    k: int,
    values: Mapping[str, str] = NO_VALUES,
) -> Rules | None:
    """The rules of an answer of k items; None without any.

    Raises
    ------
    InvalidRequest
        With the member and the rule that is broken.
    """
    filters = [] if filter_text is None else [_parsed("", filter_text)]
    boosted = [(_parsed(f"boost {n}: ", one.filter), one) for n, one in enumerate(boost, 1)]
    _check_names(values, [*filters, *(found for found, _ in boosted)])
    if not (filters or exclude or hide or boost or pin or cap or diversity):
        return None
    pins = {one.slot: one.item_id for one in pin}
    if len(set(pins.values())) < len(pin):
        raise InvalidRequest("pin has a slot or an item twice")
    if max(pins, default=0) > k:
        raise InvalidRequest(f"pin has slot {max(pins)}, but the answer has {k} items")
    if both := set(pins.values()) & set(exclude):
        raise InvalidRequest(f"pin and exclude both have the item {min(both)}")
    return Rules(
        filters=tuple(bound for one in filters for bound in _with_values("", one, values)),
        exclude=frozenset(exclude),
        hide=tuple(map(_hide, hide)),
        boosts=tuple(
            Boost(bound, one.factor)
            for n, (found, one) in enumerate(boosted, 1)
            for bound in _with_values(f"boost {n}: ", found, values)
        ),
        pins=pins,
        caps=tuple(Cap(normalized(one.property), one.most) for one in cap),
        diversity=diversity,
    )


def saved_filter_names(filter_text: str | None, boost: Sequence[BoostParam]) -> list[str]:
    """Names of saved filters that stand in place of expressions."""
    texts = [filter_text, *(one.filter for one in boost)]
    return [text for text in texts if text is not None and is_filter_name(text)]


def with_expressions(
    filter_text: str | None, boost: Sequence[BoostParam], expressions: Mapping[str, str]
) -> dict[str, Any]:
    """The members `filter` and `boost` with the expressions of saved filters for their names."""
    return {
        "filter": None if filter_text is None else expressions.get(filter_text, filter_text),
        "boost": tuple(
            msgspec.structs.replace(one, filter=expressions.get(one.filter, one.filter))
            for one in boost
        ),
    }


def _parsed(before: str, text: str) -> Filter:
    try:
        return parse_item_filter(text, takes_parameters=True)
    except InvalidInput as error:
        raise InvalidRequest(f"{before}{error}") from error


def _check_names(values: Mapping[str, str], filters: Sequence[Filter]) -> None:
    try:
        check_value_names(values, filters)
    except InvalidInput as error:
        raise InvalidRequest(str(error)) from error


def _with_values(before: str, found: Filter, values: Mapping[str, str]) -> list[Filter]:
    """The filter with its values; none where nothing of it applies."""
    try:
        bound = found.with_values(values) if found.parameters else found
    except InvalidInput as error:
        raise InvalidRequest(f"{before}{error}") from error
    return [] if bound is None else [bound]


def _hide(text: str) -> Hide:
    match = _HIDE.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            "hide takes seen, purchased, disliked and shown, each maybe with seconds as in "
            f"seen:86400, not {text!r}"
        )
    kind, window = match.groups()
    return Hide(kind, math.inf if window is None else float(window))  # type: ignore[arg-type]
