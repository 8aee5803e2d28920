"""Query strings: what may be asked, checked by one schema that the API reference shows too.

FastAPI's own parameters would do the same for a third of a recommendation's whole cost.
"""

from __future__ import annotations

from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from models.errors import InvalidRequest
from models.ranking.ranker import Objective
from models.serving.answers import MAX_RESULTS
from models.tokens import MAX_TOKEN_CHARACTERS

IdParam = Annotated[str, Meta(min_length=1, max_length=256)]
Results = Annotated[int, Meta(ge=1, le=MAX_RESULTS, description="Items wanted.")]
After = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TOKEN_CHARACTERS,
        description="Token of POST /events: wait, bounded, until those events are in effect.",
    ),
]


class AfterParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every question may say."""

    after: After | None = None


class ListParams(AfterParams, frozen=True, kw_only=True):
    """A question for a list."""

    num_results: Results = 25


class RecommendParams(ListParams, frozen=True, kw_only=True):
    """A question for recommendations."""

    user_id: Annotated[IdParam | None, Meta(description="Whose history counts.")] = None
    session_id: Annotated[IdParam | None, Meta(description="Its history counts too.")] = None
    item_id: Annotated[IdParam | None, Meta(description="Item being looked at now.")] = None
    exclude_purchased: Annotated[bool, Meta(description="Leave out what was bought.")] = False
    objective: Annotated[Objective, Meta(description="What the order aims at.")] = "interactions"
    reasons: Annotated[bool, Meta(description="Say which events caused each item.")] = False


Params = TypeVar("Params", bound=AfterParams)


def query(raw: bytes, kind: type[Params]) -> Params:
    """A query string as `kind`, the last where a name repeats.

    Raises `InvalidRequest` naming what is wrong.

    >>> query(b"user_id=u%207&num_results=3", RecommendParams).user_id
    'u 7'
    """
    try:
        return msgspec.convert(_pairs(raw.decode("latin-1")), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from error


def _pairs(text: str) -> dict[str, str]:
    """What `parse_qsl` makes of it, in a third of its time where nothing is escaped."""
    if "%" in text or "+" in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    parts = (part.partition("=") for part in text.split("&") if part)
    return {name: value for name, _, value in parts}
