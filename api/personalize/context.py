"""The resources, dataset groups and services that every Personalize operation works with."""

from __future__ import annotations

from dataclasses import dataclass

from api.dependencies import Services
from models.personalize.resources.registry import Registry
from models.serving.recommenders import Recommenders
from models.state.tenants import Tenants


@dataclass(frozen=True)
class PersonalizeContext:
    """Dependencies that all operations share.

    Attributes
    ----------
    registry
        Resources by ARN.
    tenants
        Dataset groups by name and tracking id.
    recommenders
        Recommenders by dataset group.
    services
        The dependencies of the native routes, which these operations share.
    """

    registry: Registry
    tenants: Tenants
    recommenders: Recommenders
    services: Services
