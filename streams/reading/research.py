"""Formats of research data sets that names alone do not say: the news of MIND."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from models.errors import InvalidRecord
from streams.reading.fields import present
from streams.reading.formats import FileSample, Format

MOST_SHOWN = 25
"""As many items as the impression of an event may have."""

_SHOWN = re.compile(r"\S+-[01](?: \S+-[01])*")
_MIND_TIME = "%m/%d/%Y %I:%M:%S %p"
MIND_COLUMNS = ("impression_id", "user_id", "time", "history", "impressions")


def _clicks(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A click for each item that was clicked, with what was shown around it."""
    written = present(record.get("impressions")) or ""
    shown = [each.rpartition("-") for each in written.split()]
    if not shown or any(is_clicked not in {"0", "1"} for _, _, is_clicked in shown):
        raise InvalidRecord("impressions: nothing says what was clicked")
    clicked = [item for item, _, is_clicked in shown if is_clicked == "1"]
    if not clicked:
        raise InvalidRecord("impressions: nothing was clicked")
    try:
        at = datetime.strptime(str(record.get("time")), _MIND_TIME).replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidRecord("time: not as in 11/15/2019 9:05:58 AM") from error
    items = [item for item, _, _ in shown]
    for item in clicked:
        # The clicked item is among what is kept of a longer list.
        kept = (
            items[:MOST_SHOWN] if item in items[:MOST_SHOWN] else [*items[: MOST_SHOWN - 1], item]
        )
        yield {**record, "clicked": item, "shown": kept, "clicked_at": at.isoformat()}


def _is_mind(sample: FileSample) -> str:
    rows = sample.rows
    is_so = (
        sample.shape == "tsv"
        and not sample.columns
        and bool(rows)
        and all(len(row) == len(MIND_COLUMNS) and _SHOWN.fullmatch(row[4]) for row in rows[:10])
    )
    return "impressions that say what was clicked" if is_so else ""


RESEARCH: tuple[Format, ...] = (
    Format(
        "mind",
        "MIND's behaviors.tsv",
        columns=MIND_COLUMNS,
        fields={
            "USER_ID": "user_id",
            "ITEM_ID": "clicked",
            "TIMESTAMP": "clicked_at",
            "IMPRESSION": "shown",
        },
        constants={"EVENT_TYPE": "click"},
        rows=_clicks,
        fits=_is_mind,
        separator="\t",
        has_header=False,
    ),
)
