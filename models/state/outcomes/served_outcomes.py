"""Served lists and their outcomes, in the state: the atomic step of lists, and counts of both.

Outcomes are found in the step of whichever comes last, the list or the event (outcomes.lua):

    {group}:shown:<owner>       string  an owner's last lists, and what became of them
    {group}:askers:<n>          hash    recommendationId -> owner, in generations of one window
    {group}:awaited:<n>         hash    recommendationId -> events that name it before it is known
    {group}:outcomes:h<n>       hash    counts of an hour's lists; d<n> of a day's
    {group}:exposure:<unit>     string  a user's arms and outcomes in experiments
    {group}:experiment:<id>     hash    sums over an experiment's users, by arm and first exposure

An owner is "u:<user>", "s:<session>", or "r:<recommendationId>" of a list for nobody.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from models.served_messages import SOURCE_CODES, SOURCES_BY_CODE, UNKNOWN_SOURCE, ServedList
from models.settings import Settings
from models.state import layout
from models.state.groups.group_registry import GROUPS
from models.state.messages import Part, PartResult, StoredEvent, StoredMessage, shard_of
from models.state.scripts.lua_source import OUTCOME_FUNCTIONS, make_script
from models.state.store import Store

SUM = struct.Struct("<5d")
"""Answers, impressions, clicks, conversions, and value in thousandths."""

Dimension = Literal["all", "placement", "arm", "recipe", "reason", "position"]
DIMENSIONS: Final[tuple[Dimension, ...]] = (
    "all", "placement", "arm", "recipe", "reason", "position",
)  # fmt: skip

REASONS: Final = (*SOURCE_CODES, UNKNOWN_SOURCE)
"""Reason for which an item was shown, as outcomes are counted."""

HOUR_S, DAY_S = 3600, 86400


class StoredList(NamedTuple):
    """One served list as the atomic step takes it; outcomes.lua reads fields by position.

    Attributes
    ----------
    user_id, session_id
        Empty where the request named none.
    stored_dimensions
        Placement, arm and recipe, with tabs between.
    """

    user_id: str
    session_id: str
    shard: int
    list_name: str
    time_ms: int
    stored_dimensions: str
    source_codes: str
    item_ids: list[str]
    experiment_name: str = ""
    arm_name: str = ""
    horizon_s: int = 0
    bucket_s: int = 1


class ServedMessage(NamedTuple):
    """The lists of one Kafka message, with its place and identity."""

    offset: int
    group: str
    lists: list[StoredList]
    timestamp_ms: int = 0
    checksum: int = 0


class ServedPart(NamedTuple):
    """Messages of one partition in offset order, and the watermark they follow; as `Part`."""

    field: str
    expected: int
    messages: Sequence[ServedMessage]
    checksum: int = -1


APPLY_SERVED = make_script(
    "apply_served",
    shared=("prelude", "group_marks", "history_columns"),
    functions=(
        "recent_owners",
        "histories",
        *OUTCOME_FUNCTIONS,
        "apply_shown",
    ),
    # The fields of events are those that the other step shares with this one.
    records=(StoredMessage, StoredEvent, ServedMessage, StoredList),
    part=Part,
)


class Outcomes(NamedTuple):
    """Counts of lists and of what became of them.

    Attributes
    ----------
    answers, impressions
        Lists, and items of lists, that were shown.
    clicks, conversions
        Items of lists of which at least one event, or purchase, is an outcome.
    value
        Sum of the eventValue of all outcomes.
    """

    answers: int = 0
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    value: float = 0.0

    def plus(self, other: Outcomes) -> Outcomes:
        """The counts of both."""
        return Outcomes(
            self.answers + other.answers,
            self.impressions + other.impressions,
            self.clicks + other.clicks,
            self.conversions + other.conversions,
            self.value + other.value,
        )


def stored_list(one: ServedList) -> StoredList:
    """The list as the atomic step takes it."""
    session_id = one.session_id or ""
    return StoredList(
        one.user_id or "",
        session_id,
        shard_of(session_id),
        one.recommendation_id,
        int(one.served_at * 1000),
        f"{one.placement}\t{one.arm}\t{one.recipe}",
        one.sources,
        one.items,
        one.experiment,
        one.arm,
        one.horizon_s,
        one.bucket_s,
    )


async def apply_served(
    store: Store, parts: Sequence[ServedPart], *, now_s: float
) -> tuple[list[PartResult], dict[str, int]]:
    """Apply messages of served lists, each exactly once, in one atomic step.

    Returns the result of each part, and counts: lists followed, repeated, unfollowed beyond the
    limit, and erased.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened; repeating it is harmless.
    """
    payload = msgspec.msgpack.encode({**store.request, "now": now_s, "parts": parts})
    has_others = any(message.group for part in parts for message in part.messages)
    keys = [store.key("watermarks"), *([GROUPS] if has_others else [])]
    results, counts = msgspec.msgpack.decode(
        await store.step(APPLY_SERVED, keys, payload), type=tuple[list[PartResult], dict[str, int]]
    )
    return results, counts


class ListsOf(NamedTuple):
    """The lists of a placement, arm and recipe, and the items of a reason; None for those of any.

    Of a reason items are counted, and no lists.
    """

    placement: str | None = None
    arm: str | None = None
    recipe: str | None = None
    reason: str | None = None


ALL_LISTS = ListsOf()


async def read_outcomes(
    store: Store, by: Dimension, *, since_s: float, until_s: float, of: ListsOf = ALL_LISTS
) -> dict[str, Outcomes]:
    """Counts of the lists that were served in a time, by the values of one dimension.

    Whole hours are counted where they are kept, else whole days: the times are rounded outwards.
    """
    found: dict[str, Outcomes] = defaultdict(Outcomes)
    for stored in await _read(store, periods(since_s, until_s, store.settings)):
        for field, raw in stored.items():
            name = _value_of(field.decode(), by, of)
            if name is not None:
                found[name] = found[name].plus(_unpacked(raw))
    return dict(found)


async def read_series(
    store: Store, *, since_s: float, until_s: float, of: ListsOf = ALL_LISTS
) -> list[tuple[int, Outcomes]]:
    """Counts of lists by the hour or day they were served in, with its first second."""
    wanted = periods(since_s, until_s, store.settings)
    series = []
    for period, stored in zip(wanted, await _read(store, wanted), strict=True):
        total = Outcomes()
        for field, raw in stored.items():
            if _value_of(field.decode(), "all", of) is not None:
                total = total.plus(_unpacked(raw))
        series.append((period.start_s, total))
    return series


async def served_places(
    store: Store, recommendation_ids: Sequence[str], *, now_s: float
) -> dict[str, tuple[str, str]]:
    """Placement and recipe of lists by id; of those of the last window that owners still have.

    An owner has the last `layout.SHOWN_LISTS`. Two round trips.
    """
    if not recommendation_ids:
        return {}
    newest = int(now_s // store.settings.outcome_window_s)
    pipe = store.redis.pipeline(transaction=False)
    for generation in (newest - 1, newest):
        pipe.hmget(store.key(f"askers:{generation}"), [*recommendation_ids])
    owner_of: dict[str, bytes] = {}
    for owners in await pipe.execute():
        found = zip(recommendation_ids, owners, strict=True)
        owner_of |= {name: owner for name, owner in found if owner is not None}
    owners = [owner.decode() for owner in dict.fromkeys(owner_of.values())]
    places: dict[str, tuple[str, str]] = {}
    for _, (name, _, dimensions, *_) in await stored_lists(store, owners):
        placement, _, recipe = dimensions.split("\t")
        if name in owner_of:
            places[name] = (placement, recipe)
    return places


class ShownList(NamedTuple):
    """A list that was served to an owner: items by index, and by id those that had none then."""

    served_at: float
    indexes: list[int]
    names: list[str]


async def shown_lists(store: Store, owners: Sequence[str]) -> list[ShownList]:
    """The last lists served to owners, "u:<user>" or "s:<session>", that have taken effect.

    At most `layout.SHOWN_LISTS` of each, of the last `outcome_window_s` at least; one round trip.
    """
    found = []
    for _, (_, served_ms, _, _, text, *_) in await stored_lists(store, owners):
        parts = [part for part in text.split(",") if part]
        indexes = [int(part) for part in parts if part[0] != "="]
        names = [part[1:] for part in parts if part[0] == "="]
        found.append(ShownList(served_ms / 1000, indexes, names))
    return found


async def stored_lists(store: Store, owners: Sequence[str]) -> list[tuple[str, Sequence[Any]]]:
    """The last lists of owners as outcomes.lua keeps them, each with its owner; one round trip."""
    if not owners:
        return []
    raws = await store.redis.mget([store.key(f"shown:{owner}") for owner in owners])
    return [
        (owner, one)
        for owner, raw in zip(owners, raws, strict=True)
        for one in (msgspec.msgpack.decode(raw)[0] if raw else None) or ()
    ]


class Period(NamedTuple):
    """An hour or day, and where its counts are."""

    start_s: int
    key: str


def periods(since_s: float, until_s: float, settings: Settings) -> list[Period]:
    """The hours of a time, or its days where it is longer than hours are kept.

    >>> [one.key for one in periods(7200, 10_801, Settings())]
    ['outcomes:h2', 'outcomes:h3']
    """
    is_hourly = until_s - since_s <= settings.outcome_hours_s
    width, letter = (HOUR_S, "h") if is_hourly else (DAY_S, "d")
    numbers = range(int(since_s // width), int(-(-until_s // width)))
    return [Period(number * width, f"outcomes:{letter}{number}") for number in numbers]


async def _read(store: Store, wanted: Iterable[Period]) -> list[Mapping[bytes, bytes]]:
    keys = [store.key(one.key) for one in wanted]
    found: list[Mapping[bytes, bytes]] = []
    for at in range(0, len(keys), 100):
        pipe = store.redis.pipeline(transaction=False)
        for key in keys[at : at + 100]:
            pipe.hgetall(key)
        found += await pipe.execute()
    return found


def _unpacked(raw: bytes) -> Outcomes:
    answers, impressions, clicks, conversions, value = SUM.unpack(raw)
    return Outcomes(int(answers), int(impressions), int(clicks), int(conversions), value / 1000)


def _value_of(field: str, by: Dimension, of: ListsOf) -> str | None:
    """The value that a field counts under; None if it counts for another dimension.

    Fields are of lists, or of their items by reason and position: `i` and a code and a number. An
    earlier release counted items twice: by reason, `r` and a code, and by position, `p`.
    """
    *parts, detail = field.split("\t")
    if any(wanted not in (None, part) for wanted, part in zip(of[:3], parts, strict=True)):
        return None
    needs_reason = by == "reason" or of.reason is not None
    needs_position = by == "position"
    kind = detail[:1]
    if kind not in _KINDS[needs_reason, needs_position]:
        return None
    code, position = detail[1:2], detail[2:] if kind == "i" else detail[1:]
    reason = SOURCES_BY_CODE.get(code, UNKNOWN_SOURCE)
    if of.reason not in (None, reason):
        return None
    if by == "reason":
        return reason
    if by == "position":
        return position if int(position) <= layout.MAX_POSITIONS else f"{position}+"
    return dict(zip(("all", "placement", "arm", "recipe"), ("", *parts), strict=True))[by]


_KINDS: Final = {
    (False, False): ("",),
    (True, False): ("i", "r"),
    (False, True): ("i", "p"),
    (True, True): ("i",),
}
"""Kinds of fields that count where reasons, and positions, are needed."""


async def experiment_sums(store: Store, experiment_id: str) -> dict[bytes, bytes]:
    """Stored sums over the users of an experiment, by arm and first exposure; one read."""
    found: dict[bytes, bytes] = await store.redis.hgetall(store.key(f"experiment:{experiment_id}"))
    return found
