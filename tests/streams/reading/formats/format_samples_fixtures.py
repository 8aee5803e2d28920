"""The same few events as each format that people have writes them, in small files."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from streams.reading.formats.shop_formats import SNOWPLOW_COLUMNS


class Sent(NamedTuple):
    """Something a user did with items at a time, in whole seconds."""

    user: str
    kind: str
    items: tuple[str, ...]
    at_s: int


ORDERS = (
    Sent("ada@example.org", "purchase", ("SKU1", "SKU2"), 1_700_000_000),
    Sent("bob@example.org", "purchase", ("SKU3",), 1_700_000_100),
    Sent("ada@example.org", "purchase", ("SKU3",), 1_700_000_200),
)
VISITS = (
    Sent("ada@example.org", "view", ("SKU1",), 1_699_999_000),
    Sent("ada@example.org", "cart", ("SKU1",), 1_699_999_500),
    *ORDERS,
)
CLICKS = tuple(
    Sent(user, "click", (item,), 1_700_000_000 + n)
    for n, (user, item) in enumerate((("u1", "N1"), ("u2", "N2"), ("u1", "N3")))
)


def called(kind: str) -> tuple[Sent, ...]:
    """The clicks as events of another type."""
    return tuple(one._replace(kind=kind) for one in CLICKS)


def stepwise(*kinds: str) -> tuple[Sent, ...]:
    """The clicks as events of these types, one after the other."""
    return tuple(one._replace(kind=kind) for one, kind in zip(CLICKS, kinds, strict=True))


def utc(at_s: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time as text."""
    return datetime.fromtimestamp(at_s, UTC).strftime(form)


def json_lines(records: Sequence[Any]) -> str:
    """Records, one a line."""
    return "".join(json.dumps(record) + "\n" for record in records)


def table(rows: Sequence[dict[str, str]], separator: str = ",", *, header: bool = True) -> str:
    """Rows of text under their header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def personalize() -> str:
    """The interactions of Amazon Personalize, as `prepare` writes them."""
    return table(
        [
            {
                "USER_ID": one.user,
                "ITEM_ID": item,
                "TIMESTAMP": str(one.at_s),
                "EVENT_TYPE": one.kind,
            }
            for one in VISITS
            for item in one.items
        ]
    )


def recbole() -> str:
    """RecBole's atomic file."""
    return table(
        [
            {
                "user_id:token": one.user,
                "item_id:token": one.items[0],
                "rating:float": "1",
                "timestamp:float": str(one.at_s),
            }
            for one in CLICKS
        ],
        "\t",
    )


def mind() -> str:
    """MIND's behaviors.tsv: a list of shown items with the clicked ones."""
    return "".join(
        f"{n}\t{one.user}\t{utc(one.at_s, '%m/%d/%Y %I:%M:%S %p')}\tN8 N9\t"
        f"N7-0 {one.items[0]}-1 N6-0\n"
        for n, one in enumerate(CLICKS, 1)
    )


GA4_NAMES = {"view": "view_item", "cart": "add_to_cart", "purchase": "purchase"}


def ga4_records() -> list[dict[str, Any]]:
    """GA4's export to BigQuery: 64-bit numbers are texts in JSON."""
    return [
        {
            "event_date": utc(one.at_s, "%Y%m%d"),
            "event_timestamp": str(one.at_s * 1_000_000),
            "event_name": GA4_NAMES[one.kind],
            "event_params": [{"key": "ga_session_id", "value": {"int_value": "17"}}],
            "user_id": one.user if n % 2 else None,
            "user_pseudo_id": one.user,
            "items": [{"item_id": item, "quantity": "1"} for item in one.items],
        }
        for n, one in enumerate(VISITS)
    ]


def ga4() -> str:
    """As JSON Lines."""
    return json_lines(ga4_records())


def ga4_text() -> str:
    """As CSV with lists as JSON strings."""
    return table(
        [
            {
                name: value if isinstance(value, str) else json.dumps(value) if value else ""
                for name, value in record.items()
            }
            for record in ga4_records()
        ]
    )


def ga4_flat() -> str:
    """As CSV with a row for each item."""
    return table(
        [
            {name: str(record[name] or "") for name in ("event_timestamp", "event_name",
                                                      "user_pseudo_id", "user_id")}
            | {"item_id": item["item_id"]}
            for record in ga4_records()
            for item in record["items"]
        ]
    )  # fmt: skip


SEGMENT_NAMES = {"view": "Product Viewed", "cart": "Product Added", "purchase": "Order Completed"}


def segment() -> str:
    """Segment's track calls, with another call among them."""
    calls = [
        {
            "type": "track",
            "event": SEGMENT_NAMES[one.kind],
            "messageId": f"m{n}",
            "anonymousId": "507f191e",
            "userId": one.user,
            "timestamp": utc(one.at_s, "%Y-%m-%dT%H:%M:%S.000Z"),
            "properties": {"products": [{"product_id": item, "sku": "x"} for item in one.items]}
            if one.kind == "purchase"
            else {"product_id": one.items[0], "sku": "x"},
        }
        for n, one in enumerate(VISITS)
    ]
    return json_lines([*calls, {"type": "identify", "userId": "ada@example.org", "traits": {}}])


