"""Managed resources: the parts of a provisioning file, each found, created and removed on its own.

No state is stored between runs: a resource is found by its name in the account's lists.
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
    """An existing resource.

    Attributes
    ----------
    status
        Status of AWS; `STALE` for an outdated resource, such as a campaign of an older version.
    created_s
        Creation time, if it matters.
    """

    arn: str
    status: str = ACTIVE
    reason: str = ""
    created_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        """True if nothing is left to do."""
        return self.status == ACTIVE

    @property
    def is_failed(self) -> bool:
        """True if it will never be ready."""
        return self.status.endswith(("FAILED", "STOPPED"))

    @property
    def is_stale(self) -> bool:
        """True if it must be updated."""
        return self.status == "STALE"


@dataclass
class ProvisioningContext:
    """The account, the declaration, and the resources found so far by key."""

    account: AwsAccount
    objects: Objects
    declaration: Declaration
    found: dict[str, FoundResource] = field(default_factory=dict)
    uploads: dict[str, str] = field(default_factory=dict)

    def arn(self, key: str) -> str | None:
        """ARN of a resource; None if it is missing."""
        found = self.found.get(key)
        return None if found is None else found.arn

    def needed(self, key: str) -> str:
        """ARN of a dependency; raises `CannotProvision` if it is missing."""
        arn = self.arn(key)
        if arn is None:
            raise CannotProvision(f"{key}: is gone; run again")
        return arn

    def role(self) -> str:
        """ARN of the role of Amazon Personalize."""
        role = self.declaration.role
        if role is None:
            raise CannotProvision("role: missing")
        # A created role has this ARN, too; without IAM it is not checked.
        return role.arn or f"arn:aws:iam::{self.declaration.owner}:role/{role.name}"


Find: TypeAlias = Callable[[ProvisioningContext], FoundResource | None]


@dataclass(frozen=True)
class ManagedResource:
    """A resource of the declaration, by functions.

    Attributes
    ----------
    key
        Its key in the file.
    label
        Its name for users.
    find
        The existing resource; None if missing. Raises `CannotProvision` if the name belongs to a
        different one.
    make
        Creates it, or updates the existing one; returns before it is ready.
    remove
        Removes it; returns before it is deleted. None for resources that are deleted with another.
        Raises `Retained` with the reason if it must stay.
    is_replaced
        True if a failed one is removed before it is created again.
    """

    key: str
    label: str
    find: Find
    make: Callable[[ProvisioningContext, FoundResource | None], object]
    remove: Callable[[ProvisioningContext, FoundResource], object] | None = None
    is_replaced: bool = False


class Retained(Exception):
    """The reason why a resource is not removed."""


def find_by_name(
    summaries: Iterable[dict[str, Any]], arn: str, name: str, *, by: str = "name"
) -> FoundResource | None:
    """The resource of a name in summaries whose ARN is the member `arn`; None without one."""
    for summary in summaries:
        if summary.get(by) == name:
            return found_resource(summary, arn)
    return None


def found_resource(summary: dict[str, Any], arn: str) -> FoundResource:
    """The resource of a summary or a description."""
    created = summary.get("creationDateTime")
    return FoundResource(
        summary[arn],
        summary.get("status", ACTIVE),
        summary.get("failureReason", ""),
        created.timestamp() if created else 0.0,
    )


def require_same(key: str, member: str, existing: object, declared: object) -> None:
    """Raise `CannotProvision` if a member of the existing resource differs from the file."""
    if existing != declared:
        raise CannotProvision(
            f"{key}.{member}: the one of this name that is there has {str(existing)[:200]!r}, not"
            f" {str(declared)[:200]!r}; give another name, or delete it first"
        )


def digest(*parts: str) -> str:
    """First twelve hexadecimal digits of the SHA-256 of texts.

    >>> digest("a")
    'ca978112ca1b'
    """
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
