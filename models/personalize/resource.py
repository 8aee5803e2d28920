"""One resource of the Amazon Personalize API as it is stored, and the indexes it is found in."""

from __future__ import annotations

from typing import Any

import msgspec

from models.errors import ResourceInUse
from models.personalize.resource_types import ResourceType, resource_type_of
from models.personalize.statuses import ACTIVE, UNFINISHED


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """One resource as it is stored.

    Attributes
    ----------
    data
        Its members as the API names them, but for the ARN, status, times and failure reason.
    links
        Paths of what it hangs on, nearest first.
    hidden
        What is kept with it and no operation describes.
    number, revision
        Given when it is stored, of its creation and of its last change; they rise with time.
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
        """What it is."""
        found = resource_type_of(self.path)
        if found is None:
            raise ValueError(f"{self.path!r} is no path of a resource")
        return found

    def to_api(self, arn: str) -> dict[str, Any]:
        """All its members as the API names them, with this ARN."""
        members = {
            **self.data,
            self.kind.arn_member: arn,
            "status": self.status,
            "creationDateTime": self.created_s,
            "lastUpdatedDateTime": self.updated_s,
        }
        return {**members, "failureReason": self.failure_reason} if self.failure_reason else members

    def transition(self, *statuses: str, now_s: float, failure_reason: str = "") -> Resource:
        """The resource after going through these statuses.

        Raises
        ------
        ResourceInUse
            Where one of them may not follow the one before.
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
        """The resource as one that hangs on these."""
        return msgspec.structs.replace(self, links=links)

    def with_data(self, *, now_s: float, **members: Any) -> Resource:  # noqa: ANN401  any JSON
        """The resource with these members changed; None leaves a member as it is."""
        changed = {name: member for name, member in members.items() if member is not None}
        return msgspec.structs.replace(self, data={**self.data, **changed}, updated_s=now_s)


def index_name(kind: str, parent: str = "", *, only: str = "") -> str:
    """The index of a kind of resource: of all, or of those that hang on one.

    Parameters
    ----------
    only
        `unfinished`: those that a status is still to follow; `active`: those that are ACTIVE.
    """
    return f"{kind}:{only}:{parent}"


def indexes_of(resource: Resource) -> set[str]:
    """Every index that a resource is in."""
    states = [""]
    if resource.status in UNFINISHED:
        states.append("unfinished")
    if resource.status == ACTIVE:
        states.append("active")
    parents = ("", *resource.links)
    name = resource.kind.name
    return {index_name(name, parent, only=only) for parent in parents for only in states}
