"""The schema of served lists in Kafka: what was shown to whom, where, and by which arm."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.errors import InvalidEvent
from models.events import MAX_MESSAGE_BYTES, Id

MAX_SHOWN_ITEMS = 100
"""Items kept of a list: the first ones, which were seen if any were."""

MAX_LOGGED_POOL = 250
"""Items that a list was explored among, at most."""

SOURCE_CODES = {
    "event": "e",
    "alike": "a",
    "popular": "p",
    "trending": "t",
    "recent": "r",
    "new": "n",
    "history": "h",
    "category": "c",
    "exploration": "x",
    "fresh": "f",
    "filter": "i",
    "pinned": "s",
    "ranked": "k",
    "retrieved": "b",
    "cached": "o",
}
"""One character for each source of a reason; the last three are levels, for items whose reason was
not asked for."""

SOURCES_BY_CODE = {code: source for source, code in SOURCE_CODES.items()}

UNKNOWN_SOURCE = "other"
"""Source of an item with a code that is none of these."""

OTHER_SOURCE = "-"
"""Code of a source without one of its own."""

Name = Annotated[str, Meta(max_length=128, pattern=r"^[\x21-\x7E]*\Z")]


class LoggedExploration(msgspec.Struct, frozen=True, rename="camel"):
    """Probability of each item of a served list to stand where it did.

    Attributes
    ----------
    rate
        Probability that a randomised slot was explored.
    pool, weights
        Items that an explored slot was drawn from, each once at most, and their weights.
    probabilities
        Of each item of the list in its slot, given what was explored above it; 1 where nothing was
        drawn.
    replaced
        By position, from 0: the item that the list had there by its own order. Of explored slots.
    """

    rate: Annotated[float, Meta(gt=0, le=1)]
    pool: Annotated[list[Id], Meta(min_length=1, max_length=MAX_LOGGED_POOL)]
    weights: list[Annotated[int, Meta(ge=1, le=2**31)]]
    probabilities: list[Annotated[float, Meta(gt=0, le=1)]]
    replaced: dict[Annotated[int, Meta(ge=0, lt=MAX_SHOWN_ITEMS)], Id]


class ServedList(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One answer: its items in order, and how they came about.

    Attributes
    ----------
    served_at
        Unix seconds.
    sources
        A character of `SOURCE_CODES` for each item.
    version
        Of the placement's configuration.
    experiment
        Id of the experiment that the arm belongs to; an arm without one is a name alone.
    horizon_s, bucket_s
        Of the experiment: for how long outcomes count after a user's first list, and the width of
        the times of first lists that are counted together.
    exploration
        How the list was drawn; None where nothing was.
    """

    recommendation_id: Annotated[str, Meta(min_length=1, max_length=40)]
    served_at: Annotated[float, Meta(gt=0, le=1e11)]
    items: Annotated[list[Id], Meta(max_length=MAX_SHOWN_ITEMS)]
    sources: Annotated[str, Meta(max_length=MAX_SHOWN_ITEMS, pattern=r"^[a-z-]*\Z")]
    recipe: Name = ""
    user_id: Id | None = None
    session_id: Id | None = None
    placement: Name = ""
    version: Annotated[int, Meta(ge=0)] = 0
    arm: Name = ""
    experiment: Name = ""
    horizon_s: Annotated[int, Meta(ge=0, le=365 * 86400)] = 0
    bucket_s: Annotated[int, Meta(ge=1, le=365 * 86400)] = 1
    exploration: LoggedExploration | None = None


class ListedItems(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Items that another system would have shown in place of a served list."""

    recommendation_id: Annotated[str, Meta(min_length=1, max_length=40)]
    items: list[Id]


class ServedLists(msgspec.Struct, frozen=True, rename="camel"):
    """A message: lists of one dataset group."""

    group: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,63}\Z")]
    lists: list[ServedList]


_decoder = msgspec.json.Decoder(ServedLists)
_encoder = msgspec.json.Encoder()


def parse_served(raw: bytes, *, now_s: float, future_limit_s: float = 300.0) -> ServedLists:
    """Parse a message of served lists.

    Raises
    ------
    InvalidEvent
        With the member that breaks the schema, and the rule.
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidEvent(f"message of {len(raw)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(str(error)) from error
    for n, one in enumerate(message.lists):
        if len(one.sources) != len(one.items):
            raise InvalidEvent(f"sources must be as many as items - at `$.lists[{n}]`")
        drawn = one.exploration
        if drawn is not None:
            _check_exploration(drawn, one.items, f"`$.lists[{n}].exploration`")
        if one.served_at > now_s + future_limit_s:
            raise InvalidEvent(f"servedAt lies too far in the future - at `$.lists[{n}]`")
    return message


def _check_exploration(drawn: LoggedExploration, items: list[str], place: str) -> None:
    if len(drawn.weights) != len(drawn.pool) or len(set(drawn.pool)) != len(drawn.pool):
        raise InvalidEvent(f"pool must have distinct items, and a weight for each - at {place}")
    if len(drawn.probabilities) != len(items):
        raise InvalidEvent(f"probabilities must be as many as items - at {place}")
    pool = frozenset(drawn.pool)
    if any(at >= len(items) or items[at] not in pool for at in drawn.replaced):
        raise InvalidEvent(f"replaced must name positions of items of the pool - at {place}")


def encode_served(group: str, lists: list[ServedList]) -> bytes:
    """A message as JSON text; `parse_served` returns an equal one.

    >>> encode_served("shop", [ServedList("r1", 1.5, ["tent"], "t")])
    b'{"group":"shop","lists":[{"recommendationId":"r1","servedAt":1.5,"items":["tent"],"sources":"t"}]}'
    """
    return _encoder.encode(ServedLists(group, lists))
