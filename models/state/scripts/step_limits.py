"""Limits of state that a step takes: out of the layout and the settings."""

from __future__ import annotations

from models.settings import Settings
from models.state import layout


def step_limits(settings: Settings) -> dict[str, float | list[str]]:
    """Bounds of what a step of events or served lists keeps; an outcome window of 0: none."""
    return {
        "history": settings.history_events,
        "trimmed_ids": layout.TRIMMED_IDS_PER_EVENT * settings.history_events,
        "recent": settings.recent_events,
        "window": layout.WINDOW,
        "neighbours": layout.NEIGHBOURS,
        "recent_owners": layout.RECENT_OWNERS,
        "tops": layout.TOPS,
        "items": settings.max_items,
        "types": layout.TYPES,
        "context_items": layout.CONTEXT_ITEMS,
        "context_values": layout.CONTEXT_VALUES,
        "user_sessions": settings.user_sessions,
        "tombstones": settings.max_tombstones,
        "tombstone_ttl": settings.kept_tombstones_s,
        "session_ttl": settings.session_ttl_s,
        "user_ttl": settings.user_ttl_s,
        "outcome_window": settings.outcome_window_s if settings.outcomes else 0,
        "outcome_lists": settings.outcome_lists,
        "outcome_hours": settings.outcome_hours_s,
        "outcome_days": settings.outcome_days_s,
        "experiment_users": settings.experiment_users,
        "purchase_types": sorted(settings.purchase_types),
    }
