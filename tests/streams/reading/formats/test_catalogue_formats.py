"""Formats of catalogues: the same items from each, under properties that have a meaning here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from models.errors import CannotPrepare, InvalidRecord, UnreadableRecording
from streams.object_store import Objects
from streams.reading.column_mapping import ColumnOptions
from streams.reading.formats.catalogue_formats import MAX_DESCRIPTION, text_of_html
from streams.reading.read_options import ReadOptions
from streams.recordings.item_files import ItemFile
from tests.streams.reading.formats.catalogue_samples_fixtures import (
    ATOM,
    MERCHANT_ITEMS,
    MERCHANT_TABLE,
    RSS,
    SHOPIFY_CSV,
    SHOPIFY_CSV_ITEMS,
    SHOPIFY_JSON,
    SHOPIFY_JSON_ITEMS,
)

pytestmark = pytest.mark.unit

NOW_S = 1_800_000_000.0
NEW_NAMES = {
    "Handle": "URL handle",
    "Body (HTML)": "Description",
    "Published": "Published on online store",
    "Option1 Name": "Option1 name",
    "Option1 Value": "Option1 value",
    "Variant SKU": "SKU",
    "Variant Inventory Tracker": "Inventory tracker",
    "Variant Inventory Qty": "Inventory quantity",
    "Variant Inventory Policy": "Continue selling when out of stock",
    "Variant Price": "Price",
    "Variant Compare At Price": "Compare-at price",
    "Image Src": "Product image URL",
}
"""Columns of Shopify's export as they are named since 2024."""


def renamed(text: str) -> str:
    """Shopify's export with the columns' newer names."""
    head, _, rest = text.partition("\n")
    return ",".join(NEW_NAMES.get(name, name) for name in head.split(",")) + "\n" + rest


def opened(path: Path, options: ReadOptions | None = None) -> ItemFile:
    """The items of a file."""
    return ItemFile(Objects(), str(path), options or ReadOptions(), latest_s=NOW_S)


