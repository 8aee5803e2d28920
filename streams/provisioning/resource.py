"""Pieces: what a provisioning file asks for, each found, made and removed on its own.

Nothing is remembered between runs: a piece is found by its name, through the account's lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from models.errors import CannotProvision
from streams.object_store import Objects
from streams.provisioning.aws_account import AwsAccount
from streams.provisioning.declaration import Declaration

ACTIVE = "ACTIVE"


@dataclass(frozen=True)
class FoundResource:
    """A piece that is there.

    Attributes
    ----------
    status
        As AWS says it; `STALE` for a campaign that serves an older version.
    created_s
        When it was made, where that matters.
    """

    arn: str
    status: str = ACTIVE
    reason: str = ""
    created_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether nothing is left to do."""
        return self.status == ACTIVE

    @property
    def is_failed(self) -> bool:
        """Whether it will never be ready."""
        return self.status.endswith(("FAILED", "STOPPED"))

    @property
    def is_stale(self) -> bool:
        """Whether it is to be brought up to date."""
        return self.status == "STALE"


@dataclass
class ProvisioningContext:
    """The account, the file, and what has been found of it so far, by key."""

    account: AwsAccount
    objects: Objects
    declaration: Declaration
    found: dict[str, FoundResource] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)

    def arn(self, key: str) -> str | None:
        """The ARN of a piece; None where it is not there."""
        found = self.found.get(key)
        return None if found is None else found.arn

    def needed(self, key: str) -> str:
        """The ARN of a piece that others need; raises `CannotProvision` where it is not there."""
        arn = self.arn(key)
        if arn is None:
            raise CannotProvision(f"{key}: is gone; run again")
        return arn

    def role(self) -> str:
        """The ARN of the role that Amazon Personalize is to act as."""
        role = self.declaration.role
        if role is None:
            raise CannotProvision("role: missing")
        # One that was just made has this ARN too; where there is no IAM, nobody looks.
        return role.arn or f"arn:aws:iam::{self.declaration.owner}:role/{role.name}"


Find: TypeAlias = Callable[[ProvisioningContext], FoundResource | None]


@dataclass(frozen=True)
class ManagedResource:
    """One piece.

    Attributes
    ----------
    key
        Where the file asks for it.
    label
        What it is, for people.
    find
        None where it is not there; raises `CannotProvision` where it is something else.
    make
        Makes it, or brings what was found up to date; returns before it is ready.
    remove
        Removes it and returns before it is gone; None for what goes with what it hangs on. Says
        why in a `Retained` where it must stay.
    is_replaced
        Whether a failed one is removed before it is made again.
    """

    key: str
    label: str
    find: Find
    make: Callable[[ProvisioningContext, FoundResource | None], object]
    remove: Callable[[ProvisioningContext, FoundResource], object] | None = None
    is_replaced: bool = False


class Retained(Exception):
    """A piece that is not removed, and why."""


def find_by_name(
    summaries: Iterable[dict[str, Any]], arn: str, name: str, *, by: str = "name"
) -> FoundResource | None:
    """The one of this name, whose ARN is its member `arn`."""
    for summary in summaries:
        if summary.get(by) == name:
            return found_resource(summary, arn)
    return None


def found_resource(summary: dict[str, Any], arn: str) -> FoundResource:
    """What a summary or a description says."""
    created = summary.get("creationDateTime")
    return FoundResource(
        summary[arn],
        summary.get("status", ACTIVE),
        summary.get("failureReason", ""),
        created.timestamp() if created else 0.0,
    )


def require_same(key: str, member: str, existing: object, asked: object) -> None:
    """Raise `CannotProvision` unless what is there is what the file asks for."""
    if existing != asked:
        raise CannotProvision(
            f"{key}.{member}: the one of this name that is there has {str(existing)[:200]!r}, not"
            f" {str(asked)[:200]!r}; give another name, or delete it first"
        )


def digest(*parts: str) -> str:
    """Twelve characters that tell contents apart.

    >>> digest("a")
    'ca978112ca1b'
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
