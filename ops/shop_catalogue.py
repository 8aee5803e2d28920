"""The catalogue of the demo's shop: 208 items in 13 categories, from `shop_catalogue.csv`.

PICTURE names a shape and a colour, which the shop's page draws (`web/src/pictures`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.resources import files
from typing import NamedTuple

from models.metadata_records import Value

NEW_PER_CATEGORY = 2
"""Last items of each category that came into the shop within the last days."""

DAY_S = 86_400.0

RELATED: Mapping[str, tuple[str, ...]] = {
    "Coffee": ("Baking", "Books"),
    "Camping": ("Cycling", "Clothing"),
    "Cycling": ("Fitness", "Camping"),
    "Books": ("Coffee", "Home"),
    "Garden": ("Home", "Books"),
    "Music": ("Games", "Photo"),
    "Baking": ("Coffee", "Home"),
    "Fitness": ("Cycling", "Care"),
    "Games": ("Books", "Music"),
    "Photo": ("Camping", "Books"),
    "Home": ("Garden", "Care"),
    "Clothing": ("Care", "Camping"),
    "Care": ("Home", "Fitness"),
}
"""Categories that shoppers of a category go on to."""


class ShopItem(NamedTuple):
    """One item of the demo's shop; price in euros."""

    item_id: str
    name: str
    category: str
    price: float
    picture: str
    description: str


def _read() -> tuple[ShopItem, ...]:
    text = files("ops").joinpath("shop_catalogue.csv").read_text("utf-8")
    return tuple(
        ShopItem(
            row["ITEM_ID"], row["NAME"], row["CATEGORY"], float(row["PRICE"]), row["PICTURE"],
            row["DESCRIPTION"],
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


ITEMS = _read()

SHELVES: Mapping[str, tuple[ShopItem, ...]] = {
    category: tuple(item for item in ITEMS if item.category == category)
    for category in dict.fromkeys(item.category for item in ITEMS)
}
"""Items by category; adjacent ones are bought for the same purpose."""

SHELF_OF: Mapping[str, str] = {item.item_id: item.category for item in ITEMS}
"""Category of each item id."""


def properties_of(item: ShopItem, *, now_s: float) -> dict[str, Value]:
    """Metadata of an item as of now: the last items of a category came within days, others before.

    >>> found = properties_of(ITEMS[0], now_s=1.8e9)
    >>> found["NAME"], found["CATEGORY"], found["PRICE"]
    ('Espresso machine', 'Coffee', 349.0)
    """
    shelf = SHELVES[item.category]
    place = shelf.index(item)
    is_new = place >= len(shelf) - NEW_PER_CATEGORY
    # Apart by a fraction of a day for each category, so that none of them heads the list alone.
    part = list(SHELVES).index(item.category) / len(SHELVES)
    age_days = len(shelf) - place + part if is_new else 30 + 20 * (len(shelf) - place) + part
    return {
        "NAME": item.name,
        "CATEGORY": item.category,
        "PRICE": item.price,
        "PICTURE": item.picture,
        "DESCRIPTION": item.description,
        "CREATION_TIMESTAMP": int(now_s - age_days * DAY_S),
    }
