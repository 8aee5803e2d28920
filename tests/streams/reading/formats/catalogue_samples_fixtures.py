"""The same two products as each format of catalogues writes them."""

from __future__ import annotations

import json

GOOGLE = 'xmlns:g="http://base.google.com/ns/1.0"'

MERCHANT_ATTRIBUTES = """
<g:id>LAMP-1</g:id><g:title>Reading lamp</g:title><title>not this</title>
<g:description>Warm &lt;b&gt;light&lt;/b&gt;</g:description>
<g:link>https://shop.example/lamp</g:link>
<g:image_link>https://shop.example/lamp.png</g:image_link>
<g:additional_image_link>https://shop.example/2.png</g:additional_image_link>
<g:availability>in_stock</g:availability><g:price>19.99 EUR</g:price>
<g:sale_price>15 EUR</g:sale_price><g:product_type>Home &gt; Lamps</g:product_type>
<g:item_group_id>LAMP</g:item_group_id><g:mpn>007</g:mpn>
<g:shipping><g:country>DE</g:country><g:price>4.95 EUR</g:price></g:shipping>
"""
SECOND = """
<g:id>LAMP-2</g:id><g:title>Reading lamp, red</g:title><g:price>21.00 EUR</g:price>
<g:availability>out_of_stock</g:availability><g:item_group_id>LAMP</g:item_group_id>
<g:expiration_date>2027-07-11T19:00:00+01:00</g:expiration_date><g:mpn>8</g:mpn>
"""

RSS = (
    f'<?xml version="1.0"?><rss {GOOGLE} version="2.0"><channel><title>Shop</title>'
    f"<item>{MERCHANT_ATTRIBUTES}</item><item>{SECOND}</item></channel></rss>"
)
ATOM = (
    f'<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom" {GOOGLE}>'
    f"<title>Shop</title><entry>{MERCHANT_ATTRIBUTES}</entry><entry>{SECOND}</entry></feed>"
)
MERCHANT_TABLE = (
    "id\ttitle\tdescription\tlink\timage link\tavailability\tprice\tsale price\tproduct type\t"
    "item group id\tmpn\texpiration date\n"
    "LAMP-1\tReading lamp\tWarm <b>light</b>\thttps://shop.example/lamp\t"
    "https://shop.example/lamp.png\tin_stock\t19.99 EUR\t15 EUR\tHome > Lamps\tLAMP\t007\t\n"
    "LAMP-2\tReading lamp, red\t\t\t\tout_of_stock\t21.00 EUR\t\t\tLAMP\t8\t"
    "2027-07-11T19:00:00+01:00\n"
)
MERCHANT_ITEMS = {
    "LAMP-1": {
        "TITLE": "Reading lamp",
        "DESCRIPTION": "Warm light",
        "URL": "https://shop.example/lamp",
        "IMAGE_URL": "https://shop.example/lamp.png",
        "AVAILABILITY": "in_stock",
        "PRICE": 19.99,
        "CURRENCY": "EUR",
        "SALE_PRICE": 15,
        "PRODUCT_TYPE": "Home > Lamps",
        "CATEGORY": "Lamps|Home",
        "ITEM_GROUP_ID": "LAMP",
        "MPN": "007",
    },
    "LAMP-2": {
        "TITLE": "Reading lamp, red",
        "AVAILABILITY": "out_of_stock",
        "PRICE": 21,
        "CURRENCY": "EUR",
        "ITEM_GROUP_ID": "LAMP",
        "MPN": "8",
        "EXPIRES_AT": 1815328800.0,
    },
}
"""What both feeds and the table hold; a zero before a number makes its column one of texts."""

SHOPIFY_CSV = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,Variant Price,"
    "Variant Compare At Price,Image Src,Status\n"
    'lamp,Reading lamp,"<p>Warm\n light</p>",Lux,Lamps,"new, warm",true,Color,White,LAMP-1,'
    "shopify,3,deny,19.99,25.00,https://cdn.example/1.png,active\n"
    "lamp,,,,,,,,Red,LAMP-2,shopify,0,deny,21.00,,https://cdn.example/2.png,\n"
    "lamp,,,,,,,,,,,,,,,https://cdn.example/3.png,\n"
    "rope,Rope,,Knot,Ropes,,true,Title,Default Title,,,,deny,5.00,,,draft\n"
)
SHOPIFY_JSON = json.dumps(
    {
        "products": [
            {
                "id": 632910392,
                "title": "Reading lamp",
                "body_html": "<p>Warm\n light</p>",
                "vendor": "Lux",
                "product_type": "Lamps",
                "created_at": "2024-01-02T03:04:05-05:00",
                "handle": "lamp",
                "published_at": "2024-01-02T03:04:05-05:00",
                "status": "active",
                "tags": "new, warm",
                "options": [{"name": "Color", "position": 1, "values": ["White", "Red"]}],
                "images": [{"src": "https://cdn.example/1.png"}],
                "variants": [
                    {
                        "id": 1,
                        "sku": "LAMP-1",
                        "price": "19.99",
                        "compare_at_price": "25.00",
                        "option1": "White",
                        "inventory_management": "shopify",
                        "inventory_policy": "deny",
                        "inventory_quantity": 3,
                    },
                    {
                        "id": 2,
                        "sku": "LAMP-2",
                        "price": "21.00",
                        "option1": "Red",
                        "inventory_management": "shopify",
                        "inventory_policy": "deny",
                        "inventory_quantity": 0,
                    },
                ],
            },
            {
                "id": 7,
                "title": "Rope",
                "vendor": "Knot",
                "product_type": "Ropes",
                "handle": "rope",
                "published_at": None,
                "variants": [{"id": 3, "sku": "", "price": "5.00", "option1": "Default Title"}],
            },
        ]
    }
)
_LAMP = {
    "TITLE": "Reading lamp",
    "DESCRIPTION": "Warm light",
    "BRAND": "Lux",
    "CATEGORY": "Lamps",
    "TAGS": "new|warm",
    "HANDLE": "lamp",
    "IMAGE_URL": "https://cdn.example/1.png",
}
_WHITE = {
    **_LAMP,
    "SKU": "LAMP-1",
    "OPTION_COLOR": "White",
    "PRICE": 19.99,
    "COMPARE_AT_PRICE": 25.0,
    "AVAILABILITY": "in_stock",
}
_RED = {
    **_LAMP,
    "SKU": "LAMP-2",
    "OPTION_COLOR": "Red",
    "PRICE": 21.0,
    "AVAILABILITY": "out_of_stock",
}
_ROPE = {
    "TITLE": "Rope",
    "BRAND": "Knot",
    "CATEGORY": "Ropes",
    "HANDLE": "rope",
    "PRICE": 5.0,
    "AVAILABILITY": "in_stock",
    "HIDDEN": True,
}
SHOPIFY_CSV_ITEMS = {
    "LAMP-1": {**_WHITE, "ITEM_GROUP_ID": "lamp"},
    "LAMP-2": {**_RED, "ITEM_GROUP_ID": "lamp"},
    "rope": _ROPE,
}
CREATED = {"CREATION_TIMESTAMP": 1704182645.0}
SHOPIFY_JSON_ITEMS = {
    "LAMP-1": {**_WHITE, **CREATED, "ITEM_GROUP_ID": "632910392"},
    "LAMP-2": {**_RED, **CREATED, "ITEM_GROUP_ID": "632910392"},
    "7": _ROPE,
}
