"""Pages of lists: tokens hold the position of the next page, and are valid for one list only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from models.errors import InvalidNextToken

DEFAULT_PAGE_LENGTH = 100
"""Length of a page without `maxResults`."""

_TOKEN = re.compile(r"([0-9a-f]{1,14})-([0-9a-f]{16})")

One = TypeVar("One")


def make_token(listing: str, position: int) -> str:
    """The token of the page that begins at a position of a list.

    >>> read_token("filters", make_token("filters", 25))
    25
    """
    digest = hashlib.blake2b(f"{listing}\n{position}".encode(), digest_size=8)
    return f"{position:x}-{digest.hexdigest()}"


def read_token(listing: str, token: str | None) -> int:
    """Position at which a token's page begins; 0 without a token.

    Raises
    ------
    InvalidNextToken
        The token was not made for this list.
    """
    if not token:
        return 0
    match = _TOKEN.fullmatch(token)
    position = int(match[1], 16) if match else 0
    if token != make_token(listing, position):
        raise InvalidNextToken("nextToken is not of this list")
    return position


def get_page(
    everything: Sequence[One], listing: str, request: dict[str, Any]
) -> tuple[Sequence[One], dict[str, str]]:
    """The requested page of a list, and the member `nextToken` if there is another."""
    start = read_token(listing, request.get("nextToken"))
    end = start + request.get("maxResults", DEFAULT_PAGE_LENGTH)
    more = {"nextToken": make_token(listing, end)} if end < len(everything) else {}
    return everything[start:end], more
