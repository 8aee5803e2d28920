"""What lies in Amazon Personalize, piece by piece, in the order in which it can be made."""

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
    as_found,
    differs,
    named,
)

MAX_AGAIN = 20
"""Times that a failed import job is made again, each under a name of its own."""


def service_resources(declaration: Declaration) -> list[ManagedResource]:
    """All that the file asks for of Amazon Personalize."""
    name = declaration.group
    group = ManagedResource(
        "group", f"dataset group {name}", _group, _make_group, _remove_group, is_replaced=True
    )
    pieces = [group]
    for kind in declaration.datasets:
        pieces += _dataset_pieces(declaration, kind)
    if declaration.tracker is not None:
        label = f"event tracker {declaration.tracker.name}"
        pieces.append(
            ManagedResource(
                "tracker", label, _tracker, _make_tracker, _remove_tracker, is_replaced=True
            )
        )
    for name, solution in declaration.solutions.items():
        pieces += _solution_pieces(name, solution)
    pieces += [_campaign_piece(name, one) for name, one in declaration.campaigns.items()]
    pieces += [_filter_piece(name, one.expression) for name, one in declaration.filters.items()]
    return pieces


def recipe_arn(recipe: str) -> str:
    """The ARN of a recipe.

    >>> recipe_arn("aws-popularity-count")
    'arn:aws:personalize:::recipe/aws-popularity-count'
    """
    return f"arn:aws:personalize:::recipe/{recipe}"


def _group(world: ProvisioningContext) -> FoundResource | None:
    groups = world.account.listed("list_dataset_groups", "datasetGroups")
    return named(groups, "datasetGroupArn", world.declaration.group)


def _make_group(world: ProvisioningContext, _: FoundResource | None) -> None:
    world.account.personalize.create_dataset_group(name=world.declaration.group)


def _remove_group(world: ProvisioningContext, found: FoundResource) -> None:
    world.account.personalize.delete_dataset_group(datasetGroupArn=found.arn)


def _dataset_pieces(declaration: Declaration, kind: str) -> list[ManagedResource]:
    key, name = f"datasets.{kind}", f"{declaration.group[:50]}-{kind}"
    dataset = declaration.datasets[kind]  # type: ignore[index]
    pieces = [_schema_piece(dataset, key, name), _dataset_piece(key, name, kind.upper())]
    return pieces + ([_import_piece(key, kind)] if dataset.source is not None else [])


def _schema_piece(dataset: DeclaredDataset, key: str, name: str) -> ManagedResource:
    text = functools.cache(lambda: schema_text(dataset, key))

    def find(world: ProvisioningContext) -> FoundResource | None:
        found = named(world.account.listed("list_schemas", "schemas"), "schemaArn", name)
        if found is not None:
            answer = world.account.personalize.describe_schema(schemaArn=found.arn)
            differs(key, "schema", answer["schema"]["schema"], text())
        return found

    def make(world: ProvisioningContext, _: FoundResource | None) -> None:
        world.account.personalize.create_schema(name=name, schema=text())

    def remove(world: ProvisioningContext, found: FoundResource) -> None:
        try:
            world.account.personalize.delete_schema(schemaArn=found.arn)
        except boto.ClientError as error:
            if code_of(error) == "ResourceInUse":
                raise Retained("a dataset of another group has it") from error
            raise

    return ManagedResource(f"{key}.schema", f"schema {name}", find, make, remove)


def _dataset_piece(key: str, name: str, kind: str) -> ManagedResource:
    def find(world: ProvisioningContext) -> FoundResource | None:
        group = world.arn("group")
        if group is None:
            return None
        listed = world.account.listed("list_datasets", "datasets", datasetGroupArn=group)
        found = named(listed, "datasetArn", kind, by="datasetType")
        if found is not None:
            answer = world.account.personalize.describe_dataset(datasetArn=found.arn)
            differs(key, "schema", answer["dataset"]["schemaArn"], world.arn(f"{key}.schema"))
        return found

    def make(world: ProvisioningContext, _: FoundResource | None) -> None:
        world.account.personalize.create_dataset(
            name=name,
            datasetType=kind,
            datasetGroupArn=world.needed("group"),
            schemaArn=world.needed(f"{key}.schema"),
        )

    def remove(world: ProvisioningContext, found: FoundResource) -> None:
        world.account.personalize.delete_dataset(datasetArn=found.arn)

    return ManagedResource(key, f"dataset {name}", find, make, remove, is_replaced=True)


