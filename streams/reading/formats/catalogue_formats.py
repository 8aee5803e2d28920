"""Formats of catalogues: Google Merchant's product data, and Shopify's products.

Each record becomes one item, or one for each variant of a product, under names that the recommender
knows: price as a number, levels of a category apart, `availability` and `expires_at` that hide, and
`item_group_id`, of whose items an answer has one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.errors import InvalidRecord
from streams.reading.fields import text_or_none
from streams.reading.formats.file_format import PARTS, FileSample, Format

CatalogueRecord = Mapping[str, Any]

MAX_DESCRIPTION = 5000
"""Characters of a description that are kept; Google Merchant takes as many."""

IN_STOCK, OUT_OF_STOCK = "in_stock", "out_of_stock"

_PRICE = re.compile(
    r"(?P<before>[A-Z]{3})?\s*"
    r"(?P<amount>\d{1,3}(?:,\d{3})+(?:\.\d{1,6})?|\d{1,12}(?:\.\d{1,6}|,\d{1,2})?)"
    r"\s*(?P<after>[A-Z]{3})?"
)
_TAG = re.compile(r"<!--|</?[A-Za-z][A-Za-z0-9]*|<[!?]")
_NESTED = frozenset({"shipping", "tax", "installment", "loyalty_points", "additional_image_link"})
"""Attributes of Google that say nothing of the product itself."""


def _text(record: CatalogueRecord, *names: str) -> str | None:
    """The first present value of these names, as text; a list as `a|b`."""
    texts = (text_or_none(record.get(name)) for name in names)
    return next((text.strip() for text in texts if text is not None), None)


def _without_empty(pairs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pairs.items() if value not in (None, "")}


def levels(path: object) -> str | None:
    """Levels of a category path, the innermost first, as a text with several values.

    >>> levels("Home > Garden > Lamps")
    'Lamps|Garden|Home'
    """
    text = text_or_none(path)
    if text is None or text.isdigit():
        return None
    found = [part.strip() for one in text.split("|") for part in reversed(one.split(">"))]
    return "|".join(dict.fromkeys(part for part in found if part)) or None


def price_of(name: str, text: str | None) -> tuple[float | None, str | None]:
    """Amount and currency of a price.

    A comma before three digits parts thousands, before one or two the fraction.

    >>> price_of("price", "19.99 EUR"), price_of("price", "5")
    ((19.99, 'EUR'), (5.0, None))
    >>> price_of("price", "1,299.00 USD")[0], price_of("price", "19,99")[0]
    (1299.0, 19.99)

    Raises
    ------
    InvalidRecord
        It is no price.
    """
    if text is None:
        return None, None
    found = _PRICE.fullmatch(text.strip())
    if found is None:
        raise InvalidRecord(f"{name}: not a price: {text[:40]!r}")
    amount = re.sub(r",(?=\d{3})", "", found["amount"]).replace(",", ".")
    return float(amount), found["before"] or found["after"]


def text_of_html(text: str | None) -> str | None:
    """The text of a piece of HTML, at most `MAX_DESCRIPTION` characters; linear in its length.

    The parser of the standard library takes minutes for hostile markup.

    >>> text_of_html("<p>Warm &amp; <b>light</b>, 3 < 4</p><script>x()</script>")
    'Warm & light , 3 < 4'
    """
    if text is None:
        return None
    if "<" in text or "&" in text:
        text = html.unescape(" ".join(_outside_tags(text)))
    return " ".join(text.split())[:MAX_DESCRIPTION].strip() or None


def _outside_tags(text: str) -> Iterator[str]:
    """The parts of HTML between its tags, without comments, scripts and styles."""
    lowered, at = text.lower(), 0
    while found := _TAG.search(text, at):
        yield text[at : found.start()]
        opens_comment = found[0] == "<!--"
        end = text.find("-->" if opens_comment else ">", found.end())
        if end >= 0 and found[0].lower() in {"<script", "<style"}:
            end = lowered.find(f"</{found[0][1:].lower()}", end)
            at = end
        else:
            at = end + (3 if opens_comment else 1)
        if end < 0:
            return
    yield text[at:]


def _merchant(record: CatalogueRecord) -> Iterator[CatalogueRecord]:
    given = {re.sub(r"[\s-]+", "_", name.strip().lower()): one for name, one in record.items()}
    price, currency = price_of("price", _text(given, "price"))
    sale_price, _ = price_of("sale_price", _text(given, "sale_price"))
    special = {
        "image_url": _text(given, "image_link"),
        "url": _text(given, "link"),
        "description": text_of_html(_text(given, "description", "summary")),
        "category": levels(given.get("product_type"))
        or levels(given.get("google_product_category")),
        "price": price,
        "currency": currency,
        "sale_price": sale_price,
        "expires_at": _text(given, "expiration_date"),
    }
    left_out = {"image_link", "link", "summary", "expiration_date", *_NESTED}
    others = {
        name: text_or_none(value)
        for name, value in given.items()
        if name not in left_out and name not in special and not isinstance(value, Mapping)
    }
    yield _without_empty({**others, **special})


def _is_merchant(sample: FileSample) -> str:
    names = {re.sub(r"[\s-]+", "_", name.strip().lower()) for name in sample.columns}
    needed = {"id", "title", "link", "price", "availability"}
    if sample.shape == "xml":
        return "products with id and title" if {"id", "title"} <= names and names & {
            "price", "availability", "image_link", "product_type"
        } else ""  # fmt: skip
    return "by its columns" if {*needed, "image_link"} <= names else ""


def _stock(tracked: object, policy: object, quantity: object) -> str:
    """Availability of a variant of Shopify.

    >>> _stock("shopify", "deny", "0"), _stock("shopify", "continue", 0), _stock(None, "deny", 0)
    ('out_of_stock', 'in_stock', 'in_stock')
    """
    amount = text_or_none(quantity)
    is_free = text_or_none(tracked) is None or str(policy).lower() == "continue" or amount is None
    return IN_STOCK if is_free or not re.fullmatch(r"-\d+|0", str(amount)) else OUT_OF_STOCK


def _variants(
    product: CatalogueRecord, name: str, variants: Iterable[CatalogueRecord]
) -> Iterator[CatalogueRecord]:
    """An item for each variant with an SKU, and one of the product for those without.

    They are named as `shopify-orders` and `shopify-csv` name what was bought.
    """
    found: dict[str, dict[str, Any]] = {}
    for variant in variants:
        sku = _text(variant, "sku")
        item_id = sku or name
        known = found.get(item_id)
        if known is None:
            found[item_id] = {**product, **variant, "id": item_id}
        elif variant.get("availability") == IN_STOCK:
            known["availability"] = IN_STOCK
    for item in found.values():
        if len(found) > 1:
            item["item_group_id"] = name
        yield _without_empty(item)


def _shopify_product(record: CatalogueRecord) -> Iterator[CatalogueRecord]:
    tags, images = record.get("tags"), record.get("images")
    image = record.get("image") or (images[0] if isinstance(images, list) and images else None)
    published = "published_at" not in record or _text(record, "published_at") is not None
    product = {
        "title": _text(record, "title"),
        "description": text_of_html(_text(record, "body_html")),
        "brand": _text(record, "vendor"),
        "category": levels(record.get("product_type")),
        "tags": _tags(tags if isinstance(tags, list) else str(tags or "").split(",")),
        "handle": _text(record, "handle"),
        "image_url": _text(image, "src") if isinstance(image, Mapping) else None,
        "created_at": _text(record, "created_at"),
        "hidden": None if published and _text(record, "status") in {None, "active"} else True,
    }
    name = _text(record, "id") or _text(record, "handle")
    if name is None:
        raise InvalidRecord("neither id nor handle")
    options = record.get("options")
    names = [_text(one, "name") for one in options if isinstance(one, Mapping)] if isinstance(
        options, list
    ) else []  # fmt: skip
    variants = record.get("variants")
    yield from _variants(
        product,
        name,
        (_json_variant(one, names) for one in variants if isinstance(one, Mapping))
        if isinstance(variants, list) and variants
        else [{}],
    )


def _json_variant(variant: CatalogueRecord, names: list[str | None]) -> dict[str, Any]:
    is_available = variant.get("available")
    stock = _stock(
        *(variant.get(f"inventory_{one}") for one in ("management", "policy", "quantity"))
    )
    if isinstance(is_available, bool):
        stock = IN_STOCK if is_available else OUT_OF_STOCK
    options = {names[n - 1] if n <= len(names) else None: _text(variant, f"option{n}")
               for n in (1, 2, 3)}  # fmt: skip
    return {
        "sku": _text(variant, "sku"),
        "price": price_of("price", _text(variant, "price"))[0],
        "compare_at_price": price_of("compare_at_price", _text(variant, "compare_at_price"))[0],
        "availability": stock,
        **_options(options),
    }


def _options(options: Mapping[str | None, str | None]) -> dict[str, str]:
    """Properties of a variant's options; those of a product without variants say nothing."""
    return {
        f"option_{name}": value
        for name, value in options.items()
        if name and value and value != "Default Title"
    }


