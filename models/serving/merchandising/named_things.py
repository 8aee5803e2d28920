"""Names in rules, of segments, rankers, saved filters, items and properties, which may not exist.

A segment or ranker that is not there is refused when a configuration is saved, and what rules name
is not deleted; items and properties may come later, so of these the one who saves is warned. So it
is of pins that another rule keeps from being shown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Literal

import msgspec

from models.errors import InvalidInput, InvalidRequest
from models.filters.grammar import IDENTITIES
from models.filters.short_form import parse_item_filter
from models.metadata_records import normalized
from models.ranking.champions import BUILT_IN_CHOICES, challenger_name
from models.serving.merchandising.experiments import experiments
from models.serving.merchandising.placements import Configuration, PlacementRule, placement_of
from models.serving.merchandising.rule_members import saved_filter_names, with_expressions
from models.serving.recommender import Recommender
from models.state.named_versions import current_version, current_versions
from models.state.store import Store

MAX_NAMED_ITEMS = 5
"""Unknown items that a warning names."""

Deleted = Literal["segment", "filter"]


async def check_names(store: Store, configuration: Configuration) -> None:
    """Check that there are the ranker and the segments that a configuration names.

    Raises
    ------
    InvalidRequest
        With the place: there is no such ranker or segment.
    """
    challengers = sorted(map(challenger_name, store.settings.challengers))
    ranker = configuration.ranker
    if ranker is not None and ranker not in (*BUILT_IN_CHOICES, *challengers):
        known = ", ".join((*BUILT_IN_CHOICES, *challengers))
        raise InvalidRequest(f"there is no ranker {ranker!r}, but {known} - at `$.ranker`")
    for n, rule in enumerate(configuration.rules):
        name = rule.segment
        if name is not None and await current_version(store, "segments", name) is None:
            raise InvalidRequest(f"there is no segment {name!r} - at `$.rules[{n}].segment`")


async def with_saved_filters(
    configuration: Configuration, expression_of: Callable[[str], Awaitable[str]]
) -> Configuration:
    """A configuration with the expressions of saved filters in place of their names.

    Raises
    ------
    InvalidRequest
        With the place: `expression_of` has raised it, for there is no such filter.
    """
    rules = []
    for n, one in enumerate(configuration.rules):
        names = saved_filter_names(one.filter, one.boost)
        try:
            expressions = {name: await expression_of(name) for name in names}
        except InvalidRequest as error:
            raise InvalidRequest(f"{error} - at `$.rules[{n}]`") from error
        members = with_expressions(one.filter, one.boost, expressions) if names else {}
        rules.append(msgspec.structs.replace(one, **members) if names else one)
    return msgspec.structs.replace(configuration, rules=tuple(rules))


async def check_unnamed(store: Store, kind: Deleted, name: str, now_s: float) -> None:
    """Check that no rule names a segment or saved filter that is to be deleted.

    Raises
    ------
    InvalidRequest
        With the placements, and the running experiments, that name it.
    """
    found = await named_by(store, kind, name, now_s)
    if found:
        raise InvalidRequest(f"{' and '.join(found)} names the {kind} {name!r}: change that first")


async def named_by(store: Store, kind: Deleted, name: str, now_s: float) -> list[str]:
    """The placements and running experiments with a rule that names a segment or saved filter."""
    found = []
    for place, saved in (await current_versions(store, "placements")).items():
        if _names(placement_of(place, saved).configuration, kind, name):
            found.append(f"placement {place!r}")
    for experiment, one in (await experiments(store)).items():
        if one.is_running(now_s):
            arms = (arm.configuration for arm in one.plan.arms)
            if any(arm is not None and _names(arm, kind, name) for arm in arms):
                found.append(f"experiment {experiment!r}")
    return found


def _names(configuration: Configuration, kind: Deleted, name: str) -> bool:
    if kind == "segment":
        return any(rule.segment == name for rule in configuration.rules)
    return any(name in saved_filter_names(rule.filter, rule.boost) for rule in configuration.rules)


async def warnings_of(
    recommender: Recommender, configuration: Configuration, now_s: float
) -> list[str]:
    """Possible mistakes, with their places: unknown items and properties; pins that never show.

    Parameters
    ----------
    configuration
        With the expressions of saved filters in place of their names.
    """
    warnings = []
    known = await recommender.cache.property_index.property_names(now_s)
    for n, rule in enumerate(configuration.rules):
        for member, item_ids in (
            ("pin", [one.item_id for one in rule.pin]),
            ("exclude", [*rule.exclude]),
        ):
            indexes = await recommender.cache.item_indexes(item_ids)
            unknown = [one for one, index in zip(item_ids, indexes, strict=True) if not index]
            if unknown:
                shown = ", ".join(map(repr, unknown[:MAX_NAMED_ITEMS]))
                more = len(unknown) - MAX_NAMED_ITEMS
                shown += f" and {more} more" if more > 0 else ""
                warnings.append(f"nothing is known of {shown} - at `$.rules[{n}].{member}`")
        for member, name in _properties(rule):
            if known is not None and normalized(name) not in {*known, IDENTITIES["Items"]}:
                warnings.append(f"no item has a property {name} - at `$.rules[{n}].{member}`")
    return [*warnings, *_lost_pins(configuration)]


def _lost_pins(configuration: Configuration) -> Iterator[str]:
    """Warnings of pins that a rule for everybody, which is always in force, keeps from showing."""
    always = [
        (n, rule)
        for n, rule in enumerate(configuration.rules)
        if rule.segment is None and rule.from_ is None and rule.until is None
    ]
    for n, rule in enumerate(configuration.rules):
        at = f" - at `$.rules[{n}].pin`"
        for pin in rule.pin:
            for other, one in always:
                if other != n and pin.item_id in one.exclude:
                    yield f"{pin.item_id!r} is never shown, for rules[{other}] excludes it{at}"
                if other < n and any(pin.slot == earlier.slot for earlier in one.pin):
                    yield f"slot {pin.slot} is that of a pin of rules[{other}], which stands{at}"


def _properties(rule: PlacementRule) -> Iterator[tuple[str, str]]:
    """Members of a rule with the properties of items that they name."""
    texts: Sequence[tuple[str, str | None]] = [
        ("filter", rule.filter),
        *((f"boost[{n}].filter", one.filter) for n, one in enumerate(rule.boost)),
    ]
    for member, text in texts:
        if text is not None:
            try:
                fields = parse_item_filter(text, takes_parameters=True).fields
            except InvalidInput:  # told by who checks the rule
                fields = frozenset()
            for field in sorted(fields):
                dataset, _, name = field.partition(".")
                if dataset == "Items":
                    yield member, name
    for n, cap in enumerate(rule.cap):
        yield f"cap[{n}].property", cap.property
