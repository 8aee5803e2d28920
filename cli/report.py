"""The command that reports what became of served lists."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import click

from cli.group import main
from cli.servers import reachable_settings
from models.state.outcomes.served_outcomes import DIMENSIONS, REASONS, Dimension


@main.command()
@click.option("--by", type=click.Choice(DIMENSIONS), default="placement", show_default=True)
@click.option("--placement", help="Lists of this placement alone.")
@click.option("--arm", help="Lists of this arm of an experiment alone.")
@click.option("--recipe", help="Lists of this recipe alone.")
@click.option("--reason", type=click.Choice(REASONS), help="Items with this reason alone.")
@click.option(
    "--days",
    type=click.FloatRange(0, 400, min_open=True),
    default=1.0,
    show_default=True,
    help="Lists of the last so many days, in whole hours.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with a series over time.")
def report(
    by: str,
    placement: str | None,
    arm: str | None,
    recipe: str | None,
    reason: str | None,
    days: float,
    as_json: bool,
) -> None:
    """Show impressions, clicks, conversions and value of served lists."""
    import msgspec

    from models.state.clients.client import client_of
    from models.state.outcomes.outcome_report import OutcomeReport, outcome_report, report_text
    from models.state.outcomes.served_outcomes import ListsOf
    from models.state.shards.sharded_store import store_of

    settings = reachable_settings()

    async def read() -> OutcomeReport:
        store, now_s = store_of(client_of(settings), settings), time.time()
        try:
            return await outcome_report(
                store,
                cast("Dimension", by),
                since_s=now_s - days * 86400,
                until_s=now_s,
                of=ListsOf(placement, arm, recipe, reason),
            )
        finally:
            await store.close()

    found = asyncio.run(read())
    click.echo(msgspec.json.encode(found).decode() if as_json else report_text(found))