def _tags(tags: Iterable[object]) -> str | None:
    return "|".join(dict.fromkeys(text for one in tags if (text := str(one).strip()))) or None


_CSV = {
    "handle": ("Handle", "URL handle"),
    "title": ("Title",),
    "description": ("Body (HTML)", "Description"),
    "vendor": ("Vendor",),
    "product_category": ("Product Category", "Product category"),
    "type": ("Type",),
    "tags": ("Tags",),
    "published": ("Published", "Published on online store"),
    "status": ("Status",),
    "sku": ("Variant SKU", "SKU"),
    "price": ("Variant Price", "Price"),
    "compare_at_price": ("Variant Compare At Price", "Compare-at price"),
    "tracker": ("Variant Inventory Tracker", "Inventory tracker"),
    "policy": ("Variant Inventory Policy", "Continue selling when out of stock"),
    "quantity": ("Variant Inventory Qty", "Inventory quantity"),
    "image": ("Image Src", "Product image URL"),
}
"""Columns of Shopify's export of products: as they were, and as they are since 2024."""


def _csv(record: CatalogueRecord, name: str) -> str | None:
    return _text(record, *_CSV[name])


def _shopify_rows(record: CatalogueRecord) -> Iterator[CatalogueRecord]:
    handle = _csv(record, "handle")
    if handle is None:
        raise InvalidRecord("no handle")
    rows: list[CatalogueRecord] = record.get(PARTS, [record])
    is_shown = (_csv(record, "published") or "true").lower() == "true"
    is_active = (_csv(record, "status") or "active").lower() == "active"
    product = {
        "title": _csv(record, "title"),
        "description": text_of_html(_csv(record, "description")),
        "brand": _csv(record, "vendor"),
        "category": levels(_csv(record, "type")) or levels(_csv(record, "product_category")),
        "tags": _tags((_csv(record, "tags") or "").split(",")),
        "handle": handle,
        "image_url": _csv(record, "image"),
        "hidden": None if is_shown and is_active else True,
    }
    # Rows of further pictures have neither a price nor an SKU.
    variants = [row for row in rows if _csv(row, "sku") or _csv(row, "price")] or rows[:1]
    names = [_text(record, f"Option{n} Name", f"Option{n} name") for n in (1, 2, 3)]
    yield from _variants(product, handle, (_csv_variant(row, names) for row in variants))


