"""Resources of Amazon Personalize, in the order of their dependencies."""

from __future__ import annotations

import functools
import math
from typing import Any

import botocore.exceptions as boto

from streams.provisioning.aws_account import code_of
from streams.provisioning.bucket_and_role import source_digest, source_url
from streams.provisioning.declaration import (
    AUTOMATIC,
    Declaration,
    DeclaredCampaign,
    DeclaredDataset,
    DeclaredSolution,
    schema_text,
)
from streams.provisioning.resource import (
    FoundResource,
    ManagedResource,
    ProvisioningContext,
    Retained,
    find_by_name,
    found_resource,
    require_same,
)

MAX_IMPORT_JOBS = 20
"""Most attempts at a failed import job, each under a name of its own."""


def service_resources(declaration: Declaration) -> list[ManagedResource]:
    """All resources of Amazon Personalize in the file."""
    name = declaration.group
    group = ManagedResource(
        "group", f"dataset group {name}", _group, _make_group, _remove_group, is_replaced=True
    )
    resources = [group]
    for kind in declaration.datasets:
        resources += _dataset_resources(declaration, kind)
    if declaration.tracker is not None:
        label = f"event tracker {declaration.tracker.name}"
        resources.append(
            ManagedResource(
                "tracker", label, _tracker, _make_tracker, _remove_tracker, is_replaced=True
            )
        )
    for name, solution in declaration.solutions.items():
        resources += _solution_resources(name, solution)
    resources += [_campaign_resource(name, one) for name, one in declaration.campaigns.items()]
    resources += [
        _filter_resource(name, one.expression) for name, one in declaration.filters.items()
    ]
    return resources


def recipe_arn(recipe: str) -> str:
    """The ARN of a recipe.

    >>> recipe_arn("aws-popularity-count")
    'arn:aws:personalize:::recipe/aws-popularity-count'
    """
    return f"arn:aws:personalize:::recipe/{recipe}"


def _group(context: ProvisioningContext) -> FoundResource | None:
    groups = context.account.listed("list_dataset_groups", "datasetGroups")
    return find_by_name(groups, "datasetGroupArn", context.declaration.group)


def _make_group(context: ProvisioningContext, _: FoundResource | None) -> None:
    context.account.personalize.create_dataset_group(name=context.declaration.group)


def _remove_group(context: ProvisioningContext, found: FoundResource) -> None:
    context.account.personalize.delete_dataset_group(datasetGroupArn=found.arn)


def _dataset_resources(declaration: Declaration, kind: str) -> list[ManagedResource]:
    key, name = f"datasets.{kind}", f"{declaration.group[:50]}-{kind}"
    dataset = declaration.datasets[kind]  # type: ignore[index]
    resources = [_schema_piece(dataset, key, name), _dataset_piece(key, name, kind.upper())]
    return resources + ([_import_resource(key, kind)] if dataset.source is not None else [])


def _schema_piece(dataset: DeclaredDataset, key: str, name: str) -> ManagedResource:
    text = functools.cache(lambda: schema_text(dataset, key))

    def find(context: ProvisioningContext) -> FoundResource | None:
        found = find_by_name(context.account.listed("list_schemas", "schemas"), "schemaArn", name)
        if found is not None:
            answer = context.account.personalize.describe_schema(schemaArn=found.arn)
            require_same(key, "schema", answer["schema"]["schema"], text())
        return found

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        context.account.personalize.create_schema(name=name, schema=text())

    def remove(context: ProvisioningContext, found: FoundResource) -> None:
        try:
            context.account.personalize.delete_schema(schemaArn=found.arn)
        except boto.ClientError as error:
            if code_of(error) == "ResourceInUse":
                raise Retained("a dataset of another group has it") from error
            raise

    return ManagedResource(f"{key}.schema", f"schema {name}", find, make, remove)


def _dataset_piece(key: str, name: str, kind: str) -> ManagedResource:
    def find(context: ProvisioningContext) -> FoundResource | None:
        group = context.arn("group")
        if group is None:
            return None
        listed = context.account.listed("list_datasets", "datasets", datasetGroupArn=group)
        found = find_by_name(listed, "datasetArn", kind, by="datasetType")
        if found is not None:
            answer = context.account.personalize.describe_dataset(datasetArn=found.arn)
            require_same(
                key, "schema", answer["dataset"]["schemaArn"], context.arn(f"{key}.schema")
            )
        return found

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        context.account.personalize.create_dataset(
            name=name,
            datasetType=kind,
            datasetGroupArn=context.needed("group"),
            schemaArn=context.needed(f"{key}.schema"),
        )

    def remove(context: ProvisioningContext, found: FoundResource) -> None:
        context.account.personalize.delete_dataset(datasetArn=found.arn)

    return ManagedResource(key, f"dataset {name}", find, make, remove, is_replaced=True)


