"""The route of the settings in effect."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.schemas import SettingInEffect, SettingsInEffect, json_response
from models.settings import Settings
from models.settings.effective import effective_settings

router = APIRouter()


@router.get("/settings", **documented(SettingsInEffect, "Settings in effect", errors={}))
async def settings(request: Request) -> Response:
    """Every setting of this process, its origin and what it means; secrets are hidden."""
    services: Services = request.app.state.services
    shown = [
        SettingInEffect(name, one.value, one.origin, Settings.model_fields[name].description or "")
        for name, one in effective_settings(services.settings).items()
    ]
    return json_response(SettingsInEffect(shown))
