"""Export formats of shops and web analytics: GA4, Segment, Shopify, Snowplow, Matomo.

A record is an order, an event with items, or a visit with its actions. Each item becomes a row with
the user and the time of the record; anonymous visitors are users by their cookie id. Records
without an event of an item, such as page views and lists that were only shown, are bad rows with a
reason. Event types are `view`, `click`, `cart` and `purchase`; other types keep their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.errors import InvalidRecord
from streams.reading.fields import text_or_none
from streams.reading.formats.file_format import FileSample, Format

ShopRecord = Mapping[str, Any]

FIELDS = {
    "USER_ID": "event_user",
    "ITEM_ID": "event_item",
    "TIMESTAMP": "event_time",
    "EVENT_TYPE": "event_kind",
}
EXTRA = {"SESSION_ID": "event_session"}
"""Columns that `_rows` adds to a record; no format has columns of these names."""

NO_ITEM = "no item in it"
SHOWN = "items shown, none of them chosen"
TAKEN_BACK = "items taken back, returned or cancelled"

_ECOMMERCE = "com_snowplowanalytics_snowplow_ecommerce"
_SNOWPLOW_ACTION = f"unstruct_event_{_ECOMMERCE}_snowplow_ecommerce_action_1"
_SNOWPLOW_PRODUCTS = f"contexts_{_ECOMMERCE}_product_1"

_GA4 = {
    "add_to_cart": "cart",
    "select_item": "click",
    "view_item": "view",
    "view_item_list": SHOWN,
    "view_search_results": SHOWN,
    "view_promotion": SHOWN,
    "refund": TAKEN_BACK,
    "remove_from_cart": TAKEN_BACK,
}
_SEGMENT = {
    "order completed": "purchase",
    "completed order": "purchase",
    "product added": "cart",
    "added product": "cart",
    "product clicked": "click",
    "product viewed": "view",
    "viewed product": "view",
    "product list viewed": SHOWN,
    "product list filtered": SHOWN,
    "products searched": SHOWN,
    "product removed": TAKEN_BACK,
    "product removed from wishlist": TAKEN_BACK,
    "removed product": TAKEN_BACK,
    "order cancelled": TAKEN_BACK,
    "order refunded": TAKEN_BACK,
}
_SNOWPLOW = {
    "add_to_cart": "cart",
    "list_click": "click",
    "product_view": "view",
    "transaction": "purchase",
    "list_view": SHOWN,
    "refund": TAKEN_BACK,
    "remove_from_cart": TAKEN_BACK,
    "transaction_error": TAKEN_BACK,
}
_MATOMO = {"ecommerceOrder": "purchase", "ecommerceAbandonedCart": "cart"}


def _rows(
    record: ShopRecord,
    items: Iterable[Any],
    *,
    kind: str,
    time: object,
    user: object = None,
    session: object = None,
) -> Iterator[ShopRecord]:
    """A row for each item."""
    if kind in {SHOWN, TAKEN_BACK}:
        raise InvalidRecord(kind)
    found = [item for item in items if item is not None]
    if not found:
        raise InvalidRecord(NO_ITEM)
    for item in found:
        yield {
            **record,
            "event_user": user,
            "event_item": item,
            "event_time": time,
            "event_kind": kind,
            "event_session": session,
        }


def _first(*values: object) -> str | None:
    """The first present value, as text."""
    texts = (text_or_none(value) for value in values)
    return next((text for text in texts if text is not None and text != "(not set)"), None)


def _inside(record: object, *keys: str) -> Any:  # noqa: ANN401  any JSON
    """The value at a path of keys, also inside strings of JSON."""
    found = record
    for key in keys:
        found = _decoded(found)
        found = found.get(key) if isinstance(found, Mapping) else None
    return _decoded(found)


def _decoded(value: Any) -> Any:  # noqa: ANN401  any JSON
    """A value, decoded if it is a string of a JSON list or object."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidRecord("JSON inside a field breaks off") from error
    return value


def _objects(value: Any) -> list[Any]:  # noqa: ANN401  any JSON
    """A list, also in the wrapping of older Parquet exports."""
    if isinstance(value, Mapping) and isinstance(value.get("list"), list):
        value = [_inside(one, "element") for one in value["list"]]
    return value if isinstance(value, list) else []


