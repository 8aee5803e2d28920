"""Receipts of erasures: complete over all families of keys, and signed as anybody can check."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from models.settings import Settings
from models.state.catalogue.metadata import put_users
from models.state.messages import Part
from models.state.store import Store
from models.state.users.erasure_receipts import (
    REMOVED,
    STAYS,
    ErasureDocument,
    ErasureReceipt,
    erasure_receipt,
    is_signed_by,
)
from models.state.users.user_exports import EXPORTED
from tests.models.state.reference import NOW, click, erasure, message

KEY = "sixteen letters!"
COUNTS = {"events": 5, "sessions": 1, "links": 2, "records": 0}


def receipt_of(user: str = "ada", **settings: Any) -> ErasureReceipt:
    """The receipt of an erasure."""
    return erasure_receipt(
        Settings(**settings), user, COUNTS, erased_at=NOW, after="c0-7", is_in_effect=True
    )


@pytest.mark.unit
def test_a_receipt_names_what_was_removed_and_what_stays() -> None:
    """Every family that holds something of users is in it, with the end of what stays."""
    assert not set(REMOVED) & set(STAYS)
    assert set(REMOVED) | set(STAYS) == set(EXPORTED)
    settings: dict[str, Any] = {"group": "g", "topic_prefix": "eu.", "event_retention_s": 100}

    document = msgspec.json.decode(receipt_of(**settings).document, type=ErasureDocument)

    assert (document.group, document.user_id, document.after) == ("g", "ada", "c0-7")
    assert document.erased_until == NOW
    assert [(one.place, one.count) for one in document.removed] == [
        ("Redis, {g}:history", 5),
        ("Redis, {g}:forgotten", None),
        ("Redis, {g}:links", 2),
        ("Redis, {g}:owners", 1),
        ("Redis, {g}:users", 0),
        ("Redis, {g}:shown", None),
        ("Redis, {g}:askers", None),
        ("Redis, {g}:exposure", None),
    ]
    until = {one.place: one.until for one in document.stays}
    assert until["Kafka, eu.events.clicks and eu.events.purchases"] == NOW + 100
    assert until["Redis, {g}:erased"] == NOW + 60 * 86400
    assert "Amazon Personalize" not in until
    forwarded = receipt_of(forward_tracking_id="aws-1").document
    assert "Amazon Personalize" in forwarded


@pytest.mark.unit
def test_a_receipt_is_signed_over_its_bytes() -> None:
    """With the key alone; whatever the user's name holds."""
    receipt = receipt_of('a"d\u00e4\n', receipt_key=KEY)
    expected = hmac.new(KEY.encode(), receipt.document.encode(), hashlib.sha256).hexdigest()

    assert (receipt.algorithm, receipt.signature) == ("HMAC-SHA256", expected)
    assert is_signed_by(KEY, receipt)
    assert not is_signed_by(KEY[::-1], receipt)
    changed = receipt.document.replace("c0-7", "c0-8")
    assert not is_signed_by(KEY, msgspec.structs.replace(receipt, document=changed))
    unsigned = receipt_of()
    assert unsigned.signature is None
    assert not is_signed_by(KEY, unsigned)


@pytest.mark.unit
def test_the_key_is_long_enough_and_shown_nowhere() -> None:
    """A short one could be guessed."""
    with pytest.raises(ValidationError, match="16 characters at least"):
        Settings(receipt_key="short")
    assert KEY not in repr(Settings(receipt_key=KEY))


async def test_nothing_else_of_a_user_is_left(store: Store) -> None:
    """After an erasure only what the receipt names as staying holds anything."""
    await store.apply(
        [
            Part("p/0", -1, [
                message(0, click("a", 0, NOW - 30), session="phone"),
                message(1, click("b", 1, NOW - 20), user="ada", session="phone"),
            ])
        ],
        now_s=NOW,
    )  # fmt: skip
    await put_users(store, [("ada", {"AGE": 36})], NOW)

    await store.apply([Part("p/0", 1, [erasure(2, "ada", NOW + 1.0)])], now_s=NOW + 1)
    await store.redis.hdel(store.key("users"), "ada")  # as the tombstone on the topic does

    for key in await store.redis.keys(store.key("*")):
        family = re.sub(r"^\{[^}]*\}:([a-z]+).*$", r"\1", key.decode())
        kind = (await store.redis.type(key)).decode()
        value = {"string": store.redis.get, "hash": store.redis.hgetall}.get(kind)
        held = await (value(key) if value else store.redis.zrange(key, 0, -1))
        assert b"ada" not in key, family
        assert "ada" not in repr(held), family
        assert "phone" not in repr(held), family