def _import_piece(key: str, kind: str) -> ManagedResource:
    def job_name(world: ProvisioningContext) -> str:
        return f"{world.declaration.group[:34]}-{kind}-{source_digest(world, kind)}"

    def jobs(world: ProvisioningContext, dataset: str) -> dict[str, FoundResource]:
        """Jobs of these rows by name: the first, and those made after one failed."""
        first = job_name(world)
        listed = world.account.listed(
            "list_dataset_import_jobs", "datasetImportJobs", datasetArn=dataset
        )
        return {
            one["jobName"]: as_found(one, "datasetImportJobArn")
            for one in listed
            if one["jobName"] == first or one["jobName"].startswith(f"{first}-")
        }

    def find(world: ProvisioningContext) -> FoundResource | None:
        dataset = world.arn(key)
        found = list(jobs(world, dataset).values()) if dataset else []
        going = [one for one in found if not one.is_failed]
        return max(going or found, key=lambda one: one.created_s, default=None)

    def make(world: ProvisioningContext, _: FoundResource | None) -> None:
        dataset = world.needed(key)
        taken, first = jobs(world, dataset), job_name(world)
        names = [first, *(f"{first}-{n}" for n in range(2, MAX_AGAIN + 1))]
        start_import(world, kind, next((name for name in names if name not in taken), names[-1]))

    return ManagedResource(f"{key}.import", f"import of {kind}", find, make)


def start_import(world: ProvisioningContext, kind: str, name: str) -> str:
    """Begin to import a dataset's rows; gives the ARN of the job."""
    return world.account.personalize.create_dataset_import_job(
        jobName=name,
        datasetArn=world.needed(f"datasets.{kind}"),
        dataSource={"dataLocation": source_url(world, kind)},
        roleArn=world.role(),
        importMode="FULL",
    )["datasetImportJobArn"]


def _tracker(world: ProvisioningContext) -> FoundResource | None:
    group, tracker = world.arn("group"), world.declaration.tracker
    if group is None or tracker is None:
        return None
    listed = world.account.listed("list_event_trackers", "eventTrackers", datasetGroupArn=group)
    for one in listed:
        differs("tracker", "name", one["name"], tracker.name)
        return as_found(one, "eventTrackerArn")
    return None


def _make_tracker(world: ProvisioningContext, _: FoundResource | None) -> None:
    if world.declaration.tracker is not None:
        world.account.personalize.create_event_tracker(
            name=world.declaration.tracker.name, datasetGroupArn=world.needed("group")
        )


def _remove_tracker(world: ProvisioningContext, found: FoundResource) -> None:
    world.account.personalize.delete_event_tracker(eventTrackerArn=found.arn)


def _solution_pieces(name: str, solution: DeclaredSolution) -> list[ManagedResource]:
    key = f"solutions.{name}"
    recipe = None if solution.recipe == AUTOMATIC else recipe_arn(solution.recipe)

    def find(world: ProvisioningContext) -> FoundResource | None:
        group = world.arn("group")
        if group is None:
            return None
        listed = world.account.listed("list_solutions", "solutions", datasetGroupArn=group)
        found = named(listed, "solutionArn", name)
        if found is not None:
            there = world.account.personalize.describe_solution(solutionArn=found.arn)["solution"]
            differs(key, "recipe", there.get("recipeArn"), recipe)
        return found

    def make(world: ProvisioningContext, _: FoundResource | None) -> None:
        request: dict[str, Any] = {"performAutoML": True} if recipe is None else {}
        if recipe is not None:
            request["recipeArn"] = recipe
        if solution.event_type is not None:
            request["eventType"] = solution.event_type
        # Whoever provisions says when to train, and pays for it.
        world.account.personalize.create_solution(
            name=name,
            datasetGroupArn=world.needed("group"),
            performAutoTraining=False,
            **request,
        )

    def remove(world: ProvisioningContext, found: FoundResource) -> None:
        world.account.personalize.delete_solution(solutionArn=found.arn)

    version = ManagedResource(
        f"{key}.version",
        f"version of {name}",
        functools.partial(find_version, name=name),
        lambda world, _: start_version(world, name),
    )
    return [ManagedResource(key, f"solution {name}", find, make, remove, is_replaced=True), version]