def _import_resource(key: str, kind: str) -> ManagedResource:
    def job_name(context: ProvisioningContext) -> str:
        return f"{context.declaration.group[:34]}-{kind}-{source_digest(context, kind)}"

    def jobs(context: ProvisioningContext, dataset: str) -> dict[str, FoundResource]:
        """Import jobs of these rows by name: the first, and retries of failed ones."""
        first = job_name(context)
        listed = context.account.listed(
            "list_dataset_import_jobs", "datasetImportJobs", datasetArn=dataset
        )
        return {
            one["jobName"]: found_resource(one, "datasetImportJobArn")
            for one in listed
            if one["jobName"] == first or one["jobName"].startswith(f"{first}-")
        }

    def find(context: ProvisioningContext) -> FoundResource | None:
        dataset = context.arn(key)
        found = list(jobs(context, dataset).values()) if dataset else []
        going = [one for one in found if not one.is_failed]
        return max(going or found, key=lambda one: one.created_s, default=None)

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        dataset = context.needed(key)
        taken, first = jobs(context, dataset), job_name(context)
        names = [first, *(f"{first}-{n}" for n in range(2, MAX_IMPORT_JOBS + 1))]
        start_import(context, kind, next((name for name in names if name not in taken), names[-1]))

    return ManagedResource(f"{key}.import", f"import of {kind}", find, make)


def start_import(context: ProvisioningContext, kind: str, name: str) -> str:
    """Start the import of a dataset's rows; gives the ARN of the job."""
    return context.account.personalize.create_dataset_import_job(
        jobName=name,
        datasetArn=context.needed(f"datasets.{kind}"),
        dataSource={"dataLocation": source_url(context, kind)},
        roleArn=context.role(),
        importMode="FULL",
    )["datasetImportJobArn"]


def _tracker(context: ProvisioningContext) -> FoundResource | None:
    group, tracker = context.arn("group"), context.declaration.tracker
    if group is None or tracker is None:
        return None
    listed = context.account.listed("list_event_trackers", "eventTrackers", datasetGroupArn=group)
    for one in listed:
        require_same("tracker", "name", one["name"], tracker.name)
        return found_resource(one, "eventTrackerArn")
    return None


def _make_tracker(context: ProvisioningContext, _: FoundResource | None) -> None:
    if context.declaration.tracker is not None:
        context.account.personalize.create_event_tracker(
            name=context.declaration.tracker.name, datasetGroupArn=context.needed("group")
        )


def _remove_tracker(context: ProvisioningContext, found: FoundResource) -> None:
    context.account.personalize.delete_event_tracker(eventTrackerArn=found.arn)


def _solution_resources(name: str, solution: DeclaredSolution) -> list[ManagedResource]:
    key = f"solutions.{name}"
    recipe = None if solution.recipe == AUTOMATIC else recipe_arn(solution.recipe)

    def find(context: ProvisioningContext) -> FoundResource | None:
        group = context.arn("group")
        if group is None:
            return None
        listed = context.account.listed("list_solutions", "solutions", datasetGroupArn=group)
        found = find_by_name(listed, "solutionArn", name)
        if found is not None:
            existing = context.account.personalize.describe_solution(solutionArn=found.arn)[
                "solution"
            ]
            require_same(key, "recipe", existing.get("recipeArn"), recipe)
        return found

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        request: dict[str, Any] = {"performAutoML": True} if recipe is None else {}
        if recipe is not None:
            request["recipeArn"] = recipe
        if solution.event_type is not None:
            request["eventType"] = solution.event_type
        # Training is started explicitly: it costs money.
        context.account.personalize.create_solution(
            name=name,
            datasetGroupArn=context.needed("group"),
            performAutoTraining=False,
            **request,
        )

    def remove(context: ProvisioningContext, found: FoundResource) -> None:
        context.account.personalize.delete_solution(solutionArn=found.arn)

    version = ManagedResource(
        f"{key}.version",
        f"version of {name}",
        functools.partial(find_version, name=name),
        lambda context, _: start_version(context, name),
    )
    return [ManagedResource(key, f"solution {name}", find, make, remove, is_replaced=True), version]


