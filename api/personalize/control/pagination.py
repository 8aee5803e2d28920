"""Pages of lists: tokens that say where the next one begins, good for the same list only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from models.errors import InvalidNextToken

DEFAULT_PAGE_LENGTH = 100
"""Of a page, where a request does not say."""

_TOKEN = re.compile(r"([0-9a-f]{1,14})-([0-9a-f]{16})")

One = TypeVar("One")


def make_token(listing: str, position: int) -> str:
    """The token of what follows a position in a list.

    >>> read_token("filters", make_token("filters", 25))
    25
    """
    digest = hashlib.blake2b(f"{listing}\n{position}".encode(), digest_size=8)
    return f"{position:x}-{digest.hexdigest()}"


def read_token(listing: str, token: str | None) -> int:
    """Where a token's page begins; 0 without a token.

    Raises
    ------
    InvalidNextToken
        For anything that `make_token` did not give for this list.
    """
    if not token:
        return 0
    match = _TOKEN.fullmatch(token)
    position = int(match[1], 16) if match else 0
    if token != make_token(listing, position):
        raise InvalidNextToken("nextToken was not given out for this list")
    return position


def get_page(
    everything: Sequence[One], listing: str, request: dict[str, Any]
) -> tuple[Sequence[One], dict[str, str]]:
    """The page of a list that a request asks for, and the member `nextToken` if there is more."""
    start = read_token(listing, request.get("nextToken"))
    end = start + request.get("maxResults", DEFAULT_PAGE_LENGTH)
    more = {"nextToken": make_token(listing, end)} if end < len(everything) else {}
    return everything[start:end], more
