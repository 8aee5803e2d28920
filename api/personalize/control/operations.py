"""The control plane: every operation on resources, by its name in the API."""

from __future__ import annotations

from api.personalize.control import (
    batch_jobs,
    campaigns,
    dataset_groups,
    dataset_jobs,
    datasets,
    filters,
    metric_attributions,
    recipes,
    recommenders,
    solution_versions,
    solutions,
    tags,
)
from api.personalize.protocol import Operation

OPERATIONS: dict[str, Operation] = {
    **dataset_groups.OPERATIONS,
    **datasets.OPERATIONS,
    **dataset_jobs.OPERATIONS,
    **recipes.OPERATIONS,
    **solutions.OPERATIONS,
    **solution_versions.OPERATIONS,
    **campaigns.OPERATIONS,
    **recommenders.OPERATIONS,
    **filters.OPERATIONS,
    **batch_jobs.OPERATIONS,
    **metric_attributions.OPERATIONS,
    **tags.OPERATIONS,
}
