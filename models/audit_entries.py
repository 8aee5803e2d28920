"""Entries of the audit log: who did what, when and from where. They hold no secret."""

from __future__ import annotations

import hashlib

import msgspec

MAX_TARGETS = 20


class AuditEntry(msgspec.Struct, frozen=True):
    """One action that changed something, or was about to.

    Attributes
    ----------
    at
        Unix time.
    actor, name
        Id and name of the API key or AWS access key; `cli`, and the user of the operating system.
    action
        Such as `erase_user`, `put_items`, `create_key`, or an operation of Personalize.
    group
        Dataset group; empty where it concerns none or several.
    targets
        What it was done to; a user by `pseudonym`, for an audit log outlives what is erased.
    address
        Address of the caller; behind a proxy the proxy's, unless that is trusted.
    """

    at: float
    actor: str
    name: str
    action: str
    group: str
    targets: list[str]
    address: str


def pseudonym(group: str, user_id: str) -> str:
    """A user id as the audit log names it: who knows the id can find it, nobody can read it.

    >>> pseudonym("shop", "ada")
    'user:55c2a8c58fcbe1cc'
    """
    return f"user:{hashlib.sha256(f'{group}/{user_id}'.encode()).hexdigest()[:16]}"


def encode_entry(entry: AuditEntry) -> bytes:
    """The entry as JSON."""
    return msgspec.json.encode(entry)
