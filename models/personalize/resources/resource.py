"""One resource of the Amazon Personalize API as it is stored, and its indexes."""

from __future__ import annotations

from typing import Any

import msgspec

from models.errors import ResourceInUse
from models.personalize.resources.resource_types import ResourceType, resource_type_of
from models.personalize.resources.statuses import ACTIVE, UNFINISHED


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """One resource as it is stored.

    Attributes
    ----------
    data
        Its members as the API names them, without ARN, status, times and failure reason.
    links
        Paths of its parents, nearest first.
    hidden
        Stored with it, but not part of the API.
    number, revision
        Assigned at its creation and at its last change; they rise with time.
    """

    path: str
    status: str
    created_s: float
    updated_s: float
    data: dict[str, Any]
    links: tuple[str, ...] = ()
    tags: dict[str, str] = {}
    failure_reason: str = ""
    hidden: dict[str, Any] = {}
    number: int = 0
    revision: int = 0

    @property
    def kind(self) -> ResourceType:
        """Its type."""
        found = resource_type_of(self.path)
        if found is None:
            raise ValueError(f"{self.path!r} is not the path of a resource")
        return found

    def to_api(self, arn: str) -> dict[str, Any]:
        """All members as the API names them, with this ARN."""
        members = {
            **self.data,
            self.kind.arn_member: arn,
            "status": self.status,
            "creationDateTime": self.created_s,
            "lastUpdatedDateTime": self.updated_s,
        }
        return {**members, "failureReason": self.failure_reason} if self.failure_reason else members

    def transition(self, *statuses: str, now_s: float, failure_reason: str = "") -> Resource:
        """The resource after these statuses, one after the other.

        Raises
        ------
        ResourceInUse
            One of them may not follow the one before.
        """
        status = self.status
        for following in statuses:
            if following not in self.kind.transitions.get(status, ()):
                raise ResourceInUse(f"{self.path} is {status}: it cannot become {following}")
            status = following
        return msgspec.structs.replace(
            self, status=status, updated_s=now_s, failure_reason=failure_reason
        )

    def with_parents(self, *links: str) -> Resource:
        """The resource with these parents."""
        return msgspec.structs.replace(self, links=links)

    def with_data(self, *, now_s: float, **members: Any) -> Resource:  # noqa: ANN401  any JSON
        """The resource with these members changed; None keeps a member."""
        changed = {name: member for name, member in members.items() if member is not None}
        return msgspec.structs.replace(self, data={**self.data, **changed}, updated_s=now_s)


def index_name(kind: str, parent: str = "", *, only: str = "") -> str:
    """Index of a type of resource: of all, or of one parent's children.

    Parameters
    ----------
    only
        `unfinished`: those whose status will change; `active`: those that are ACTIVE.
    """
    return f"{kind}:{only}:{parent}"


def indexes_of(resource: Resource) -> set[str]:
    """All indexes of a resource."""
    states = [""]
    if resource.status in UNFINISHED:
        states.append("unfinished")
    if resource.status == ACTIVE:
        states.append("active")
    parents = ("", *resource.links)
    name = resource.kind.name
    return {index_name(name, parent, only=only) for parent in parents for only in states}