def _ga4(record: ShopRecord) -> Iterator[ShopRecord]:
    name = _first(record.get("event_name")) or ""
    items = _objects(_inside(record, "items"))
    ids = [_first(_inside(one, "item_id"), _inside(one, "item_name")) for one in items]
    session = next(
        (
            _first(_inside(one, "value", "int_value"), _inside(one, "value", "string_value"))
            for one in _objects(_inside(record, "event_params"))
            if _inside(one, "key") == "ga_session_id"
        ),
        None,
    )
    visitor = _first(record.get("user_pseudo_id"))
    return _rows(
        record,
        ids or [_first(record.get("item_id"))],
        kind=_GA4.get(name, name),
        time=record.get("event_timestamp"),
        user=_first(record.get("user_id"), visitor),
        # A session number is its start in seconds, unique for one visitor only.
        session=f"{visitor}.{session}" if session else None,
    )


def _is_ga4(sample: FileSample) -> str:
    needed = {"event_timestamp", "event_name", "user_pseudo_id"}
    return "by its columns" if needed <= set(sample.columns) else ""


def _segment(record: ShopRecord) -> Iterator[ShopRecord]:
    if record.get("type", "track") != "track":
        raise InvalidRecord("not a track call")
    name = _first(record.get("event")) or ""
    properties = _inside(record, "properties")
    products = _objects(_inside(properties, "products"))
    return _rows(
        record,
        [_product(one) or _first(_inside(one, "id")) for one in products] or [_product(properties)],
        kind=_SEGMENT.get(name.lower(), name),
        time=_first(*(record.get(key) for key in ("timestamp", "originalTimestamp", "sentAt"))),
        user=_first(record.get("userId"), record.get("anonymousId")),
    )


def _product(value: object) -> str | None:
    return _first(*(_inside(value, key) for key in ("product_id", "productId", "sku")))


def _is_segment(sample: FileSample) -> str:
    is_so = {"type", "event", "properties"} <= set(sample.columns) and any(
        isinstance(row, Mapping) and row.get("type") == "track" for row in sample.rows
    )
    return "track calls" if is_so else ""


def _order(record: ShopRecord) -> Iterator[ShopRecord]:
    lines = _objects(_inside(record, "line_items"))
    return _rows(
        record,
        [_first(*(_inside(line, key) for key in ("sku", "product_id", "title"))) for line in lines],
        kind=TAKEN_BACK if _first(record.get("cancelled_at")) else "purchase",
        time=_first(record.get("created_at"), record.get("processed_at")),
        user=_first(
            record.get("email"),
            _inside(record, "customer", "email"),
            _inside(record, "customer", "id"),
        ),
    )


def _is_order(sample: FileSample) -> str:
    return "orders with line_items" if {"line_items", "created_at"} <= set(sample.columns) else ""


def _order_line(record: ShopRecord) -> Iterator[ShopRecord]:
    return _rows(
        record,
        [_first(record.get("Lineitem sku"), record.get("Lineitem name"))],
        kind=TAKEN_BACK if _first(record.get("Cancelled at")) else "purchase",
        time=record.get("Created at"),
        user=_first(record.get("Email"), record.get("Phone")),
    )


def _is_order_line(sample: FileSample) -> str:
    needed = {"Name", "Email", "Created at", "Lineitem name"}
    return "by its columns" if needed <= set(sample.columns) else ""


def _snowplow(record: ShopRecord) -> Iterator[ShopRecord]:
    data = _inside(record, "unstruct_event", "data")
    action = _first(_inside(data, "data", "type"), _inside(record, _SNOWPLOW_ACTION, "type"))
    products = _objects(_inside(record, _SNOWPLOW_PRODUCTS)) or [
        _inside(one, "data")
        for one in _objects(_inside(record, "contexts", "data"))
        if ".ecommerce/product/" in str(_inside(one, "schema"))
    ]
    if record.get("event") == "transaction_item":
        action, products = "transaction", [{"id": record.get("ti_sku")}]
    return _rows(
        record,
        [_first(_inside(one, "id")) for one in products],
        kind=_SNOWPLOW.get(action or "", action or ""),
        time=_first(record.get("derived_tstamp"), record.get("collector_tstamp")),
        user=_first(*(record.get(key) for key in ("user_id", "domain_userid", "network_userid"))),
        session=_first(record.get("domain_sessionid")),
    )


