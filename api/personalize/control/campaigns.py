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
    output_members,
    quota_limit,
    select_members,
)
from api.personalize.control.pagination import get_page
from api.personalize.control.solution_versions import get_trained_version
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceAlreadyExists, ResourceInUse
from models.personalize.recipes import Recipe, recipe_of
from models.personalize.resources.registry import LATEST
from models.personalize.resources.resource import Resource
from models.personalize.resources.resource_types import path_of
from models.personalize.resources.statuses import ACTIVE

_list_created = list_operation("campaign")

UPDATED = ("minProvisionedTPS", "campaignConfig")
"""Members that an update may leave unchanged."""


class DeployedVersion(NamedTuple):
    """The version that a campaign deploys, or always the newest of a solution."""

    arn: str
    links: tuple[str, ...]
    recipe: Recipe


async def create_campaign(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Deploy an ACTIVE solution version under a name."""
    path = f"campaign/{request['name']}"
    if builtin_resources.find_campaign(context, path) is not None:
        raise ResourceAlreadyExists(f"{path} is one of RECOMMENDER_CAMPAIGNS")
    config = request.get("campaignConfig", {})
    deployed = await _deployed(context, request["solutionVersionArn"], config)
    check_config(config, deployed.recipe)
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
    arn = changes.get("solutionVersionArn", campaign.data["solutionVersionArn"])
    deployed = await _deployed(context, arn, config)
    check_config(changes.get("campaignConfig", {}), deployed.recipe)
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


async def list_campaigns(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """List campaigns, of a solution or all; all begin with those of the settings."""
    if "solutionArn" in request:
        return await _list_created(context, request)
    resources = context.registry
    listed, after = builtin_resources.campaigns(context), 0
    while page := await resources.page("campaign", after=after):
        listed += page
        after = page[-1].number
    shown, more = get_page(listed, "campaign ", request)
    shape = output_members("ListCampaigns")["campaigns"].member
    return {"campaigns": [select_members(shape, resources.to_api(one)) for one in shown], **more}


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
    recipe = recipe_of(version.data["recipeArn"])
    solution, group = version.links
    if is_synced:
        arn = context.registry.arn(f"{solution}{LATEST}")
        return DeployedVersion(arn, (solution, group), recipe)
    arn = context.registry.arn(version.path)
    return DeployedVersion(arn, (version.path, solution, group), recipe)


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
    "ListCampaigns": list_campaigns,
    "UpdateCampaign": update_campaign,
    "DeleteCampaign": delete_campaign,
}