def shopify_json() -> str:
    """Shopify's orders."""
    return json.dumps(
        [
            {
                "id": 450789469 + n,
                "email": one.user,
                "created_at": utc(one.at_s, "%Y-%m-%dT%H:%M:%S+00:00"),
                "cancelled_at": None,
                "line_items": [{"id": 1, "product_id": 2, "sku": item} for item in one.items],
            }
            for n, one in enumerate(ORDERS)
        ]
    )


def shopify_csv() -> str:
    """Shopify's export of orders: a row for each item, and notes of several lines."""
    return table(
        [
            {
                "Name": f"#{n}",
                "Email": one.user,
                "Financial Status": "" if k else "paid",
                "Created at": utc(one.at_s, "%Y-%m-%d %H:%M:%S +0000"),
                "Lineitem quantity": "1",
                "Lineitem name": 'Tent, "red"',
                "Lineitem sku": item,
                "Cancelled at": "",
                "Note Attributes": "" if k else "Gift: yes\nFloor: 2",
            }
            for n, one in enumerate(ORDERS, 1001)
            for k, item in enumerate(one.items)
        ]
    )


SNOWPLOW_NAMES = {"view": "product_view", "cart": "add_to_cart", "purchase": "transaction"}
ECOMMERCE = "com.snowplowanalytics.snowplow.ecommerce"


def snowplow(one: Sent, n: int) -> dict[str, str]:
    """The fields that all of Snowplow's enriched events have."""
    return {
        "app_id": "shop",
        "platform": "web",
        "collector_tstamp": utc(one.at_s + 1, "%Y-%m-%d %H:%M:%S.000"),
        "event": "unstruct",
        "event_id": f"c6ef3124-b53a-4b13-a233-0088f79dcb{n:02}",
        "v_collector": "ssc-2.9.0",
        "domain_userid": one.user,
        "domain_sessionid": f"session-{one.user}",
        "derived_tstamp": utc(one.at_s, "%Y-%m-%d %H:%M:%S.000"),
        "event_name": "snowplow_ecommerce_action",
    }


def snowplow_tsv() -> str:
    """Snowplow's enriched stream: 131 fields without a header, JSON in some of them."""
    rows = []
    for n, one in enumerate(VISITS):
        products = [
            {"schema": f"iglu:{ECOMMERCE}/product/jsonschema/1-0-0", "data": {"id": item}}
            for item in one.items
        ]
        action = {
            "schema": f"iglu:{ECOMMERCE}/snowplow_ecommerce_action/jsonschema/1-0-2",
            "data": {"type": SNOWPLOW_NAMES[one.kind]},
        }
        fields = snowplow(one, n) | {
            "contexts": json.dumps({"schema": "iglu:com.example/contexts", "data": products}),
            "unstruct_event": json.dumps({"schema": "iglu:com.example/event", "data": action}),
        }
        rows.append("\t".join(fields.get(name, "") for name in SNOWPLOW_COLUMNS))
    return "\n".join(rows) + "\n"


def snowplow_json() -> str:
    """Snowplow's enriched events as its analytics SDKs write them."""
    name = ECOMMERCE.replace(".", "_")
    return json_lines(
        [
            snowplow(one, n)
            | {
                f"contexts_{name}_product_1": [{"id": item} for item in one.items],
                f"unstruct_event_{name}_snowplow_ecommerce_action_1": {
                    "type": SNOWPLOW_NAMES[one.kind]
                },
            }
            for n, one in enumerate(VISITS)
        ]
    )


def matomo() -> str:
    """Matomo's visits, each with its actions."""

    def action(one: Sent) -> dict[str, Any]:
        if one.kind == "view":
            return {"type": "action", "timestamp": one.at_s, "productViewSku": one.items[0]}
        kind = {"purchase": "ecommerceOrder", "cart": "ecommerceAbandonedCart"}[one.kind]
        details = [{"itemSKU": item, "quantity": 1} for item in one.items]
        return {"type": kind, "timestamp": one.at_s, "itemDetails": details}

    users = dict.fromkeys(one.user for one in VISITS)
    return json.dumps(
        [
            {
                "idVisit": n,
                "visitorId": "45feee05a8a12d83",
                "userId": user,
                "serverTimestamp": 1_700_009_999,
                "actionDetails": [
                    {"type": "action", "timestamp": 1_699_998_000, "url": "https://shop.example"},
                    *(action(one) for one in VISITS if one.user == user),
                ],
            }
            for n, user in enumerate(users, 1)
        ]
    )