def _csv_variant(row: CatalogueRecord, names: list[str | None]) -> dict[str, Any]:
    values = [_text(row, f"Option{n} Value", f"Option{n} value") for n in (1, 2, 3)]
    return {
        "sku": _csv(row, "sku"),
        "price": price_of("price", _csv(row, "price"))[0],
        "compare_at_price": price_of("compare_at_price", _csv(row, "compare_at_price"))[0],
        "availability": _stock(*(_csv(row, one) for one in ("tracker", "policy", "quantity"))),
        **_options(dict(zip(names, values, strict=True))),
    }


def _is_shopify_csv(sample: FileSample) -> str:
    names = set(sample.columns)
    is_so = all(names & set(_CSV[one]) for one in ("handle", "title", "sku", "price"))
    return "by its columns" if is_so else ""


CATALOGUE_FORMATS: tuple[Format, ...] = (
    Format(
        "google-merchant",
        "Google Merchant's product data",
        fields={"ITEM_ID": "id"},
        make_rows=_merchant,
        recognise=_is_merchant,
        dataset="items",
    ),
    Format(
        "shopify-products",
        "Shopify's products as JSON",
        fields={"ITEM_ID": "id", "CREATION_TIMESTAMP": "created_at"},
        make_rows=_shopify_product,
        list_in_document="products",
        recognise=lambda sample: (
            "products with variants"
            if {"handle", "variants", "title"} <= set(sample.columns)
            else ""
        ),
        dataset="items",
    ),
    Format(
        "shopify-products-csv",
        "Shopify's export of products",
        fields={"ITEM_ID": "id"},
        make_rows=_shopify_rows,
        part_of=lambda row: _csv(row, "handle"),
        recognise=_is_shopify_csv,
        dataset="items",
    ),
)
