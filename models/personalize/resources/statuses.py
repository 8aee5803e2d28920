"""Documented statuses of resources of the Amazon Personalize API, and their transitions.

The words are verbatim, with a space before the underscore: clients compare them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

ACTIVE, INACTIVE = "ACTIVE", "INACTIVE"
CREATE_PENDING, CREATE_IN_PROGRESS = "CREATE PENDING", "CREATE IN_PROGRESS"
CREATE_FAILED = "CREATE FAILED"
CREATE_STOPPING, CREATE_STOPPED = "CREATE STOPPING", "CREATE STOPPED"
DELETE_PENDING, DELETE_IN_PROGRESS = "DELETE PENDING", "DELETE IN_PROGRESS"
STOP_PENDING, STOP_IN_PROGRESS = "STOP PENDING", "STOP IN_PROGRESS"
START_PENDING, START_IN_PROGRESS = "START PENDING", "START IN_PROGRESS"
PENDING, IN_PROGRESS, COMPLETED, FAILED = "PENDING", "IN_PROGRESS", "COMPLETED", "FAILED"

STARTED = {
    CREATE_PENDING: CREATE_IN_PROGRESS,
    PENDING: IN_PROGRESS,
    DELETE_PENDING: DELETE_IN_PROGRESS,
    START_PENDING: START_IN_PROGRESS,
}
"""Status after the work of a resource begins."""

SUCCEEDED = {
    CREATE_IN_PROGRESS: ACTIVE,
    IN_PROGRESS: COMPLETED,
    CREATE_STOPPING: CREATE_STOPPED,
    START_IN_PROGRESS: ACTIVE,
}
FAILING = {
    CREATE_IN_PROGRESS: CREATE_FAILED,
    IN_PROGRESS: FAILED,
    CREATE_STOPPING: CREATE_STOPPED,
    START_IN_PROGRESS: INACTIVE,
}
"""Status after the work has ended, with success or not."""

UNFINISHED = frozenset(
    {CREATE_PENDING, CREATE_IN_PROGRESS, CREATE_STOPPING, PENDING, IN_PROGRESS, DELETE_PENDING}
    | {DELETE_IN_PROGRESS, STOP_PENDING, STOP_IN_PROGRESS, START_PENDING, START_IN_PROGRESS}
)
"""Statuses that another one will follow."""

Transitions = Mapping[str, frozenset[str]]
"""Statuses that may follow each status."""


def _transitions(*chains: tuple[str, ...]) -> Transitions:
    found: dict[str, set[str]] = {}
    for chain in chains:
        for before, after in itertools.pairwise(chain):
            found.setdefault(before, set()).add(after)
    return {before: frozenset(after) for before, after in found.items()}


_COMMON = (
    (CREATE_PENDING, CREATE_IN_PROGRESS, ACTIVE, DELETE_PENDING, DELETE_IN_PROGRESS),
    (CREATE_IN_PROGRESS, CREATE_FAILED, DELETE_PENDING),
)
COMMON = _transitions(*_COMMON)
VERSION = _transitions(
    *_COMMON,
    (CREATE_PENDING, CREATE_STOPPED),
    (CREATE_IN_PROGRESS, CREATE_STOPPING, CREATE_STOPPED),
)
RECOMMENDER = _transitions(
    *_COMMON,
    (ACTIVE, STOP_PENDING, STOP_IN_PROGRESS, INACTIVE, DELETE_PENDING),
    (INACTIVE, START_PENDING, START_IN_PROGRESS, ACTIVE),
    (START_IN_PROGRESS, INACTIVE),
)
DELETION_JOB = _transitions((PENDING, IN_PROGRESS, COMPLETED), (IN_PROGRESS, FAILED))
