"""Types of resources of the Amazon Personalize API, and the rules for deleting one.

A resource is identified by its path, the last part of its ARN: `campaign/spring`,
`dataset/shop/ITEMS`, and `solution/clicks/0123abcd` for a version of the solution `clicks`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from models.errors import InvalidInput
from models.personalize.resources import statuses
from models.personalize.resources.statuses import Transitions

MAX_ARN_CHARACTERS = 256

BUILTIN_CAMPAIGN_CONFIG = {"enableMetadataWithRecommendations": True}
"""`campaignConfig` of the campaigns in the settings."""

_ARN = re.compile(r"arn:[a-z0-9-]+:personalize:[^:]*:[^:]*:([A-Za-z0-9_$-]+(?:/[A-Za-z0-9_$-]+)+)")


class ResourceType(NamedTuple):
    """One type of resource. A resource has parents, such as a campaign its solution.

    Attributes
    ----------
    parts
        Parts of a path: 2, or 3 for a name within another resource.
    transitions
        The statuses that may follow each status.
    blocked_by
        Types of children that prevent deletion.
    cascades_to
        Types of children that are deleted with it, once finished.
    is_job
        Created pending, and ended by the runner that claims it.
    is_pruned
        No operation deletes one: of those that have ended only the newest are kept.
    """

    name: str
    parts: int = 2
    transitions: Transitions = statuses.COMMON
    blocked_by: tuple[str, ...] = ()
    cascades_to: tuple[str, ...] = ()
    is_job: bool = False
    is_pruned: bool = False

    @property
    def noun(self) -> str:
        """The name in operations of the API: `DatasetImportJob`."""
        return self.name.title().replace("-", "")

    @property
    def arn_member(self) -> str:
        """The member that holds its ARN: `datasetImportJobArn`."""
        return f"{self.noun[0].lower()}{self.noun[1:]}Arn"

    @property
    def plural(self) -> str:
        """Name of its quota."""
        return f"{self.name}s"


KINDS = {
    kind.name: kind
    for kind in (
        ResourceType("schema", blocked_by=("dataset",)),
        ResourceType(
            "dataset-group",
            blocked_by=("dataset", "event-tracker", "solution", "recommender"),
            cascades_to=("filter", "metric-attribution", "data-deletion-job"),
        ),
        ResourceType("dataset", parts=3, cascades_to=("dataset-import-job", "dataset-export-job")),
        ResourceType("dataset-import-job", is_job=True, is_pruned=True),
        ResourceType("dataset-export-job", is_job=True, is_pruned=True),
        ResourceType(
            "data-deletion-job", is_job=True, is_pruned=True, transitions=statuses.DELETION_JOB
        ),
        ResourceType("event-tracker"),
        ResourceType(
            "solution",
            blocked_by=("campaign",),
            cascades_to=("solution-version", "batch-inference-job", "batch-segment-job"),
        ),
        ResourceType("solution-version", parts=3, is_job=True, transitions=statuses.VERSION),
        ResourceType("campaign"),
        ResourceType("recommender", is_job=True, transitions=statuses.RECOMMENDER),
        ResourceType("filter"),
        ResourceType("batch-inference-job", is_job=True, is_pruned=True),
        ResourceType("batch-segment-job", is_job=True, is_pruned=True),
        ResourceType("metric-attribution"),
    )
}


def resource_type_of(path: str) -> ResourceType | None:
    """Type of the resource at a path; None for an invalid path.

    >>> resource_type_of("solution/clicks/0123abcd").name
    'solution-version'
    >>> resource_type_of("solution/clicks/0123abcd/more") is None
    True
    """
    first, *rest = path.split("/")
    name = "solution-version" if first == "solution" and len(rest) == 2 else first
    kind = KINDS.get(name)
    is_whole = kind is not None and first != "solution-version" and kind.parts == len(rest) + 1
    return kind if is_whole else None


class ResourcePath(NamedTuple):
    """The path of a resource, taken apart.

    Attributes
    ----------
    kind
        First part: `dataset` of `dataset/shop/ITEMS`.
    name
        All that follows: `shop/ITEMS`.
    """

    kind: str
    name: str

    @classmethod
    def of(cls, path: str) -> ResourcePath:
        """The parts of a path.

        >>> path = ResourcePath.of("dataset/shop/ITEMS")
        >>> path.kind, path.outer, path.inner, str(path)
        ('dataset', 'shop', 'ITEMS', 'dataset/shop/ITEMS')
        """
        kind, _, name = path.partition("/")
        return cls(kind, name)

    @property
    def outer(self) -> str:
        """First part of the name: the group of a dataset, the solution of a version."""
        return self.name.partition("/")[0]

    @property
    def inner(self) -> str:
        """Rest of the name, such as the type of a dataset; empty if there is none."""
        return self.name.partition("/")[2]

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def path_of(arn: str) -> str:
    """The path at the end of an ARN; any partition, region and account is accepted.

    Raises
    ------
    InvalidInput
        It is not the ARN of a resource of this service.

    Examples
    --------
    >>> path_of("arn:aws:personalize:us-east-1:000000000000:campaign/spring")
    'campaign/spring'
    """
    match = _ARN.fullmatch(arn) if len(arn) <= MAX_ARN_CHARACTERS else None
    if match is None:
        raise InvalidInput(f"{arn[:MAX_ARN_CHARACTERS]!r} is not an ARN of Amazon Personalize")
    return match[1]
