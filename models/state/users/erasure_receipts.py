"""Receipts of erasures: what was removed of a user and from where, what stays, and a signature.

What becomes of which family of keys stands in `REMOVED` and `STAYS`; a test compares both with the
families that hold something of users (`models.state.users.user_exports`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from models.action_groups import actions_group
from models.settings import Settings

REMOVED: Final[Mapping[str, tuple[str, str]]] = {
    "history": ("events", "the histories of the user and of the user's sessions"),
    "forgotten": ("", "ids of events that these histories had trimmed"),
    "links": ("links", "links from sessions to the user"),
    "owners": ("sessions", "names of the user and sessions by the numbers of their histories"),
    "users": ("records", "the user's metadata"),
    "shown": ("", "lists that were served to the user"),
    "askers": ("", "that these lists were the user's"),
    "exposure": ("", "the user's arms and outcomes in experiments"),
}
"""Families of keys from which an erasure removes: the count of it, and what it is."""

STAYS: Final[Mapping[str, str]] = {
    "takers": "numbers of histories, which lead to no name any more",
    "recent": "hashes of event ids with such numbers, until newer events take their place",
    "erased": "digests of the user's and sessions' names, which keep what was sent before away",
}
"""Families of keys of which something stays in Redis, and what."""


NO_COUNTS: Mapping[str, int] = MappingProxyType({})


class Removed(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Data removed from one place, counted when the erasure was sent where there is a count."""

    place: str
    what: str
    count: int | None = None


class Staying(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Data left in one place; until when at the latest (Unix seconds), where that is known."""

    place: str
    what: str
    until: float | None = None


class ErasureDocument(msgspec.Struct, frozen=True, rename="camel"):
    """Content of a receipt.

    Attributes
    ----------
    erased_until
        Events of the user up to this time are erased, also those that come later; Unix seconds.
    after
        Position of the erasure in Kafka, a token for `?after=`.
    is_in_effect
        False if it was accepted and had not taken effect yet when the receipt was written.
    """

    kind: Literal["erasure"]
    version: int
    group: str
    user_id: str
    erased_until: float
    after: str
    is_in_effect: bool
    removed: list[Removed]
    stays: list[Staying]


class ErasureReceipt(msgspec.Struct, frozen=True, rename="camel"):
    """A receipt of an erasure."""

    document: Annotated[
        str,
        Meta(description="JSON: what was removed and from where, and what stays until when."),
    ]
    algorithm: Literal["HMAC-SHA256"]
    signature: Annotated[
        str | None,
        Meta(
            description="Of the document's bytes in UTF-8, with RECOMMENDER_RECEIPT_KEY, in "
            "hexadecimal digits; null without such a key."
        ),
    ]


def erasure_receipt(
    settings: Settings,
    user_id: str,
    counts: Mapping[str, int],
    *,
    of_actions: Mapping[str, int] = NO_COUNTS,
    erased_at: float,
    after: str,
    is_in_effect: bool,
) -> ErasureReceipt:
    """The receipt of an erasure.

    `counts` are those of `Store.user_data_counts` before it, and `of_actions` of the state group of
    the group's actions, which is named where there was something.
    """
    held = {settings.group: counts}
    if any(of_actions.values()):
        held[actions_group(settings.group)] = of_actions
    document = ErasureDocument(
        "erasure",
        1,
        settings.group,
        user_id,
        erased_at,
        after,
        is_in_effect,
        [
            Removed(f"Redis, {{{group}}}:{family}", what, found.get(counted))
            for group, found in held.items()
            for family, (counted, what) in REMOVED.items()
        ],
        _stays(settings, erased_at, held),
    )
    text = msgspec.json.encode(document)
    key = settings.receipt_key.get_secret_value()
    signature = hmac.new(key.encode(), text, hashlib.sha256).hexdigest() if key else None
    return ErasureReceipt(text.decode(), "HMAC-SHA256", signature)


def is_signed_by(key: str, receipt: ErasureReceipt) -> bool:
    """True if a receipt is as it was signed with this key."""
    expected = hmac.new(key.encode(), receipt.document.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, receipt.signature or "")


def _stays(settings: Settings, erased_at: float, groups: Iterable[str]) -> list[Staying]:
    prefix = settings.topic_prefix
    until = {"erased": erased_at + settings.kept_tombstones_s}
    found = [
        Staying(f"Redis, {{{group}}}:{family}", what, until.get(family))
        for group in groups
        for family, what in STAYS.items()
    ]
    events_until = erased_at + settings.event_retention_s
    found += [
        Staying(
            f"Kafka, {prefix}events.clicks and {prefix}events.purchases",
            "messages as they were sent, which take no effect again",
            events_until,
        ),
        Staying(
            f"Kafka, {prefix}recommendations.served",
            "lists as they were served, which take no effect again",
            erased_at + settings.served_retention_s,
        ),
        Staying(
            f"Kafka, {prefix}ranking.examples",
            "numbers of what could be chosen from, without the user's name",
            events_until,
        ),
        Staying(
            f"Kafka, {prefix}events.dead-letters",
            "messages that had failed, which take no effect if they are replayed",
            erased_at + settings.dead_letter_retention_s,
        ),
        Staying(
            f"Kafka, {prefix}users",
            "the metadata record, until Kafka compacts the topic, which has its removal",
        ),
        Staying(
            f"Kafka, {prefix}audit",
            "that a user was erased, by a hash of the name",
            erased_at + settings.audit_retention_s,
        ),
        Staying("snapshots", "all of it in those saved before, until they are removed"),
    ]
    if settings.forwarded_trackers:
        found.append(
            Staying(
                "Amazon Personalize",
                "events that were forwarded, until you have them deleted there",
            )
        )
    return found
