"""The report of outcomes: what became of the lists that were served, by one dimension."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.state.outcomes.served_outcomes import (
    ALL_LISTS,
    Dimension,
    ListsOf,
    Outcomes,
    periods,
    read_outcomes,
    read_series,
)
from models.state.store import Store

UNNAMED = "(none)"
"""Row of lists without a placement, arm or recipe."""


class OutcomeRow(msgspec.Struct, frozen=True, rename="camel"):
    """Counts of some of the lists, and rates."""

    name: Annotated[str, Meta(description="The value of the dimension; (none) without one.")]
    answers: Annotated[
        int, Meta(description="Lists; 0 by reason and position, which are of items.")
    ]
    impressions: Annotated[int, Meta(description="Items shown.")]
    clicks: Annotated[int, Meta(description="Shown items that were clicked or viewed.")]
    conversions: Annotated[int, Meta(description="Shown items that were bought.")]
    value: Annotated[float, Meta(description="Sum of eventValue of what followed.")]
    click_through_rate: Annotated[
        float | None, Meta(description="Clicks an impression; null without impressions.")
    ]
    conversion_rate: Annotated[float | None, Meta(description="Conversions an impression.")]


class OutcomePoint(msgspec.Struct, frozen=True, rename="camel"):
    """Counts of the lists of one hour or day."""

    at: Annotated[int, Meta(description="Its first second, Unix time.")]
    answers: int
    impressions: int
    clicks: int
    conversions: int
    value: float


class OutcomeReport(msgspec.Struct, frozen=True, rename="camel"):
    """Outcomes of the lists that were served in a time, by one dimension."""

    by: Dimension
    placement: Annotated[str | None, Meta(description="Of this placement alone; null: of all.")]
    arm: Annotated[str | None, Meta(description="Of this arm alone; null: of all.")]
    recipe: Annotated[str | None, Meta(description="Of this recipe alone; null: of all.")]
    reason: Annotated[
        str | None,
        Meta(description="Of items with this reason alone, without lists; null: of all."),
    ]
    since: Annotated[float, Meta(description="Of lists served from here on, Unix seconds.")]
    until: float
    rows: Annotated[list[OutcomeRow], Meta(description="Most impressions first.")]
    total: OutcomeRow
    series: Annotated[list[OutcomePoint], Meta(description="By the hour, or by the day.")]


async def outcome_report(
    store: Store, by: Dimension, *, since_s: float, until_s: float, of: ListsOf = ALL_LISTS
) -> OutcomeReport:
    """The report of the lists that were served in a time: two reads of each of its hours or days.

    The time is rounded outwards to whole hours, or days where it is longer than hours are kept.
    """
    wanted = {"since_s": since_s, "until_s": until_s}
    found = await read_outcomes(store, by, of=of, **wanted)
    series = await read_series(store, of=of, **wanted)
    total = Outcomes()
    for _, one in series:
        total = total.plus(one)
    rows = [_row(name or UNNAMED, one) for name, one in found.items()]
    if by == "position":
        rows.sort(key=lambda row: int(row.name.rstrip("+")))
    else:
        rows.sort(key=lambda row: (-row.impressions, row.name))
    start_s = periods(since_s, until_s, store.settings)[0].start_s
    points = [OutcomePoint(at, *one) for at, one in series]
    return OutcomeReport(by, *of, start_s, until_s, rows, _row("all", total), points)


def _row(name: str, found: Outcomes) -> OutcomeRow:
    shown = found.impressions
    rates = (found.clicks / shown, found.conversions / shown) if shown else (None, None)
    return OutcomeRow(name, *found, *rates)


def report_text(report: OutcomeReport) -> str:
    """The report as a table.

    >>> row = OutcomeRow("home", 2, 50, 3, 1, 19.99, 0.06, 0.02)
    >>> print(report_text(OutcomeReport("placement", None, None, None, None, 0, 1, [row], row, [])))
    placement       answers  impressions    clicks     CTR  conversions    rate        value
    home                  2           50         3   6.00%            1   2.00%        19.99
    home                  2           50         3   6.00%            1   2.00%        19.99
    """
    head = f"{report.by:<14} {'answers':>8} {'impressions':>12} {'clicks':>9} {'CTR':>7} "
    head += f"{'conversions':>12} {'rate':>7} {'value':>12}"
    lines = [head]
    for row in (*report.rows, report.total):
        rates = [
            "-" if rate is None else f"{rate:.2%}"
            for rate in (row.click_through_rate, row.conversion_rate)
        ]
        lines.append(
            f"{row.name:<14} {row.answers:>8,} {row.impressions:>12,} {row.clicks:>9,} "
            f"{rates[0]:>7} {row.conversions:>12,} {rates[1]:>7} {row.value:>12,.2f}"
        )
    return "\n".join(lines)
