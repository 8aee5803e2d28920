"""Metadata records of items and users: their schema, and categories and creation of an item.

A record is a whole: a newer one, by `at`, replaces an older one. On the topics `items`
and `users` it is a JSON text with the key `<group>/<id>`; a message without a value removes it.

    {"group": "shop", "itemId": "i9", "at": 1790000000.5,
     "properties": {"GENRES": "horror|space", "PRICE": 9.5}}

One that was imported in bulk names the job, for the next import replaces it: `importedBy`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from models.action_groups import PREFIX
from models.errors import InvalidRecord
from models.events import Finite, Id, in_seconds
from models.item_terms import embedding_of

RecordKind = Literal["items", "users"]
"""A topic by its attribute of `streams.kafka.topics.Topics`."""

Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Value: TypeAlias = str | bool | Whole | Finite | None
"""A text may hold several values, separated by `|`."""

Properties: TypeAlias = Mapping[str, Value]

GROUP = r"[A-Za-z0-9_-]{1,63}"
"""Pattern of a dataset group's name."""

STATE_GROUP = rf"(?:{re.escape(PREFIX)})?{GROUP}"
"""Pattern of the group of a record: a dataset group, or that of its actions."""

MAX_CHARACTERS: Mapping[RecordKind, int] = {"items": 32_000, "users": 24_000}
"""Length of a record's properties as JSON text."""

MAX_RECORD_BYTES = 512 * 1024
"""Largest message: the longest properties and two ids, every letter escaped."""

MAX_CATEGORIES = 5
MAX_CATEGORY_CHARACTERS = 64

CREATION = ("CREATION_TIMESTAMP", "creationTimestamp")
HIDDEN = "HIDDEN"
"""Property that keeps its item out of every answer, while it is true."""

AVAILABILITY = "AVAILABILITY"
"""Property that keeps its item out of every answer, while it says that there is none."""

UNAVAILABLE = frozenset(
    ("outofstock", "soldout", "discontinued", "unavailable", "notavailable", "no", "false", "0")
)
"""Values of `AVAILABILITY` without blanks and signs: those of Google, schema.org and shops."""

EXPIRY = "expiresat"
"""Folded name of the property with the moment from which its item is in no answer."""

VARIANT = "ITEM_GROUP_ID"
"""Property that names the product of which an item is a variant: an answer has one of them."""

LATEST_S = 2**32 - 1
"""Moments of expiry are kept in four bytes: what comes later never does."""

PREFERRED = ("categor", "genre")
"""Beginnings of names of columns that hold categories."""

_encode = msgspec.json.Encoder().encode


class MetadataRecord(NamedTuple):
    """Properties of one item or user as of a time; without properties, its removal.

    `imported_by` is the import in bulk that the record is of; empty for one that was put.
    """

    group: str
    id: str
    properties: Properties | None
    at: float
    imported_by: str = ""


GroupName = Annotated[str, Meta(pattern=rf"^{STATE_GROUP}\Z")]


class _ItemMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    group: GroupName
    item_id: Id
    properties: dict[str, Value]
    at: float
    imported_by: Id | None = None


class _UserMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    group: GroupName
    user_id: Id
    properties: dict[str, Value]
    at: float
    imported_by: Id | None = None


_item_decoder = msgspec.json.Decoder(_ItemMessage)
_user_decoder = msgspec.json.Decoder(_UserMessage)


