"""Formats that people have: the same events, as each of them writes them, are read as the same."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from models.errors import InvalidEvent
from models.events import PutEvents
from streams.reading.asked import Asked
from streams.reading.known import FORMATS
from streams.reading.shops import SNOWPLOW_COLUMNS
from streams.recordings import read
from tests.servers import ROOT

NOW_S = 1_800_000_000.0


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
EXPECTED = {"orders": ORDERS, "visits": VISITS, "clicks": CLICKS}


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
    """MIND's behaviors.tsv: a list that was shown, and what of it was clicked."""
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
    """As CSV, where lists are texts of JSON."""
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


WRITTEN: dict[str, tuple[str, Callable[[], str], str]] = {
    "personalize": ("interactions.csv", personalize, "visits"),
    "recbole": ("ml-100k.inter", recbole, "clicks"),
    "mind": ("behaviors.tsv", mind, "clicks"),
    "ga4": ("events_20231114.jsonl", ga4, "visits"),
    "ga4-csv": ("bquxjob.csv", ga4_text, "visits"),
    "ga4-flat": ("items.csv", ga4_flat, "visits"),
    "segment": ("segment.json", segment, "visits"),
    "shopify-orders": ("orders.json", shopify_json, "orders"),
    "shopify-csv": ("orders_export.csv", shopify_csv, "orders"),
    "snowplow-tsv": ("enriched.tsv", snowplow_tsv, "visits"),
    "snowplow": ("enriched.jsonl", snowplow_json, "visits"),
    "matomo": ("visits.json", matomo, "visits"),
}


def said(path: Path, asked: Asked | None = None) -> tuple[list[PutEvents], list[str]]:
    """The events of a file, as `replay` and `evaluate` read them, and what is wrong with others."""
    rows = [row for _, row in read(path, now_s=NOW_S, asked=asked)]
    good = [row for row in rows if isinstance(row, PutEvents)]
    return good, [str(row) for row in rows if isinstance(row, InvalidEvent)]


def told(message: PutEvents) -> tuple[str, str, str, float]:
    """User, type, item and time of a message of one event."""
    (event,) = message.event_list
    assert message.user_id is not None
    assert event.item_id is not None
    kind = "click" if event.event_type == "interaction" else event.event_type
    return message.user_id, kind, event.item_id, event.sent_at


def expected(name: str) -> list[tuple[str, str, str, float]]:
    """Those of the events that every format writes."""
    return sorted(
        (one.user, one.kind, item, one.at_s) for one in EXPECTED[name] for item in one.items
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_same_events_in_each_format(tmp_path: Path, name: str) -> None:
    """Each item is an event of its own, with the user and the time of what it stands in."""
    file, write, which = WRITTEN[name]
    (tmp_path / file).write_text(write())

    good, bad = said(tmp_path / file)

    assert sorted(map(told, good)) == expected(which)
    assert bad == (["not a track call"] if name == "segment" else [])


def test_ga4_as_parquet(tmp_path: Path) -> None:
    """Nested lists of Parquet are those of JSON."""
    (tmp_path / "events.jsonl").write_text(ga4())
    connection = duckdb.connect()
    connection.execute(
        f"COPY (SELECT * REPLACE (event_timestamp::BIGINT AS event_timestamp) FROM "  # noqa: S608
        f"read_json('{tmp_path}/events.jsonl')) TO '{tmp_path}/events.parquet'"
    )
    connection.close()

    good, bad = said(tmp_path / "events.parquet")

    assert (sorted(map(told, good)), bad) == (expected("visits"), [])
    assert {message.session_id for message in good} == {f"{one.user}.17" for one in VISITS}


def test_mind_says_what_was_shown(tmp_path: Path) -> None:
    """The list around a click is its impression, however long; without a click there is none."""
    many = " ".join(f"N{n}-{int(n in {150, 400})}" for n in range(100, 500))
    (tmp_path / "behaviors.tsv").write_text(
        mind() + f"4\tu4\t11/14/2023 10:20:00 PM\t\t{many}\n5\tu5\t11/14/2023 10:20:00 PM\t\tN1-0\n"
    )

    good, bad = said(tmp_path / "behaviors.tsv")

    assert good[0].event_list[0].impression == ["N7", "N1", "N6"]
    for message in good[-2:]:
        event = message.event_list[0]
        assert event.impression is not None
        assert len(event.impression) == 25
        assert event.item_id in event.impression
    assert bad == ["impressions: nothing was clicked"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"event_name": "page_view"}, "no item in it"),
        ({"event_name": "view_item_list", "items": [{"item_id": "a"}]}, "none of them chosen"),
        ({"event_name": "refund", "items": [{"item_id": "a"}]}, "taken back"),
        ({"event_name": "purchase", "items": [{"item_id": "(not set)"}]}, "no item in it"),
    ],
)
def test_what_is_no_event_of_an_item_is_said(
    tmp_path: Path, record: dict[str, Any], reason: str
) -> None:
    """Page views, lists merely shown and returns never pass for interest in an item."""
    whole = {"event_timestamp": "1700000000000000", "user_pseudo_id": "0.17", "items": []} | record
    (tmp_path / "events.jsonl").write_text(json_lines([whole, *ga4_records()]))

    good, bad = said(tmp_path / "events.jsonl")

    assert sorted(map(told, good)) == expected("visits")
    assert len(bad) == 1
    assert reason in bad[0]


def test_any_list_becomes_rows(tmp_path: Path) -> None:
    """A list that no format knows, named with `each`, has a row for each element."""
    orders = [
        {"customer": one.user, "when": one.at_s, "basket": [{"thing": item} for item in one.items]}
        for one in ORDERS
    ]
    (tmp_path / "orders.jsonl").write_text(json_lines(orders))
    columns = {"USER_ID": "customer", "ITEM_ID": "basket.thing", "TIMESTAMP": "when"}
    asked = Asked(each="basket")
    asked = Asked(each="basket", told=asked.told._replace(fields=columns, event_type="purchase"))

    good, bad = said(tmp_path / "orders.jsonl", asked)

    assert (sorted(map(told, good)), bad) == (expected("orders"), [])


def test_every_format_is_documented() -> None:
    """The table has a row for each format that is known, and none for another."""
    text = (ROOT / "docs" / "formats.md").read_text().partition("## What their columns mean")[2]
    firsts = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)

    assert {name for first in firsts for name in re.findall(r"`([a-z0-9-]+)`", first)} == {
        each.name for each in FORMATS
    }
