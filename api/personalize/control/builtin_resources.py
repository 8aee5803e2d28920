"""Built-in resources of the settings: a dataset group, its event tracker, and campaigns."""

from __future__ import annotations

import hashlib

from api.personalize.context import PersonalizeContext
from models.errors import ResourceAlreadyExists
from models.personalize.resources.resource import Resource
from models.personalize.resources.resource_types import BUILTIN_CAMPAIGN_CONFIG, ResourcePath
from models.personalize.resources.statuses import ACTIVE
from models.settings import Settings


def group_path(settings: Settings) -> str:
    """Path of the dataset group of the settings."""
    return f"dataset-group/{settings.group}"


def tracker_path(name: str) -> str:
    """Path of the event tracker with this name.

    >>> tracker_path("shop")
    'event-tracker/c67504ea'
    """
    return f"event-tracker/{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


async def ensure_builtin(context: PersonalizeContext) -> None:
    """Store the group and its tracker of the settings, unless they are stored already."""
    resources, settings = context.registry, context.registry.settings
    now_s = context.services.clock()
    group, tracker = group_path(settings), tracker_path(settings.group)
    if await resources.find(group) is None:
        await _create(context, Resource(group, ACTIVE, now_s, now_s, {"name": settings.group}))
    found = await resources.find(tracker)
    if found is None:
        data = {
            "name": settings.group,
            "accountId": settings.personalize_account,
            "trackingId": settings.tracking_id,
            "datasetGroupArn": resources.arn(group),
        }
        await _create(context, Resource(tracker, ACTIVE, now_s, now_s, data, (group,)))
    elif found.data["trackingId"] != settings.tracking_id:
        await resources.change(
            tracker, lambda old: old.with_data(now_s=now_s, trackingId=settings.tracking_id)
        )


async def _create(context: PersonalizeContext, resource: Resource) -> None:
    try:
        await context.registry.create(resource)
    except ResourceAlreadyExists:
        return  # another process with the same settings was first


def find_campaign(context: PersonalizeContext, path: str) -> Resource | None:
    """The campaign of the settings with this path, or None."""
    kind, name = ResourcePath.of(path)
    if kind != "campaign" or name not in context.registry.settings.campaigns:
        return None
    data = {"name": name, "minProvisionedTPS": 1, "campaignConfig": BUILTIN_CAMPAIGN_CONFIG}
    return Resource(path, ACTIVE, 0.0, 0.0, data)


def campaigns(context: PersonalizeContext) -> list[Resource]:
    """All campaigns of the settings."""
    paths = [f"campaign/{name}" for name in context.registry.settings.campaigns]
    return [found for path in paths if (found := find_campaign(context, path)) is not None]
