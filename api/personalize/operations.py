"""Every implemented operation by its name.

`python -m api.personalize.operations` prints the tables in docs/personalize-compatibility.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from api.personalize import action_recommendations, ingestion, runtime
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
from api.personalize.refused_members import members_table
from api.personalize.service_model import SERVICES, service_operations

OPERATIONS: Mapping[str, Operation] = {
    "PutEvents": ingestion.put_events,
    "PutItems": ingestion.put_items,
    "PutUsers": ingestion.put_users,
    "PutActions": ingestion.put_actions,
    "PutActionInteractions": ingestion.put_action_interactions,
    "GetRecommendations": runtime.get_recommendations,
    "GetActionRecommendations": action_recommendations.get_action_recommendations,
    "GetPersonalizedRanking": runtime.get_personalized_ranking,
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


def operations_table() -> str:
    """A Markdown table of all operations of the API, with those that are implemented."""
    lines = ["| service | operation | here |", "|---|---|---|"]
    for service in SERVICES:
        for name in sorted(
            name for name, one in service_operations().items() if one.service == service
        ):
            here = "done" if name in OPERATIONS else "answers `InvalidInputException`"
            lines.append(f"| {service} | {name} | {here} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for table in (operations_table(), members_table()):
        print(table, end="\n\n")  # noqa: T201  the document is filled from it
