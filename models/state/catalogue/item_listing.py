"""Lists of a group's items with metadata: the newest, and those that match words, by pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from models.metadata_records import Properties, Value
from models.state import layout
from models.state.catalogue.metadata import scan_fields
from models.state.store import Store

MAX_SCANNED = 3000
"""Records that one page looks through, at most about this many: some milliseconds."""

CHUNK = 500
"""Records in one read of the scan."""

_decode = msgspec.json.Decoder(dict[str, Value]).decode


class CatalogueEntry(NamedTuple):
    """An item with metadata; times in Unix seconds."""

    item_id: str
    properties: Properties
    created_at: float
    updated_at: float


class ItemPage(NamedTuple):
    """Items found, and the cursor of the rest; None at the end."""

    items: list[CatalogueEntry]
    cursor: str | None


async def newest_items(store: Store, n: int) -> list[CatalogueEntry]:
    """The items that were created last, at most n and `layout.TOPS`; three round trips."""
    (names,) = await store.shared_answers(("ZRANGE", store.key("top:fresh"), 0, n - 1, "REV"))
    indexes = [*map(int, names)]
    raws = await store.item_fields("properties", indexes)
    return await _listed(store, [*zip(indexes, raws, strict=True)])


async def matching_items(store: Store, words: str, *, cursor: str | None, n: int) -> ItemPage:
    """Items whose id or texts hold every word, in no order; all items for no word.

    A page ends after n items, or `MAX_SCANNED` records; it may hold those of one read more.

    Parameters
    ----------
    cursor
        Of the page before; None for the first page. An item that is put or removed meanwhile may
        be missed, or come twice.
    """
    wanted = words.casefold().split()
    at, n_scanned = int(cursor or 0), 0
    items: list[CatalogueEntry] = []
    while True:
        at, records = await scan_fields(store.item_stores, "properties", at, n=CHUNK)
        n_scanned += len(records)
        listed = await _listed(store, [(int(index), raw) for index, raw in records.items()])
        items += [one for one in listed if _matches(one, wanted)]
        if not at or len(items) >= n or n_scanned >= MAX_SCANNED:
            return ItemPage(items, str(at) if at else None)


async def _listed(
    store: Store, records: Sequence[tuple[int, bytes | None]]
) -> list[CatalogueEntry]:
    """Items of index and stored record; those that were removed meanwhile are left out."""
    names = await store.item_ids([index for index, _ in records])
    listed = []
    for (_, raw), name in zip(records, names, strict=True):
        if raw is not None and name is not None:
            updated_at, first_at, created_at = layout.RECORD_HEAD.unpack_from(raw)
            properties = _decode(memoryview(raw)[layout.RECORD_HEAD.size :])
            listed.append(CatalogueEntry(name, properties, created_at or first_at, updated_at))
    return listed


def _matches(item: CatalogueEntry, words: Sequence[str]) -> bool:
    """True if every word, folded, is in the id or in a text of the item.

    >>> _matches(CatalogueEntry("i9", {"NAME": "Big tent", "PRICE": 9}, 0, 0), ["tent", "i9"])
    True
    """
    if not words:
        return True
    texts = [item.item_id, *(text for text in item.properties.values() if isinstance(text, str))]
    folded = "\n".join(texts).casefold()
    return all(word in folded for word in words)
