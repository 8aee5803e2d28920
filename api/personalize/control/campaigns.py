"""Campaigns: names under which a solution version answers requests."""

from __future__ import annotations

from typing import Any, NamedTuple

from api.personalize.context import PersonalizeContext
from api.personalize.control import builtin_resources
from api.personalize.control.config_checks import check_config
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.control.solution_versions import get_trained_version
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceAlreadyExists, ResourceInUse
from models.personalize.registry import LATEST
from models.personalize.resource import Resource
from models.personalize.resource_types import path_of
from models.personalize.statuses import ACTIVE

UPDATED = ("minProvisionedTPS", "campaignConfig")
"""Members that an update may leave unchanged."""


class DeployedVersion(NamedTuple):
    """The version that a campaign deploys, or always the newest of a solution."""

    arn: str
    links: tuple[str, ...]


async def create_campaign(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Deploy an ACTIVE solution version under a name."""
    path = f"campaign/{request['name']}"
    if builtin_resources.find_campaign(context, path) is not None:
        raise ResourceAlreadyExists(f"{path} is one of RECOMMENDER_CAMPAIGNS")
    config = request.get("campaignConfig", {})
    check_config(config)
    deployed = await _deployed(context, request["solutionVersionArn"], config)
    campaign = new_resource(
        context,
        path,
        request,
        *deployed.links,
        solutionVersionArn=deployed.arn,
        minProvisionedTPS=request.get("minProvisionedTPS", 1),
    )
    await context.registry.create(campaign, quota_limit(context, "campaign", deployed.links[-1]))
    return {"campaignArn": context.registry.arn(path)}


async def update_campaign(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Change the version or configuration, from the next request on."""
    campaign = await get_resource(context, request["campaignArn"], "campaign")
    _refuse_configured(context, campaign)
    changes = {name: member for name, member in request.items() if name != "campaignArn"}
    if not changes:
        raise InvalidInput("there is nothing to update")
    now_s = context.services.clock()
    config = changes.get("campaignConfig", campaign.data.get("campaignConfig", {}))
    check_config(config)
    arn = changes.get("solutionVersionArn", campaign.data["solutionVersionArn"])
    deployed = await _deployed(context, arn, config)
    changes["solutionVersionArn"] = deployed.arn

    def updated(old: Resource) -> Resource:
        shown = {name: old.data[name] for name in UPDATED if name in old.data}
        times = {"creationDateTime": now_s, "lastUpdatedDateTime": now_s}
        update = {**shown, **changes, "status": ACTIVE, **times}
        return old.with_parents(*deployed.links).with_data(
            now_s=now_s, latestCampaignUpdate=update, **changes
        )

    await context.registry.change(campaign.path, updated)
    return {"campaignArn": context.registry.arn(campaign.path)}


async def delete_campaign(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a campaign; its solution stays."""
    campaign = await get_resource(context, request["campaignArn"], "campaign")
    _refuse_configured(context, campaign)
    await context.registry.remove(campaign.path)
    return {}


async def _deployed(
    context: PersonalizeContext, arn: str, config: dict[str, Any]
) -> DeployedVersion:
    """The version that an ARN means in a campaign with this configuration."""
    is_latest = arn.endswith(LATEST)
    is_synced = config.get("syncWithLatestSolutionVersion", False)
    if is_synced and not is_latest:
        raise InvalidInput(f"syncWithLatestSolutionVersion needs an ARN that ends in {LATEST}")
    version = await get_trained_version(context, arn)
    solution, group = version.links
    if is_synced:
        return DeployedVersion(context.registry.arn(f"{solution}{LATEST}"), (solution, group))
    return DeployedVersion(context.registry.arn(version.path), (version.path, solution, group))


async def _current_version(context: PersonalizeContext, campaign: Resource) -> dict[str, Any]:
    """The current version of a campaign that follows the newest."""
    arn = campaign.data.get("solutionVersionArn", "")
    if not arn.endswith(LATEST):
        return {}
    version = await context.registry.get(path_of(arn))
    return {"solutionVersionArn": context.registry.arn(version.path)}


def _refuse_configured(context: PersonalizeContext, campaign: Resource) -> None:
    if builtin_resources.find_campaign(context, campaign.path) is not None:
        raise ResourceInUse(f"{campaign.path} is one of RECOMMENDER_CAMPAIGNS")


OPERATIONS: dict[str, Operation] = {
    "CreateCampaign": create_campaign,
    "DescribeCampaign": describe_operation("campaign", _current_version),
    "ListCampaigns": list_operation("campaign"),
    "UpdateCampaign": update_campaign,
    "DeleteCampaign": delete_campaign,
}
