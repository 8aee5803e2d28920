"""Formats of public research data sets: MovieLens, RetailRocket, YooChoose, session-rec, MIND."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from models.errors import InvalidRecord
from streams.reading.fields import text_or_none
from streams.reading.formats.file_format import FileSample, Format

MOST_SHOWN = 25
"""Most items in the impression of an event."""

_SHOWN = re.compile(r"\S+-[01](?: \S+-[01])*")
_MIND_TIME = "%m/%d/%Y %I:%M:%S %p"
MIND_COLUMNS = ("impression_id", "user_id", "time", "history", "impressions")


def _clicks(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A row for each clicked item, with the items shown beside it."""
    written = text_or_none(record.get("impressions")) or ""
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
        # The clicked item stays in a shortened list.
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


_RATINGS = Format(
    "movielens-csv",
    "MovieLens ratings.csv",
    columns=("userId", "movieId", "rating", "timestamp"),
    fields={
        "USER_ID": "userId",
        "ITEM_ID": "movieId",
        "TIMESTAMP": "timestamp",
        "EVENT_VALUE": "rating",
    },
    constants={"EVENT_TYPE": "rating"},
)
_VISITS = {"USER_ID": "session", "ITEM_ID": "item", "TIMESTAMP": "timestamp"}


def _headerless(format_: Format, file_name: str, separator: str) -> Format:
    """A format of files without a header, recognised by the suffix of their names."""
    return replace(format_, file_names=(file_name,), separator=separator, has_header=False)


RESEARCH_FORMATS: tuple[Format, ...] = (
    _RATINGS,
    _headerless(replace(_RATINGS, name="movielens-data", title="MovieLens u.data"), "u.data", "\t"),
    _headerless(
        replace(_RATINGS, name="movielens-dat", title="MovieLens ratings.dat"), "ratings.dat", "::"
    ),
    _headerless(
        Format(
            "movielens-movies",
            "MovieLens movies.dat",
            columns=("movieId", "title", "genres"),
            fields={"ITEM_ID": "movieId"},
            dataset="items",
        ),
        "movies.dat",
        "::",
    ),
    _headerless(
        Format(
            "movielens-users",
            "MovieLens users.dat",
            columns=("userId", "gender", "age", "occupation", "zipCode"),
            fields={"USER_ID": "userId"},
            dataset="users",
        ),
        "users.dat",
        "::",
    ),
    Format(
        "retailrocket",
        "RetailRocket events.csv",
        columns=("timestamp", "visitorid", "event", "itemid", "transactionid"),
        fields={
            "USER_ID": "visitorid",
            "ITEM_ID": "itemid",
            "TIMESTAMP": "timestamp",
            "EVENT_TYPE": "event",
        },
        event_types={name: name for name in ("view", "addtocart", "transaction")},
    ),
    Format(
        "session-rec",
        "session-rec's prepared sets",
        columns=("SessionId", "ItemId", "Time"),
        fields={"USER_ID": "SessionId", "ITEM_ID": "ItemId", "TIMESTAMP": "Time"},
        constants={"EVENT_TYPE": "click"},
        has_users=False,
    ),
    *(
        _headerless(
            Format(
                f"yoochoose-{what}",
                f"YooChoose yoochoose-{what}.dat",
                columns=("session", "timestamp", "item", *more),
                fields=_VISITS,
                constants={"EVENT_TYPE": kind},
                has_users=False,
            ),
            f"-{what}.dat",
            ",",
        )
        for what, kind, more in (
            ("clicks", "click", ("category",)),
            ("buys", "purchase", ("price", "quantity")),
        )
    ),
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
        make_rows=_clicks,
        recognise=_is_mind,
        separator="\t",
        has_header=False,
    ),
)