def find_version(world: ProvisioningContext, *, name: str) -> FoundResource | None:
    """The newest version of a solution that has not failed, if it knows the newest imports."""
    solution = world.arn(f"solutions.{name}")
    if solution is None:
        return None
    versions = world.account.listed(
        "list_solution_versions", "solutionVersions", solutionArn=solution
    )
    every = [as_found(one, "solutionVersionArn") for one in versions]
    going = [one for one in every if not one.is_failed]
    newest = max(going or every, key=lambda one: one.created_s, default=None)
    return None if newest is None or newest.created_s < _imported_s(world) else newest


def start_version(world: ProvisioningContext, name: str) -> str:
    """Begin to train a version; gives its ARN."""
    return world.account.personalize.create_solution_version(
        solutionArn=world.needed(f"solutions.{name}")
    )["solutionVersionArn"]


def _imported_s(world: ProvisioningContext) -> float:
    """When the newest import began; infinite while one is still to be made."""
    times = [0.0]
    for kind, dataset in world.declaration.datasets.items():
        if dataset.source is not None:
            found = world.found.get(f"datasets.{kind}.import")
            times.append(math.inf if found is None or found.is_failed else found.created_s)
    return max(times)


def _campaign_piece(name: str, campaign: DeclaredCampaign) -> ManagedResource:
    key, version_key = f"campaigns.{name}", f"solutions.{campaign.solution}.version"

    def find(world: ProvisioningContext) -> FoundResource | None:
        solution = world.arn(f"solutions.{campaign.solution}")
        if solution is None:
            return None
        listed = world.account.listed("list_campaigns", "campaigns", solutionArn=solution)
        found = named(listed, "campaignArn", name)
        if found is None or not found.is_ready:
            return found
        there = world.account.personalize.describe_campaign(campaignArn=found.arn)["campaign"]
        update: Any = there.get("latestCampaignUpdate", {})
        wanted = (world.arn(version_key), campaign.min_tps)
        if wanted[0] is None:
            return FoundResource(found.arn, "STALE")  # its version is to be trained first
        if (there["solutionVersionArn"], there.get("minProvisionedTPS", 1)) == wanted:
            return found
        asked = (update.get("solutionVersionArn"), update.get("minProvisionedTPS", 1))
        if asked == wanted:
            status = update["status"]
            return FoundResource(found.arn, "STALE" if status == "ACTIVE" else status)
        return FoundResource(found.arn, "STALE")

    def make(world: ProvisioningContext, found: FoundResource | None) -> None:
        personalize, version = world.account.personalize, world.needed(version_key)
        tps = campaign.min_tps
        if found is None:
            personalize.create_campaign(
                name=name, solutionVersionArn=version, minProvisionedTPS=tps
            )
        else:
            personalize.update_campaign(
                campaignArn=found.arn, solutionVersionArn=version, minProvisionedTPS=tps
            )

    def remove(world: ProvisioningContext, found: FoundResource) -> None:
        world.account.personalize.delete_campaign(campaignArn=found.arn)

    return ManagedResource(key, f"campaign {name}", find, make, remove)


def _filter_piece(name: str, expression: str) -> ManagedResource:
    key = f"filters.{name}"

    def find(world: ProvisioningContext) -> FoundResource | None:
        group = world.arn("group")
        if group is None:
            return None
        listed = world.account.listed("list_filters", "Filters", datasetGroupArn=group)
        found = named(listed, "filterArn", name)
        if found is not None:
            there = world.account.personalize.describe_filter(filterArn=found.arn)["filter"]
            differs(key, "expression", there["filterExpression"], expression)
        return found

    def make(world: ProvisioningContext, _: FoundResource | None) -> None:
        world.account.personalize.create_filter(
            name=name, datasetGroupArn=world.needed("group"), filterExpression=expression
        )

    def remove(world: ProvisioningContext, found: FoundResource) -> None:
        world.account.personalize.delete_filter(filterArn=found.arn)

    return ManagedResource(key, f"filter {name}", find, make, remove, is_replaced=True)


def tracking_id(world: ProvisioningContext) -> str | None:
    """The tracking id of the group's event tracker; None where it has none."""
    arn = world.arn("tracker")
    if arn is None:
        return None
    answer = world.account.personalize.describe_event_tracker(eventTrackerArn=arn)
    return answer["eventTracker"]["trackingId"]