def find_version(context: ProvisioningContext, *, name: str) -> FoundResource | None:
    """The newest version of a solution that has not failed, if newer than the last imports."""
    solution = context.arn(f"solutions.{name}")
    if solution is None:
        return None
    versions = context.account.listed(
        "list_solution_versions", "solutionVersions", solutionArn=solution
    )
    every = [found_resource(one, "solutionVersionArn") for one in versions]
    going = [one for one in every if not one.is_failed]
    newest = max(going or every, key=lambda one: one.created_s, default=None)
    return None if newest is None or newest.created_s < _imported_s(context) else newest


def start_version(context: ProvisioningContext, name: str) -> str:
    """Start the training of a version; gives its ARN."""
    return context.account.personalize.create_solution_version(
        solutionArn=context.needed(f"solutions.{name}")
    )["solutionVersionArn"]


def _imported_s(context: ProvisioningContext) -> float:
    """Start time of the newest import; infinite if one is missing."""
    times = [0.0]
    for kind, dataset in context.declaration.datasets.items():
        if dataset.source is not None:
            found = context.found.get(f"datasets.{kind}.import")
            times.append(math.inf if found is None or found.is_failed else found.created_s)
    return max(times)


def _campaign_resource(name: str, campaign: DeclaredCampaign) -> ManagedResource:
    key, version_key = f"campaigns.{name}", f"solutions.{campaign.solution}.version"

    def find(context: ProvisioningContext) -> FoundResource | None:
        solution = context.arn(f"solutions.{campaign.solution}")
        if solution is None:
            return None
        listed = context.account.listed("list_campaigns", "campaigns", solutionArn=solution)
        found = find_by_name(listed, "campaignArn", name)
        if found is None or not found.is_ready:
            return found
        existing = context.account.personalize.describe_campaign(campaignArn=found.arn)["campaign"]
        update: Any = existing.get("latestCampaignUpdate", {})
        wanted = (context.arn(version_key), campaign.min_tps)
        if wanted[0] is None:
            return FoundResource(found.arn, "STALE")  # its version must be trained first
        if (existing["solutionVersionArn"], existing.get("minProvisionedTPS", 1)) == wanted:
            return found
        updated_to = (update.get("solutionVersionArn"), update.get("minProvisionedTPS", 1))
        if updated_to == wanted:
            status = update["status"]
            return FoundResource(found.arn, "STALE" if status == "ACTIVE" else status)
        return FoundResource(found.arn, "STALE")

    def make(context: ProvisioningContext, found: FoundResource | None) -> None:
        personalize, version = context.account.personalize, context.needed(version_key)
        tps = campaign.min_tps
        if found is None:
            personalize.create_campaign(
                name=name, solutionVersionArn=version, minProvisionedTPS=tps
            )
        else:
            personalize.update_campaign(
                campaignArn=found.arn, solutionVersionArn=version, minProvisionedTPS=tps
            )

    def remove(context: ProvisioningContext, found: FoundResource) -> None:
        context.account.personalize.delete_campaign(campaignArn=found.arn)

    return ManagedResource(key, f"campaign {name}", find, make, remove)


def _filter_resource(name: str, expression: str) -> ManagedResource:
    key = f"filters.{name}"

    def find(context: ProvisioningContext) -> FoundResource | None:
        group = context.arn("group")
        if group is None:
            return None
        listed = context.account.listed("list_filters", "Filters", datasetGroupArn=group)
        found = find_by_name(listed, "filterArn", name)
        if found is not None:
            existing = context.account.personalize.describe_filter(filterArn=found.arn)["filter"]
            require_same(key, "expression", existing["filterExpression"], expression)
        return found

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        context.account.personalize.create_filter(
            name=name, datasetGroupArn=context.needed("group"), filterExpression=expression
        )

    def remove(context: ProvisioningContext, found: FoundResource) -> None:
        context.account.personalize.delete_filter(filterArn=found.arn)

    return ManagedResource(key, f"filter {name}", find, make, remove, is_replaced=True)


def tracking_id(context: ProvisioningContext) -> str | None:
    """Tracking id of the group's event tracker; None without one."""
    arn = context.arn("tracker")
    if arn is None:
        return None
    answer = context.account.personalize.describe_event_tracker(eventTrackerArn=arn)
    return answer["eventTracker"]["trackingId"]
