"""Callers of the HTTP API: who they are, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass

from models.api_keys import ALL_GROUPS, Role


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request, with its roles.

    Attributes
    ----------
    id
        Id of the API key, or of the AWS access key; empty for everybody.
    name
        Name of the key, for the audit log.
    groups
        Dataset groups that its roles are for; `*` for all.
    """

    id: str
    name: str
    roles: frozenset[Role]
    groups: frozenset[str]

    @property
    def is_of_all_groups(self) -> bool:
        """True if its roles are for every dataset group."""
        return ALL_GROUPS in self.groups

    def may(self, role: Role, group: str) -> bool:
        """True if it has a role in a dataset group."""
        return role in self.roles and (group in self.groups or ALL_GROUPS in self.groups)


EVERYBODY = Caller("", "everybody", frozenset(Role), frozenset((ALL_GROUPS,)))
"""The caller of an API that asks for no keys."""

NOBODY = Caller("", "nobody", frozenset(), frozenset())
"""A caller without a key."""