def parse_record(
    kind: RecordKind, key: bytes, raw: bytes, *, now_s: float, future_limit_s: float = 300.0
) -> MetadataRecord:
    """Parse a message of the topic of this kind.

    Raises
    ------
    InvalidRecord
        With the member that breaks the schema, and the rule. A record from further in the future
        than `future_limit_s` breaks one too: no later one could replace it.

    Examples
    --------
    >>> raw = b'{"group":"shop","itemId":"i","properties":{"GENRE":"a|b"},"at":1700000000}'
    >>> parse_record("items", b"shop/i", raw, now_s=1.8e9).properties
    {'GENRE': 'a|b'}
    >>> parse_record("items", b"shop/i", b"", now_s=1.8e9)
    MetadataRecord(group='shop', id='i', properties=None, at=1800000000.0, imported_by='')
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise InvalidRecord(f"message of {len(raw)} bytes is over the limit of {MAX_RECORD_BYTES}")
    if not raw:
        return _removal(key, now_s)
    try:
        if kind == "items":
            item = _item_decoder.decode(raw)
            record = MetadataRecord(
                item.group, item.item_id, item.properties, item.at, item.imported_by or ""
            )
        else:
            user = _user_decoder.decode(raw)
            record = MetadataRecord(
                user.group, user.user_id, user.properties, user.at, user.imported_by or ""
            )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(str(error)) from error
    if not 0 < record.at <= now_s + future_limit_s:
        raise InvalidRecord("must be after 1970 and not in the future - at `$.at`")
    properties_text(kind, record.properties or {})
    return record


def _removal(key: bytes, now_s: float) -> MetadataRecord:
    try:
        group, _, name = key.decode().partition("/")
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"the key of a removal: {error}") from error
    if not re.fullmatch(STATE_GROUP, group) or not 1 <= len(name) <= 256:
        raise InvalidRecord("the key of a removal is <group>/<id>")
    return MetadataRecord(group, name, None, now_s)


def encode_record(kind: RecordKind, record: MetadataRecord) -> tuple[bytes, bytes]:
    """Key and value of the record's message; the value of a removal is empty.

    Raises
    ------
    InvalidRecord
        The group's name is invalid.

    Examples
    --------
    >>> encode_record("users", MetadataRecord("shop", "ada", {"AGE": 36}, 1.5))
    (b'shop/ada', b'{"group":"shop","userId":"ada","properties":{"AGE":36},"at":1.5}')
    """
    if not re.fullmatch(STATE_GROUP, record.group):
        raise InvalidRecord(f"not a group's name: {record.group!r}")
    key = f"{record.group}/{record.id}".encode()
    if record.properties is None:
        return key, b""
    make = _ItemMessage if kind == "items" else _UserMessage
    return key, _encode(
        make(
            record.group,
            record.id,
            dict(record.properties),
            record.at,
            imported_by=record.imported_by or None,
        )
    )


def validate_properties(kind: RecordKind, name: str, properties: Mapping[str, Any]) -> Properties:
    """Validate a record's id and properties; returns the properties.

    Raises
    ------
    InvalidRecord
        The id has not 1 to 256 characters, a value is not a text, number or truth value, they
        exceed `MAX_CHARACTERS`, an embedding is not numbers, or an expiry no time.
    """
    if not 1 <= len(name) <= 256 or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise InvalidRecord(f"an id has 1 to 256 characters: {name[:300]!a}")
    try:
        valid: Properties = msgspec.convert(dict(properties), dict[str, Value])
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidRecord(f"properties of {name!r}: {error}") from error
    properties_text(kind, valid)
    return valid


def properties_text(kind: RecordKind, properties: Properties) -> bytes:
    """The properties as JSON text; raises `InvalidRecord` for too long ones, or a bad embedding."""
    if kind == "items":
        embedding_of(properties)
        expires_at(properties)
    try:
        text = _encode(properties)
    except UnicodeEncodeError as error:
        raise InvalidRecord(f"properties: {error}") from error
    # Bytes are an upper bound of characters, which are counted only beyond it.
    if len(text) > MAX_CHARACTERS[kind]:
        length = len(text.decode())
        if length > MAX_CHARACTERS[kind]:
            raise InvalidRecord(
                f"properties of {length} characters are over the limit of {MAX_CHARACTERS[kind]}"
            )
    return text


def normalized(name: str) -> str:
    """Folded form of a field's name, the same for all its spellings.

    >>> {normalized(name) for name in ("NUM_RATINGS", "numRatings", "num_ratings")}
    {'numratings'}
    """
    return name.replace("_", "").lower()


def named_values(properties: Properties | None, names: Iterable[str]) -> dict[str, Value]:
    """Values of the named properties, under the names as asked for; absent ones are left out.

    >>> named_values({"numRatings": 7, "GENRE": "war"}, ["NUM_RATINGS", "price"])
    {'NUM_RATINGS': 7}
    """
    wanted = {normalized(name): name for name in names}
    found = ((normalized(name), value) for name, value in (properties or {}).items())
    return {wanted[name]: value for name, value in found if name in wanted}


def created_at(properties: Properties) -> float | None:
    """Creation time of an item, Unix seconds; None if its properties have none.

    >>> created_at({"CREATION_TIMESTAMP": 1_700_000_000_500})
    1700000000.5
    """
    for name in CREATION:
        value = properties.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
            return float(in_seconds(value))
    return None


def is_hidden(properties: Properties, now_s: float = 0.0) -> bool:
    """True if the properties say that the item is not to be shown: by properties spelled anyhow.

    By `HIDDEN`, by `AVAILABILITY`, or by an expiry that has passed.

    >>> [is_hidden({"hidden": value}) for value in (True, "True", 1, "no", 0, None)]
    [True, True, True, False, False, False]
    >>> [is_hidden({"availability": value}) for value in ("out of stock", False, "in_stock", 3)]
    [True, True, False, False]
    >>> is_hidden({"expiresAt": 1_800_000_000}, 1_799_999_999), is_hidden({"expiresAt": 5}, 5)
    (False, True)
    """
    found = named_values(properties, (HIDDEN, AVAILABILITY))
    value, stock = found.get(HIDDEN), found.get(AVAILABILITY)
    if value == 1 or (isinstance(value, str) and value.casefold() in {"true", "1"}):
        return True
    if stock is not None:
        text = str(stock).casefold().rpartition("/")[2]
        if re.sub(r"[\s_-]", "", text) in UNAVAILABLE:
            return True
    expiry = expires_at(properties)
    return expiry is not None and expiry <= now_s


def expires_at(properties: Properties) -> int | None:
    """The whole second from which an item is in no answer, Unix time; None for never.

    A number of seconds or milliseconds, or a text of ISO 8601, in UTC where it names no zone.

    >>> expires_at({"EXPIRES_AT": "2027-01-15T08:00:00Z"}), expires_at({"expiresAt": None})
    (1800000000, None)

    Raises
    ------
    InvalidRecord
        It is no moment.
    """
    value = next((value for name, value in properties.items() if normalized(name) == EXPIRY), None)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise InvalidRecord(
                f"EXPIRES_AT: not a time of ISO 8601 or a number: {value[:40]!r}"
            ) from error
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, bool):
        raise InvalidRecord("EXPIRES_AT: a truth value, and not a time")
    else:
        seconds = float(in_seconds(value))
    if not seconds >= 1:
        raise InvalidRecord(f"EXPIRES_AT: not after 1970: {value}")
    return int(min(seconds, LATEST_S))


def product_of(properties: Properties) -> int:
    """A number of 52 bits for the product of which an item is a variant; 0 without one.

    >>> product_of({"ITEM_GROUP_ID": "shoe"}) == product_of({"itemGroupId": " Shoe"}) > 0
    True
    >>> product_of({"ITEM_GROUP_ID": ""}), product_of({})
    (0, 0)
    """
    value = named_values(properties, (VARIANT,)).get(VARIANT)
    text = "" if value is None else str(value).strip().casefold()
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()
    return max(1, int.from_bytes(digest) >> 12)


def categories_of(properties: Properties) -> list[str]:
    """Distinct categories that an item is listed under, `<column>=<value>`.

    Any short text is one, up to `MAX_CATEGORIES`; columns named for categories come first.

    >>> categories_of({"TITLE": "Alien", "GENRES": "horror|space", "YEAR": 1979})
    ['GENRES=horror', 'GENRES=space', 'TITLE=Alien']
    """
    found = dict.fromkeys(
        f"{column}={value}"
        for column in sorted(properties, key=lambda name: not name.lower().startswith(PREFERRED))
        if isinstance(text := properties[column], str) and len(column) <= MAX_CATEGORY_CHARACTERS
        for word in text.split("|")
        if 1 <= len(value := word.strip()) <= MAX_CATEGORY_CHARACTERS
    )
    return list(found)[:MAX_CATEGORIES]
