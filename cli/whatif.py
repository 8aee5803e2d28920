"""The command that estimates what other policies would have brought."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.group import main
from cli.servers import reachable_settings
from models.errors import InvalidInput

if TYPE_CHECKING:
    from models.evaluation.drawn_lists import Decisions
    from models.evaluation.slot_policies import SlotPolicy
    from models.filters.filter import Filter
    from models.settings import Settings


@main.command()
@click.option(
    "--share",
    "shares",
    type=click.FloatRange(0, 0.5),
    multiple=True,
    help="Another RECOMMENDER_EXPLORATION_SHARE; 0: none. Any number of times, as all policies.",
)
@click.option(
    "--boost",
    "boosts",
    multiple=True,
    metavar="FILTER*FACTOR",
    help="Items of a filter so many times as likely, as in brand:acme*2.",
)
@click.option(
    "--cap",
    "caps",
    multiple=True,
    metavar="PROPERTY:N",
    help="At most so many items of a list with one value of a property, as in brand:2.",
)
@click.option(
    "--lists",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What another system would have shown: JSON Lines of recommendationId and items.",
)
@click.option(
    "--reward",
    type=click.Choice(["clicks", "conversions", "value"]),
    default="clicks",
    show_default=True,
    help="What counts of what came of the lists.",
)
@click.option("--placement", help="Lists of this placement alone.")
@click.option(
    "--days",
    type=click.FloatRange(0, 400, min_open=True),
    default=7.0,
    show_default=True,
    help="Lists of the last so many days, as far as Kafka has them.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def whatif(
    reward: Any,  # noqa: ANN401  of click's choice
    placement: str | None,
    days: float,
    as_json: bool,
    **asked: Any,  # noqa: ANN401
) -> None:
    """Estimate what other policies would have brought, from the lists that were served."""
    from models.evaluation.drawn_lists import decisions_of
    from models.evaluation.off_policy import estimate, estimates_text, logged_value
    from streams.recordings.logged_lists import logged_lists

    boosts = [_boost(text) for text in asked["boosts"]]
    caps = [_cap(text) for text in asked["caps"]]
    files = {str(file): _lists(file) for file in asked["files"]}
    if not (asked["shares"] or boosts or caps or files):
        raise click.UsageError("name a policy: --share, --boost, --cap or --lists")
    settings, now_s = reachable_settings(needs_redis=bool(boosts or caps)), time.time()
    found = logged_lists(
        settings, reward, since_s=now_s - days * 86400, now_s=now_s, placement=placement
    )
    decisions = decisions_of(found)
    policies = _policies(decisions, asked["shares"], files)
    if boosts or caps:
        policies |= asyncio.run(_by_properties(settings, decisions, boosts, caps, now_s))
    estimates = {name: estimate(decisions, one) for name, one in policies.items()}
    value, half = logged_value(decisions)
    if as_json:
        counts = {
            "lists": len(found),
            "owners": decisions.n_owners,
            "randomised_slots": len(decisions.items),
        }
        shown = {"value": value, "value_ci95": half}
        named = {name: one._asdict() for name, one in estimates.items()}
        whole = {"reward": reward} | counts | {"shown": shown, "policies": named}
        click.echo(json.dumps(whole, indent=1))
    else:
        click.echo(estimates_text(decisions, reward, estimates))


def _policies(
    decisions: Decisions, shares: tuple[float, ...], files: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, SlotPolicy]:
    from models.evaluation.slot_policies import listed_policy, share_policy

    found: dict[str, SlotPolicy] = {f"share {share:g}": share_policy(share) for share in shares}
    ids = {one.recommendation_id for one in decisions.served}
    for name, lists in files.items():
        if not ids & lists.keys():
            raise InvalidInput(f"{name}: none of its recommendationIds was served in this time")
        found[f"lists {name}"] = listed_policy(lists)
    return found


async def _by_properties(
    settings: Settings,
    decisions: Decisions,
    boosts: list[tuple[str, Filter, float]],
    caps: list[tuple[str, str, int]],
    now_s: float,
) -> dict[str, SlotPolicy]:
    """Policies that look at items' properties, as they are now."""
    from models.evaluation.slot_policies import capped_policy, weighted_policy
    from models.serving.item_values import value_groups
    from models.serving.recommender import Recommender
    from models.state.clients.client import client_of
    from models.state.store import Store

    store = Store(client_of(settings), settings)
    try:
        recommender, ids = Recommender(store), decisions.item_ids
        indexes = await recommender.cache.item_indexes(ids)
        properties = await recommender.cache.properties(indexes, now_s)
        found: dict[str, SlotPolicy] = {}
        for text, one, factor in boosts:
            allowed = one.allowed(ids, properties=properties).tolist()
            chosen = (name for name, is_allowed in zip(ids, allowed, strict=True) if is_allowed)
            found[f"boost {text}"] = weighted_policy(dict.fromkeys(chosen, factor))
        for text, name, most in caps:
            groups = await value_groups(recommender, ids, [name], now_s=now_s)
            found[f"cap {text}"] = capped_policy(groups, most)
        return found
    finally:
        await store.close()


def _boost(text: str) -> tuple[str, Filter, float]:
    from models.filters.short_form import parse_item_filter

    condition, star, factor = text.rpartition("*")
    try:
        number = float(factor)
    except ValueError:
        number = -1.0
    if not star or not 0.0 <= number <= 1000.0:
        raise click.BadParameter(
            f"{text!r} is no filter and a factor from 0 to 1000, as in brand:acme*2",
            param_hint="--boost",
        )
    try:
        found = parse_item_filter(condition)
    except InvalidInput as error:
        raise click.BadParameter(str(error), param_hint="--boost") from error
    if not found.reads <= {"properties"}:
        raise click.BadParameter(f"{text!r} looks at more than items", param_hint="--boost")
    return text, found, number


def _cap(text: str) -> tuple[str, str, int]:
    name, _, most = text.rpartition(":")
    if not name or not most.isdigit() or int(most) < 1:
        raise click.BadParameter(
            f"{text!r} is no property and a number, as in brand:2", param_hint="--cap"
        )
    return text, name, int(most)


def _lists(file: Path) -> dict[str, list[str]]:
    """Items by recommendationId."""
    import msgspec

    from models.served_messages import ListedItems

    found = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            one = msgspec.json.decode(line, type=ListedItems)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise click.BadParameter(f"{file}, line {number}: {error}", param_hint="--lists") from (
                error
            )
        found[one.recommendation_id] = one.items
    return found
