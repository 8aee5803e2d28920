"""What every operation works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.personalize.registry import Registry
from models.serving.tenants import Tenants


@dataclass(frozen=True)
class PersonalizeContext:
    """What every operation works with.

    Attributes
    ----------
    resources, tenants
        Resources by ARN, and dataset groups by name and tracking id.
    services
        The `api.dependencies.Services` of the whole API.
    """

    resources: Registry
    tenants: Tenants
    services: Any