def _is_snowplow(sample: FileSample) -> str:
    if sample.columns:
        needed = {"collector_tstamp", "event_id", "v_collector"}
        return "by its columns" if needed <= set(sample.columns) else ""
    first: Sequence[str] = sample.rows[0] if sample.rows else ()
    is_so = len(first) == len(SNOWPLOW_COLUMNS) and first[5] and len(first[6]) == 36
    return f"{len(first)} fields, an event id among them" if is_so else ""


def _visit(record: ShopRecord) -> Iterator[ShopRecord]:
    actions = _objects(_inside(record, "actionDetails"))
    found = [(action, *_chosen(action)) for action in actions]
    if not any(items for _, _, items in found):
        raise InvalidRecord(NO_ITEM)
    for action, kind, items in found:
        if items:
            yield from _rows(
                record,
                items,
                kind=kind,
                time=_first(_inside(action, "timestamp"), _inside(action, "serverTimestamp")),
                user=_first(record.get("userId"), record.get("visitorId")),
                session=_first(record.get("idVisit")),
            )


def _chosen(action: object) -> tuple[str, list[str]]:
    """Event type of an action of a visit, and its items."""
    kind = _MATOMO.get(str(_inside(action, "type")), "view")
    names = [_inside(one, "itemSKU") for one in _objects(_inside(action, "itemDetails"))]
    names = names or [_inside(action, "productViewSku")]
    return kind, [name for each in names if (name := _first(each))]


def _is_visit(sample: FileSample) -> str:
    needed = {"actionDetails", "idVisit"}
    return "visits with actionDetails" if needed <= set(sample.columns) else ""


SNOWPLOW_COLUMNS = tuple(
    """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id
    name_tracker v_tracker v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid
    domain_sessionidx network_userid geo_country geo_region geo_city geo_zipcode geo_latitude
    geo_longitude geo_region_name ip_isp ip_organization ip_domain ip_netspeed page_url page_title
    page_referrer page_urlscheme page_urlhost page_urlport page_urlpath page_urlquery
    page_urlfragment refr_urlscheme refr_urlhost refr_urlport refr_urlpath refr_urlquery
    refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term mkt_content
    mkt_campaign contexts se_category se_action se_label se_property se_value unstruct_event
    tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state tr_country ti_orderid
    ti_sku ti_name ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max pp_yoffset_min
    pp_yoffset_max useragent br_name br_family br_version br_type br_renderengine br_lang
    br_features_pdf br_features_flash br_features_java br_features_director br_features_quicktime
    br_features_realplayer br_features_windowsmedia br_features_gears br_features_silverlight
    br_cookies br_colordepth br_viewwidth br_viewheight os_name os_family os_manufacturer
    os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset doc_width
    doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base
    base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid
    refr_device_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor event_name
    event_format event_version event_fingerprint true_tstamp
    """.split()  # noqa: SIM905  a list of so many would take a line for each
)
"""Fields of an enriched event in the documented order."""

SHOP_FORMATS: tuple[Format, ...] = (
    Format(
        "ga4",
        "GA4's export to BigQuery",
        fields=FIELDS,
        replay_fields=EXTRA,
        make_rows=_ga4,
        recognise=_is_ga4,
    ),
    Format(
        "segment",
        "Segment's track calls",
        fields=FIELDS,
        replay_fields=EXTRA,
        make_rows=_segment,
        recognise=_is_segment,
    ),
    Format(
        "shopify-orders",
        "Shopify's orders as JSON",
        fields=FIELDS,
        list_in_document="orders",
        make_rows=_order,
        recognise=_is_order,
    ),
    Format(
        "shopify-csv",
        "Shopify's export of orders",
        fields=FIELDS,
        make_rows=_order_line,
        recognise=_is_order_line,
    ),
    Format(
        "snowplow",
        "Snowplow's enriched events as JSON",
        fields=FIELDS,
        replay_fields=EXTRA,
        make_rows=_snowplow,
        recognise=lambda sample: _is_snowplow(sample) if sample.columns else "",
    ),
    Format(
        "snowplow-tsv",
        "Snowplow's enriched events",
        columns=SNOWPLOW_COLUMNS,
        fields=FIELDS,
        replay_fields=EXTRA,
        make_rows=_snowplow,
        has_header=False,
        separator="\t",
        recognise=lambda sample: "" if sample.columns else _is_snowplow(sample),
    ),
    Format(
        "matomo",
        "Matomo's visits (Live.getLastVisitsDetails)",
        fields=FIELDS,
        replay_fields=EXTRA,
        make_rows=_visit,
        recognise=_is_visit,
    ),
)
