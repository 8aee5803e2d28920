"""What every operation works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.errors import ResourceNotFound
from models.recommender import Recommender
from models.store import Store


@dataclass(frozen=True)
class Context:
    """What every operation works with.

    Attributes
    ----------
    resources, tenants
        Resources by ARN, and dataset groups by name and tracking id.
    services
        The `api.services.Services` of the whole API.
    """

    resources: Any
    tenants: Any
    services: Any


class NoResources:
    """Resources of a service without a control plane."""

    async def get(self, arn: str) -> dict[str, Any]:
        """Raises `ResourceNotFound`."""
        raise ResourceNotFound(f"no resource has the ARN {arn}")


@dataclass(frozen=True)
class OneGroup:
    """The tenants of a service with one group."""

    services: Any

    async def group_of(self, tracking_id: str) -> str | None:
        """The group, for its tracking id."""
        settings = self.services.settings
        return settings.group if tracking_id == settings.tracking_id else None

    def store(self, _: str) -> Store:
        """The group's state."""
        store: Store = self.services.store
        return store

    def recommender(self, _: str) -> Recommender:
        """The group's recommender."""
        recommender: Recommender = self.services.recommender
        return recommender
