"""What every operation works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.errors import ResourceNotFound


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

    async def recent(self, path: str, *, now_s: float) -> Any:  # noqa: ANN401, ARG002
        """Raises `ResourceNotFound`."""
        raise ResourceNotFound(f"{path} does not exist")
