"""The control plane: every operation on resources, by its name in the API."""

from __future__ import annotations

from api.personalize import (
    attributions,
    batch,
    campaigns,
    datasets,
    filters,
    groups,
    recipes,
    recommenders,
    solutions,
    tags,
    transfers,
    versions,
)
from api.personalize.wire import Operation

OPERATIONS: dict[str, Operation] = {
    **groups.OPERATIONS,
    **datasets.OPERATIONS,
    **transfers.OPERATIONS,
    **recipes.OPERATIONS,
    **solutions.OPERATIONS,
    **versions.OPERATIONS,
    **campaigns.OPERATIONS,
    **recommenders.OPERATIONS,
    **filters.OPERATIONS,
    **batch.OPERATIONS,
    **attributions.OPERATIONS,
    **tags.OPERATIONS,
}
