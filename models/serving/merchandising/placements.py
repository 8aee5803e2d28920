"""Placements: named configurations of a shop's places, such as its home page or its cart.

A placement says what is asked where a question leaves it open, and by which rules it is answered.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from models.errors import InvalidRequest
from models.ranking.champions import Objective, RankerChoice
from models.serving.answers import MAX_RESULTS, RecipeName
from models.serving.merchandising.rule_members import (
    Boosts,
    Caps,
    Diversity,
    Excluded,
    FilterText,
    Hides,
    Pins,
    make_rules,
)
from models.serving.merchandising.rules import Rules
from models.state.named_versions import MAX_NAMED, NAME_PATTERN, SavedVersion, current_version
from models.state.store import Store
from models.state.timed_cache import TimedCache

FRESH_S = 1.0
"""Age up to which a placement is used without a question to Redis: a change is in effect then."""

MAX_RULES = 50
MAX_PLACEMENT_BYTES = 64 * 1024
"""A configuration as JSON, at most."""

ZonedTime = Annotated[datetime, Meta(tz=True)]


class PlacementRule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    cache_hash=True,
):
    """A rule of a placement: always on, or from one moment to another; members as a question's."""

    name: Annotated[str, Meta(max_length=100, description="For people.")] = ""
    from_: Annotated[
        ZonedTime | None,
        Meta(description="In force from this moment on; always if it is left out."),
    ] = msgspec.field(default=None, name="from")
    until: Annotated[
        ZonedTime | None, Meta(description="In force until before this moment; for ever without.")
    ] = None
    segment: Annotated[
        Annotated[str, Meta(pattern=NAME_PATTERN)] | None,
        Meta(description="For the users of this segment alone; for everybody without."),
    ] = None
    filter: FilterText = None
    exclude: Excluded = ()
    hide: Hides = ()
    boost: Boosts = ()
    pin: Pins = ()
    cap: Caps = ()
    diversity: Diversity = 0.0

    def is_in_force(self, at_s: float, segments: Collection[str]) -> bool:
        """True if it holds at a moment, in Unix seconds, for a user of these segments."""
        return (
            (self.from_ is None or self.from_.timestamp() <= at_s)
            and (self.until is None or at_s < self.until.timestamp())
            and (self.segment is None or self.segment in segments)
        )


class Configuration(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Rules of a placement, and its options where a question leaves them open."""

    recipe: Annotated[
        RecipeName | None,
        Meta(description="Kind of list; without one, that of the route that is asked."),
    ] = None
    objective: Annotated[Objective, Meta(description="What the order aims at.")] = "interactions"
    ranker: Annotated[
        RankerChoice | None,
        Meta(
            description="What orders personalized lists and rankings: blend, ranker, ranker-alone, "
            "built-in or the name of a challenger; that which serves without."
        ),
    ] = None
    num_results: Annotated[
        int, Meta(ge=1, le=MAX_RESULTS, description="Items of an answer, unless a question says.")
    ] = 25
    caption: Annotated[str, Meta(max_length=200, description="Heading; answers have it along.")] = (
        ""
    )
    fallbacks: Annotated[
        tuple[RecipeName, ...],
        Meta(max_length=3, description="Lists that fill up an answer with too few items, in turn."),
    ] = ()
    rules: Annotated[tuple[PlacementRule, ...], Meta(max_length=MAX_RULES)] = ()


NO_CONFIGURATION = Configuration()
"""That of a question without a placement."""


class Placement(NamedTuple):
    """A saved placement."""

    name: str
    version: int
    configuration: Configuration


def placement_of(name: str, saved: SavedVersion) -> Placement:
    """The placement of a saved version that is no deletion."""
    return Placement(name, saved.version, _decoded(bytes(saved.value)))


class PlacementCache:
    """The placements of a group by name, at most `FRESH_S` old."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held = TimedCache[str, Placement](size=MAX_NAMED, max_age_s=FRESH_S)

    async def get(self, name: str, now_s: float) -> Placement:
        """A placement.

        Raises
        ------
        InvalidRequest
            There is none of that name.
        """
        (found,) = await self._held.read([name], now_s, self._read)
        if found is None:
            raise InvalidRequest(f"there is no placement {name!r}")
        return found

    def drop(self, name: str) -> None:
        """Forget a placement that was just saved here."""
        self._held.invalidate([name])

    async def _read(self, names: list[str]) -> list[Placement | None]:
        saved = [await current_version(self._store, "placements", name) for name in names]
        return [
            None if one is None else placement_of(name, one)
            for name, one in zip(names, saved, strict=True)
        ]


@functools.lru_cache(maxsize=1024)
def _decoded(value: bytes) -> Configuration:
    return msgspec.json.decode(value, type=Configuration)


def configuration_for(placement: Placement, user: str | None, at_s: float) -> Configuration:
    """The configuration of a placement that a user or session meets at a moment, in Unix seconds.

    The one place where this is chosen: today all meet the same.
    """
    del user, at_s
    return placement.configuration


def check_configuration(configuration: Configuration) -> None:
    """Check what the schema cannot say.

    Raises
    ------
    InvalidRequest
        With the place and the rule that is broken.
    """
    size = len(msgspec.json.encode(configuration))
    if size > MAX_PLACEMENT_BYTES:
        raise InvalidRequest(f"a placement takes at most {MAX_PLACEMENT_BYTES} bytes, not {size}")
    for n, rule in enumerate(configuration.rules):
        at = f" - at `$.rules[{n}]`"
        if rule.from_ is not None and rule.until is not None and rule.until <= rule.from_:
            raise InvalidRequest(f"until is not after from{at}")
        try:
            rules = _rules_of(rule, configuration.num_results)
        except InvalidRequest as error:
            raise InvalidRequest(f"{error}{at}") from error
        if rules is None:
            raise InvalidRequest(f"the rule does nothing{at}")


def segments_named(configuration: Configuration) -> list[str]:
    """Names of the segments that rules are for, without repetitions."""
    return list(dict.fromkeys(rule.segment for rule in configuration.rules if rule.segment))


def rules_in_force(
    configuration: Configuration, at_s: float, segments: Collection[str] = ()
) -> list[Rules]:
    """The rules of a placement that hold at a moment, in Unix seconds, for a user of segments."""
    found = [
        _rules_of(rule, configuration.num_results)
        for rule in configuration.rules
        if rule.is_in_force(at_s, segments)
    ]
    return [rules for rules in found if rules is not None]


@functools.lru_cache(maxsize=4096)
def _rules_of(rule: PlacementRule, k: int) -> Rules | None:
    return make_rules(
        rule.filter,
        rule.exclude,
        rule.hide,
        rule.boost,
        rule.pin,
        rule.cap,
        rule.diversity,
        k=k,
    )
