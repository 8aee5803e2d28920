"""Parameters of the native API's requests: one schema for query strings and JSON bodies.

msgspec checks query strings: FastAPI's own parameters would take a third of the whole cost of a
recommendation. `structured` splits the texts of a query string into what a body holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from models.errors import InvalidInput, InvalidRequest
from models.filters.filter import Filter
from models.filters.short_form import parse_item_filter
from models.ranking.champions import Objective
from models.serving.answers import MAX_RESULTS
from models.serving.rules import Boost, Hide, Rules
from models.tokens import MAX_TOKEN_CHARACTERS, PATTERN

MAX_EXCLUDED, MAX_BOOSTS, MAX_PINS, MAX_PROPERTIES = 500, 10, 25, 20
MAX_FACTOR = 1000.0

_HIDE = re.compile(r"(seen|purchased)(?::(\d{1,10}))?")

IdParam = Annotated[str, Meta(min_length=1, max_length=256)]


Results = Annotated[int, Meta(ge=1, le=MAX_RESULTS, description="Items wanted.")]
After = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TOKEN_CHARACTERS,
        extra_json_schema={"pattern": PATTERN},
        description="Token of POST /events: wait, bounded, until those events are in effect.",
    ),
]


class AfterParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of every route that answers from the state."""

    after: After | None = None


class ProfilingParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of every route that recommends."""

    profiling: Annotated[
        Literal["on", "off"],
        Meta(description="off: nothing of any user is read, and the answer is not kept."),
    ] = "on"


class BoostParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A preference: items that the filter allows have their score multiplied."""

    filter: str
    factor: Annotated[float, Meta(gt=0, le=MAX_FACTOR)]


class PinParam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item at a slot of the answer, from 1."""

    item_id: IdParam
    slot: Annotated[int, Meta(ge=1, le=500)]


Excluded = Annotated[
    list[IdParam], Meta(max_length=MAX_EXCLUDED, description="Items to leave out: i1,i2")
]
Hides = Annotated[
    list[str],
    Meta(
        max_length=4,
        description="Leave out what the user has seen or purchased, maybe in the last seconds:"
        " purchased,seen:86400",
    ),
]
Boosts = Annotated[
    list[BoostParam],
    Meta(max_length=MAX_BOOSTS, description="Factors of scores: brand:acme*1.5;price<20*1.2"),
]
PropertyNames = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=64)]],
    Meta(max_length=MAX_PROPERTIES, description="Properties of items to return: TITLE,PRICE"),
]
ContextParam = Annotated[
    dict[str, str], Meta(description="Values of contextual columns: DEVICE:mobile;HOUR:9")
]


class RuleParams(ProfilingParams, frozen=True, kw_only=True):
    """Rules that every question for a list takes."""

    filter: Annotated[
        str | None,
        Meta(description="genre:horror,space;price<20, or an expression as in docs/filters.md."),
    ] = None
    exclude: Excluded = []
    hide: Hides = []
    boost: Boosts = []
    pin: Annotated[
        list[PinParam],
        Meta(max_length=MAX_PINS, description="Items at slots, from 1: i9:1,i3:4"),
    ] = []
    properties: PropertyNames = []

    def rules(self, k: int) -> Rules | None:
        """The rules for an answer of k items; None without any. Raises as `make_rules`."""
        return make_rules(self.filter, self.exclude, self.hide, self.boost, self.pin, k)


class ListParams(RuleParams, frozen=True, kw_only=True):
    """Parameters of a list of items, in a query string or a JSON body."""

    num_results: Results = 25
    user_id: Annotated[IdParam | None, Meta(description="User whose history counts.")] = None
    session_id: Annotated[IdParam | None, Meta(description="Its history counts too.")] = None


class RecommendParams(ListParams, frozen=True, kw_only=True):
    """Parameters of /recommend, in a query string or a JSON body."""

    item_id: Annotated[IdParam | None, Meta(description="Item being looked at now.")] = None
    exclude_purchased: Annotated[bool, Meta(description="Leave out what was bought.")] = False
    objective: Annotated[Objective, Meta(description="What the order aims at.")] = "interactions"
    reasons: Annotated[bool, Meta(description="Say which events caused each item.")] = False
    context: ContextParam = {}


class ItemsParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /items."""

    query: Annotated[
        str, Meta(max_length=200, description="Words that the id or the texts of an item hold.")
    ] = ""
    order: Annotated[
        Literal["none", "newest"],
        Meta(description="newest: those created last, of all items; without query and cursor."),
    ] = "none"
    cursor: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]{1,19}$")] | None,
        Meta(description="Of the page before."),
    ] = None
    num_results: Annotated[
        int,
        Meta(ge=1, le=MAX_RESULTS, description="Items wanted; a page may hold more, or none."),
    ] = 25


class UserParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /users/{user_id}."""

    num_results: Annotated[int, Meta(ge=1, le=MAX_RESULTS, description="Events wanted.")] = 25


Params = TypeVar("Params", bound=AfterParams)
BodyStruct = TypeVar("BodyStruct", bound=msgspec.Struct)


def parse_query(raw: bytes, kind: type[Params]) -> Params:
    """A query string decoded to `kind`; the last value counts if a name repeats.

    Raises `InvalidRequest` with the rule that is broken.

    >>> parse_query(b"user_id=u%207&num_results=3", RecommendParams).user_id
    'u 7'
    """
    pairs = _pairs(raw.decode("latin-1"))
    try:
        if not SPLITS.keys().isdisjoint(pairs):
            return msgspec.convert(structured(pairs), kind, strict=False)
        return msgspec.convert(pairs, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error


def parse_body(raw: bytes, kind: type[BodyStruct]) -> BodyStruct:
    """A JSON body decoded to `kind`.

    Raises `InvalidRequest` with the member and the rule that is broken.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(str(error)) from error


def _pairs(text: str) -> dict[str, str]:
    """Names and values as `parse_qsl` gives them, in a third of its time if none is escaped."""
    if "%" in text or "+" in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    parts = (part.partition("=") for part in text.split("&") if part)
    return {name: value for name, _, value in parts}


def make_rules(
    filter_text: str | None,
    exclude: Sequence[str],
    hide: Sequence[str],
    boost: Sequence[BoostParam],
    pin: Sequence[PinParam],
    k: int,
) -> Rules | None:
    """The rules of a request for k items; None without any.

    Raises
    ------
    InvalidRequest
        With the member and the rule that is broken.
    """
    if not (filter_text is not None or exclude or hide or boost or pin):
        return None
    pins = {one.slot: one.item_id for one in pin}
    if len(set(pins.values())) < len(pin):
        raise InvalidRequest("pin has a slot or an item twice")
    if max(pins, default=0) > k:
        raise InvalidRequest(f"pin has slot {max(pins)}, but the answer has {k} items")
    if both := set(pins.values()) & set(exclude):
        raise InvalidRequest(f"pin and exclude both have the item {min(both)}")
    return Rules(
        filter=None if filter_text is None else _filter("", filter_text),
        exclude=frozenset(exclude),
        hide=tuple(map(_hide, hide)),
        boosts=tuple(
            Boost(_filter(f"boost {n}: ", one.filter), one.factor) for n, one in enumerate(boost, 1)
        ),
        pins=pins,
    )


def _filter(before: str, text: str) -> Filter:
    try:
        return parse_item_filter(text)
    except InvalidInput as error:
        raise InvalidRequest(f"{before}{error}") from error


def _hide(text: str) -> Hide:
    match = _HIDE.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"hide takes seen and purchased, each maybe with seconds as in seen:86400, not {text!r}"
        )
    kind, window = match.groups()
    return Hide(kind, math.inf if window is None else float(window))  # type: ignore[arg-type]


def structured(texts: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a query string, those of rules in the form of a body's members.

    >>> structured({"pin": "i9:1", "boost": "brand:acme*1.5"})
    {'pin': [{'item_id': 'i9', 'slot': '1'}], 'boost': [{'filter': 'brand:acme', 'factor': '1.5'}]}
    """
    return {name: SPLITS[name](text) if name in SPLITS else text for name, text in texts.items()}


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _boosts(text: str) -> list[dict[str, str]]:
    return [
        dict(zip(("filter", "factor"), _halves(part, "*"), strict=True)) for part in text.split(";")
    ]


def _pins(text: str) -> list[dict[str, str]]:
    return [
        dict(zip(("item_id", "slot"), _halves(part, ":"), strict=True)) for part in _names(text)
    ]


def _context(text: str) -> dict[str, str]:
    parts = (part.partition(":") for part in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in parts}


def _halves(text: str, sign: str) -> tuple[str, str]:
    left, _, right = text.rpartition(sign)
    return left.strip(), right.strip()


SPLITS: Mapping[str, Callable[[str], Any]] = {
    "exclude": _names,
    "hide": _names,
    "properties": _names,
    "boost": _boosts,
    "pin": _pins,
    "context": _context,
}
"""Function that splits the text of each structured parameter."""
