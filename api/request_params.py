"""Parameters of the native API's requests: one schema for query strings and JSON bodies.

msgspec checks query strings: FastAPI's own parameters would take a third of the whole cost of a
recommendation. `structured` splits the texts of a query string into what a body holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from models.errors import InvalidRequest
from models.events import Id
from models.ranking.champions import Objective
from models.serving.answers import MAX_RESULTS
from models.serving.merchandising.rule_members import (
    Boosts,
    Caps,
    Diversity,
    Excluded,
    FilterText,
    FilterValues,
    Hides,
    IdParam,
    Pins,
    PropertyName,
    make_rules,
)
from models.serving.merchandising.rules import Rules
from models.state.named_versions import NAME_PATTERN
from models.tokens import MAX_TOKEN_CHARACTERS, PATTERN

MAX_PROPERTIES, MAX_RANKED = 20, 500

Results = Annotated[
    int,
    Meta(ge=1, le=MAX_RESULTS, description="Items wanted: 25, unless the placement says."),
]
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
    timing: Annotated[
        bool, Meta(description="Say how many milliseconds each stage of the answer took.")
    ] = False


PropertyNames = Annotated[
    tuple[PropertyName, ...],
    Meta(max_length=MAX_PROPERTIES, description="Properties of items to return: TITLE,PRICE"),
]
ContextParam = Annotated[
    dict[str, str], Meta(description="Values of contextual columns: DEVICE:mobile;HOUR:9")
]


PlacementParam = Annotated[
    Annotated[str, Meta(pattern=NAME_PATTERN)] | None,
    Meta(description="Placement whose configuration and rules count too."),
]


class RuleParams(ProfilingParams, frozen=True, kw_only=True):
    """Rules that every question for a list takes."""

    filter: FilterText = None
    filter_values: FilterValues = {}
    exclude: Excluded = ()
    hide: Hides = ()
    boost: Boosts = ()
    pin: Pins = ()
    cap: Caps = ()
    diversity: Diversity = 0.0
    properties: PropertyNames = ()
    placement: PlacementParam = None

    def rules(self, k: int) -> Rules | None:
        """The rules for an answer of k items; None without any. Raises as `make_rules`."""
        return make_rules(
            self.filter,
            self.exclude,
            self.hide,
            self.boost,
            self.pin,
            self.cap,
            self.diversity,
            k=k,
            values=self.filter_values,
        )


class ListParams(RuleParams, frozen=True, kw_only=True):
    """Parameters of a list of items, in a query string or a JSON body."""

    num_results: Results | None = None
    user_id: Annotated[IdParam | None, Meta(description="User whose history counts.")] = None
    session_id: Annotated[IdParam | None, Meta(description="Its history counts too.")] = None


class RecommendParams(ListParams, frozen=True, kw_only=True):
    """Parameters of /recommend, in a query string or a JSON body."""

    item_id: Annotated[IdParam | None, Meta(description="Item being looked at now.")] = None
    exclude_purchased: Annotated[bool, Meta(description="Leave out what was bought.")] = False
    objective: Annotated[
        Objective | None,
        Meta(description="What the order aims at: interactions, unless the placement says."),
    ] = None
    reasons: Annotated[bool, Meta(description="Say which events caused each item.")] = False
    context: ContextParam = {}


class RankRequest(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items to rank for a user."""

    item_ids: Annotated[list[Id], Meta(min_length=1, max_length=MAX_RANKED)]
    user_id: Id | None = None
    session_id: Id | None = None
    filter: FilterText = None
    filter_values: FilterValues = {}
    exclude: Excluded = ()
    hide: Hides = ()
    boost: Boosts = ()
    cap: Caps = ()
    diversity: Diversity = 0.0
    properties: PropertyNames = ()
    context: ContextParam = {}
    placement: PlacementParam = None


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
    """A query string decoded to `kind`.

    Raises `InvalidRequest` with the rule that is broken, or the name that stands there twice: of
    two filters none may be passed over.

    >>> parse_query(b"user_id=u%207&num_results=3", RecommendParams).user_id
    'u 7'
    >>> parse_query(b"context=mobile", RecommendParams)
    Traceback (most recent call last):
    models.errors.InvalidRequest: Expected `str`, got `null` - at `$.context[...]`
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
        pairs = parse_qsl(text, keep_blank_values=True)
    else:
        parts = (part.partition("=") for part in text.split("&") if part)
        pairs = [(name, value) for name, _, value in parts]
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the parameter {twice} stands twice")
    return found


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


def _caps(text: str) -> list[dict[str, str]]:
    return [
        dict(zip(("property", "most"), _halves(part, ":"), strict=True)) for part in _names(text)
    ]


def _context(text: str) -> dict[str, str | None]:
    parts = (part.partition(":") for part in text.split(";"))
    # A name without a value is refused by the schema, at its place.
    return {name.strip(): value.strip() if sign else None for name, sign, value in parts}


def _halves(text: str, sign: str) -> tuple[str, str]:
    left, _, right = text.rpartition(sign)
    return left.strip(), right.strip()


SPLITS: Mapping[str, Callable[[str], Any]] = {
    "exclude": _names,
    "hide": _names,
    "properties": _names,
    "boost": _boosts,
    "pin": _pins,
    "cap": _caps,
    "context": _context,
    "filter_values": _context,
}
"""Function that splits the text of each structured parameter."""
