"""Limits of outcomes, as the scripts take them."""

from __future__ import annotations

from models.settings import Settings


def outcome_limits(settings: Settings) -> dict[str, int | list[str]]:
    """Settings that outcomes.lua takes; a window of 0 turns it off."""
    return {
        "outcome_window": settings.outcome_window_s if settings.outcomes else 0,
        "outcome_lists": settings.outcome_lists,
        "outcome_hours": settings.outcome_hours_s,
        "outcome_days": settings.outcome_days_s,
        "experiment_users": settings.experiment_users,
        "purchase_types": sorted(settings.purchase_types),
    }
