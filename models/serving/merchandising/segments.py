"""Segments: named sets of users, by a rule or by affinity, which placements and people ask for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from models.errors import InvalidInput, InvalidRequest
from models.filters.attribute_queries import parse_attribute_query
from models.filters.filter import Filter, parse_filter_expression
from models.serving.merchandising.user_segments import filter_users, users_of_item, users_of_items
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import users_from
from models.state.named_versions import MAX_NAMED, current_version
from models.state.store import Store
from models.state.timed_cache import TimedCache

FRESH_S = 1.0
"""Age up to which a segment's definition is used without a question to Redis."""

AFFINITY_S = 60.0
"""Age up to which the users of a segment by affinity are."""

CHUNK = 500
MAX_SCANNED = 3000
"""Users with metadata that one page looks through, at most about this many."""


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A set of users: by exactly one of `rule`, `affinity_item`, `affinity_query`."""

    rule: Annotated[
        str | None,
        Meta(
            description="Rule on a user's properties and events, as a filter:"
            ' INCLUDE UserID WHERE Users.TIER IN ("gold").'
        ),
    ] = None
    affinity_item: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        Meta(description="Users by affinity to this item."),
    ] = None
    affinity_query: Annotated[
        str | None,
        Meta(description='Users by affinity to items like these: ITEMS.GENRES = "horror".'),
    ] = None
    size: Annotated[
        int, Meta(ge=1, le=100_000, description="Users of a segment by affinity, at most.")
    ] = 1000
    description: Annotated[str, Meta(max_length=500)] = ""


class UsersPage(NamedTuple):
    """Users of a segment, and the cursor of the rest; None at the end."""

    user_ids: list[str]
    cursor: str | None


def check_segment(segment: Segment) -> None:
    """Check what the schema cannot say.

    Raises
    ------
    InvalidRequest
        With the member and the rule that is broken.
    """
    if (
        sum(
            one is not None for one in (segment.rule, segment.affinity_item, segment.affinity_query)
        )
        != 1
    ):
        raise InvalidRequest("a segment has exactly one of rule, affinity_item and affinity_query")
    try:
        if segment.rule is not None:
            _rule(segment.rule)
        if segment.affinity_query is not None:
            parse_attribute_query(segment.affinity_query)
    except InvalidInput as error:
        member = "affinity_query" if segment.rule is None else "rule"
        raise InvalidRequest(f"{error} - at `$.{member}`") from error


def _rule(text: str) -> Filter:
    found = parse_filter_expression(text)
    if found.target != "UserID":
        raise InvalidInput(f"it chooses by {found.target}, not among users")
    if found.parameters:
        raise InvalidInput("it has a $PARAMETER: write its values")
    return found


class Segments:
    """The segments of a group by name; definitions are at most `FRESH_S` old."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._held = TimedCache[str, Segment](size=MAX_NAMED, max_age_s=FRESH_S)
        self._by_affinity = TimedCache[Segment, tuple[str, ...]](size=20, max_age_s=AFFINITY_S)

    @property
    def _store(self) -> Store:
        return self._recommender.store

    async def get(self, name: str, now_s: float) -> Segment | None:
        """A segment; None if there is none of that name."""
        (found,) = await self._held.read([name], now_s, self._read)
        return found

    def drop(self, name: str) -> None:
        """Forget a segment that was just saved here."""
        self._held.invalidate([name])

    async def of_user(self, user_id: str, names: Sequence[str], now_s: float) -> frozenset[str]:
        """Those of the named segments that hold a user; one that does not exist holds nobody.

        A round trip or two for each by a rule.
        """
        found = []
        for name in names:
            segment = await self.get(name, now_s)
            if segment is not None and await self._holds(segment, user_id, now_s):
                found.append(name)
        return frozenset(found)

    async def _holds(self, segment: Segment, user_id: str, now_s: float) -> bool:
        if segment.rule is not None:
            return bool(await filter_users(self._store, _rule(segment.rule), [user_id], {}))
        return user_id in await self._users_by_affinity(segment, now_s)

    async def users(self, segment: Segment, now_s: float, *, cursor: int, n: int) -> UsersPage:
        """A page of a segment's users: by affinity the highest first; by a rule in no order.

        A page by a rule looks through `MAX_SCANNED` users with metadata, at most about that many,
        and may hold those of one read more than n.
        """
        if segment.rule is None:
            users = await self._users_by_affinity(segment, now_s)
            rest = cursor + n
            return UsersPage([*users[cursor:rest]], str(rest) if rest < len(users) else None)
        found, n_scanned, rule = list[str](), 0, _rule(segment.rule)
        while True:
            cursor, some = await users_from(self._store, cursor, n=CHUNK)
            n_scanned += len(some)
            found += await filter_users(self._store, rule, some, {})
            if not cursor or len(found) >= n or n_scanned >= MAX_SCANNED:
                return UsersPage(found, str(cursor) if cursor else None)

    async def _users_by_affinity(self, segment: Segment, now_s: float) -> tuple[str, ...]:
        async def read(_: list[Segment]) -> list[tuple[str, ...]]:
            if segment.affinity_item is not None:
                users = await users_of_item(self._recommender, segment.affinity_item, now_s=now_s)
            else:
                query = parse_attribute_query(segment.affinity_query or "")
                users = await users_of_items(self._recommender, query)
            return [tuple(users[: segment.size])]

        (found,) = await self._by_affinity.read([segment], now_s, read)
        return found or ()

    async def _read(self, names: list[str]) -> list[Segment | None]:
        saved = [await current_version(self._store, "segments", name) for name in names]
        return [None if one is None else decoded_segment(bytes(one.value)) for one in saved]


@functools.lru_cache(maxsize=256)
def decoded_segment(value: bytes) -> Segment:
    """The segment of a saved value."""
    return msgspec.json.decode(value, type=Segment)