def put_events() -> str:
    """PutEvents messages: of a user who is known, and of one who is only a session."""
    return json_lines(
        [
            {
                "sessionId": f"s-{one.user}" if n % 2 else one.user,
                **({"userId": one.user} if n % 2 else {}),
                "eventList": [
                    {"eventId": f"e{n}-{item}", "eventType": one.kind, "itemId": item,
                     "sentAt": one.at_s}
                    for item in one.items
                ],
            }
            for n, one in enumerate(VISITS)
        ]
    )  # fmt: skip


def otto() -> str:
    """OTTO's sessions."""
    names = {"click": "clicks", "cart": "carts", "purchase": "orders"}
    return json_lines(
        [
            {
                "session": user,
                "events": [
                    {"aid": item, "ts": one.at_s * 1000, "type": names[one.kind]}
                    for one in OTTO
                    if one.user == user
                    for item in one.items
                ],
            }
            for user in dict.fromkeys(one.user for one in OTTO)
        ]
    )


OTTO = stepwise("click", "cart", "purchase")
RETAILROCKET = stepwise("view", "addtocart", "transaction")


def retailrocket() -> str:
    """RetailRocket's events.csv, with times in milliseconds."""
    return table(
        [
            {
                "timestamp": str(one.at_s * 1000),
                "visitorid": one.user,
                "event": one.kind,
                "itemid": one.items[0],
                "transactionid": "",
            }
            for one in RETAILROCKET
        ]
    )


def ratings(separator: str = ",", *, header: bool = True) -> str:
    """MovieLens' ratings."""
    rows = [
        {"userId": one.user, "movieId": one.items[0], "rating": "3.5", "timestamp": str(one.at_s)}
        for one in CLICKS
    ]
    text = table(rows, header=header)
    return text.replace(",", separator)


def session_rec() -> str:
    """session-rec's prepared sets."""
    return table(
        [
            {"SessionId": one.user, "ItemId": one.items[0], "Time": f"{one.at_s}.0"}
            for one in CLICKS
        ],
        "\t",
    )


def yoochoose(*more: str) -> str:
    """YooChoose, with further columns after the item."""
    return "".join(
        ",".join((one.user, utc(one.at_s, "%Y-%m-%dT%H:%M:%S.000Z"), one.items[0], *more)) + "\n"
        for one in CLICKS
    )


def as_parquet(lines: str) -> bytes:
    """Lines of JSON as Parquet."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as engine:
        source, target = Path(folder, "a.jsonl"), Path(folder, "a.parquet")
        source.write_text(lines)
        engine.read_json(str(source)).write_parquet(str(target))
        return target.read_bytes()


class Written(NamedTuple):
    """A file of a format, with the events of its rows.

    Attributes
    ----------
    bad
        Places of rows without an event of an item, with the reasons.
    """

    file: str
    write: Callable[[], str | bytes]
    events: tuple[Sent, ...]
    bad: tuple[tuple[str, str], ...] = ()

    def content(self) -> bytes:
        """The file."""
        made = self.write()
        return made if isinstance(made, bytes) else made.encode()

    def rows(self) -> list[tuple[str, str, str, float]]:
        """User, type, item and time of every event."""
        return sorted(
            (one.user, one.kind, item, one.at_s) for one in self.events for item in one.items
        )


WRITTEN: dict[str, Written] = {
    "personalize": Written("interactions.csv", personalize, VISITS),
    "recbole": Written("ml-100k.inter", recbole, called("interaction")),
    "put-events": Written("events.jsonl", put_events, VISITS),
    "movielens-data": Written("u.data", lambda: ratings("\t", header=False), called("rating")),
    "movielens-csv": Written("ratings.csv", ratings, called("rating")),
    "movielens-dat": Written("ratings.dat", lambda: ratings("::", header=False), called("rating")),
    "otto": Written("train.jsonl", otto, OTTO),
    "retailrocket": Written("events.csv", retailrocket, RETAILROCKET),
    "session-rec": Written("train.txt", session_rec, CLICKS),
    "yoochoose-clicks": Written("yoochoose-clicks.dat", lambda: yoochoose("0"), CLICKS),
    "yoochoose-buys": Written("yoochoose-buys.dat", lambda: yoochoose("9", "1"),
                              called("purchase")),
    "mind": Written("behaviors.tsv", mind, CLICKS),
    "ga4": Written("events_20231114.jsonl", ga4, VISITS),
    "ga4-csv": Written("bquxjob.csv", ga4_text, VISITS),
    "ga4-flat": Written("items.csv", ga4_flat, VISITS),
    "ga4-parquet": Written("events.parquet", lambda: as_parquet(ga4()), VISITS),
    "segment": Written("segment.json", segment, VISITS, (("line 6", "not a track call"),)),
    "shopify-orders": Written("orders.json", shopify_json, ORDERS),
    "shopify-csv": Written("orders_export.csv", shopify_csv, ORDERS),
    "snowplow-tsv": Written("enriched.tsv", snowplow_tsv, VISITS),
    "snowplow": Written("enriched.jsonl", snowplow_json, VISITS),
    "matomo": Written("visits.json", matomo, VISITS),
}  # fmt: skip
