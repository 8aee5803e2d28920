"""Formats of research data sets that the names of their columns say, most without a header."""

from __future__ import annotations

from dataclasses import replace

from streams.reading.formats import Format

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
    """A format whose files have no header and are told by what their names end with."""
    return replace(format_, file_names=(file_name,), separator=separator, has_header=False)


TABLES: tuple[Format, ...] = (
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
        types={name: name for name in ("view", "addtocart", "transaction")},
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
)