def items_and_errors(
    path: Path, options: ReadOptions | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Properties by item, and reasons by row, of a file."""
    file = opened(path, options)
    rows = [(file.source.row_label(row.place), row.record) for row in file.rows()]
    good = [record for _, record in rows if not isinstance(record, InvalidRecord)]
    for _, properties in good:
        file.learn_types(properties)
    found = {item_id: dict(file.typed(properties)) for item_id, properties in good}
    bad = {where: str(one) for where, one in rows if isinstance(one, InvalidRecord)}
    return found, bad


@pytest.mark.parametrize(
    ("name", "text", "items"),
    [
        ("feed.xml", RSS, MERCHANT_ITEMS),
        ("feed.xml", ATOM, MERCHANT_ITEMS),
        ("feed.txt", MERCHANT_TABLE, MERCHANT_ITEMS),
        ("products.csv", SHOPIFY_CSV, SHOPIFY_CSV_ITEMS),
        ("products.csv", renamed(SHOPIFY_CSV), SHOPIFY_CSV_ITEMS),
        ("products.json", SHOPIFY_JSON, SHOPIFY_JSON_ITEMS),
    ],
)
def test_catalogues_of_each_format(
    tmp_path: Path, name: str, text: str, items: dict[str, Any]
) -> None:
    """Each is recognised without an option, and gives the items with their properties."""
    (tmp_path / name).write_text(text)

    assert items_and_errors(tmp_path / name) == (items, {})


def test_json_and_parquet_say_themselves_what_a_value_is(tmp_path: Path) -> None:
    """Texts stay texts, and lists are texts with several values."""
    (tmp_path / "a.jsonl").write_text(
        '{"itemId": 5, "code": "12", "price": 3, "tags": ["a", "b"], "new": true, "gone": null}\n'
    )
    row = "SELECT 5 AS item_id, '12' AS code, 3 AS price, ['a', 'b'] AS tags, true AS new"
    duckdb.execute(f"COPY ({row}) TO '{tmp_path}/a.parquet'")
    wanted = {"5": {"CODE": "12", "PRICE": 3, "TAGS": "a|b", "NEW": True}}

    assert items_and_errors(tmp_path / "a.jsonl") == (wanted, {})
    assert items_and_errors(tmp_path / "a.parquet") == (wanted, {})


def test_columns_of_texts_are_numbers_where_every_value_is_one(tmp_path: Path) -> None:
    """One other value in the whole file, and the column stays one of texts."""
    (tmp_path / "a.csv").write_text(
        "sku,price,size,sold out,ean\na,1.50,38,true,4006381333931\nb,2,XL,false,\n"
    )

    items, _ = items_and_errors(tmp_path / "a.csv")

    assert items == {
        "a": {"PRICE": 1.5, "SIZE": "38", "SOLD_OUT": True, "EAN": 4006381333931},
        "b": {"PRICE": 2, "SIZE": "XL", "SOLD_OUT": False},
    }


def test_columns_are_mapped_kept_and_dropped(tmp_path: Path) -> None:
    """As the options say."""
    (tmp_path / "a.csv").write_text("nr,what,cost,note\n1,Lamp,3,x\n")
    options = ColumnOptions({"ITEM_ID": "nr", "TITLE": "what"}, drop=["note"])

    items, _ = items_and_errors(tmp_path / "a.csv", ReadOptions(column_options=options))

    assert items == {"1": {"TITLE": "Lamp", "COST": 3}}
    with pytest.raises(CannotPrepare, match="--map ITEM_ID=COLUMN"):
        opened(tmp_path / "a.csv")


def test_properties_beyond_the_sample_are_taken(tmp_path: Path) -> None:
    """Also where a product has many rows, and the sample of rows few products."""
    rows = [f"p{n // 2},T{n},{'Color' if n < 1500 else 'Size'},v{n},s{n},1.00\n"
            for n in range(1600)]  # fmt: skip
    (tmp_path / "a.csv").write_text(
        "Handle,Title,Option1 Name,Option1 Value,Variant SKU,Variant Price\n" + "".join(rows)
    )

    items, bad = items_and_errors(tmp_path / "a.csv")

    assert (len(items), bad) == (1600, {})
    assert (items["s7"]["OPTION_COLOR"], items["s1599"]["OPTION_SIZE"]) == ("v7", "v1599")
    assert items["s1599"]["ITEM_GROUP_ID"] == "p799"


def test_bad_rows_are_named(tmp_path: Path) -> None:
    """Each with its record and the reason; the others are taken."""
    bad = RSS.replace("19.99 EUR", "cheap").replace("</channel>", "<item><g:id/></item></channel>")
    (tmp_path / "feed.xml").write_text(bad)

    items, errors = items_and_errors(tmp_path / "feed.xml")

    assert list(items) == ["LAMP-2"]
    assert errors == {
        "record 1": "price: not a price: 'cheap'",
        "record 3": "ITEM_ID: empty in column id",
    }
    (tmp_path / "a.csv").write_text("item_id,expires_at\na,soon\nb,2027-01-01\n")
    assert items_and_errors(tmp_path / "a.csv") == (
        {"b": {"EXPIRES_AT": 1798761600.0}},
        {"line 2": "EXPIRES_AT: not a time: 'soon' in column expires_at"},
    )


def test_a_variant_without_an_sku_is_its_product(tmp_path: Path) -> None:
    """As it is in orders: one item, in stock where any of its variants is."""
    text = SHOPIFY_CSV.replace("LAMP-1", "").replace("LAMP-2", "").replace(",3,deny", ",0,deny")
    (tmp_path / "a.csv").write_text(text)
    items, _ = items_and_errors(tmp_path / "a.csv")
    assert list(items) == ["lamp", "rope"]
    assert items["lamp"]["AVAILABILITY"] == "out_of_stock"
    (tmp_path / "b.csv").write_text(text.replace(",0,deny,21", ",4,deny,21"))
    items, _ = items_and_errors(tmp_path / "b.csv")
    assert items["lamp"]["AVAILABILITY"] == "in_stock"
    assert "ITEM_GROUP_ID" not in items["lamp"]


def test_events_are_no_catalogue(tmp_path: Path) -> None:
    """A file of a format of events is refused, named."""
    (tmp_path / "a.csv").write_text("timestamp,visitorid,event,itemid,transactionid\n1,2,view,3,\n")
    with pytest.raises(UnreadableRecording, match=r"retailrocket .*: interactions, and not items"):
        opened(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "part", ["<!--", "<a ", "<![", "</", "&#", '<a b="', "<script>", "<p>x</p>"]
)
def test_hostile_html_is_read_once(part: str) -> None:
    """A megabyte of it takes no longer than any other; what is kept is bounded."""
    found = text_of_html("Lamp " + part * (1_000_000 // len(part)))

    assert found is not None
    assert found.startswith("Lamp")
    assert len(found) <= MAX_DESCRIPTION


def test_scripts_and_comments_are_no_text() -> None:
    """What a browser would show is kept, with blanks for its elements."""
    text = "<!-- a > b -->One<br/>two<STYLE>p {}</STYLE> &lt;3 <script>if (a < b) {}</script>x"
    assert text_of_html(text) == "One two <3 x"
