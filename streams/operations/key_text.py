"""API keys as lines of text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from models.api_keys import ApiKey


def as_line(key: ApiKey, *, now_s: float) -> str:
    """One line about a key: id, name, roles, groups, and what bounds it."""
    parts = [
        key.id,
        key.name,
        "+".join(key.roles),
        f"groups {', '.join(key.groups)}",
        f"created {_day(key.created_s)}",
    ]
    if key.is_of_person:
        parts.append("session of a person")
    if key.origins:
        parts.append(f"public, for {', '.join(key.origins)}")
    if key.expires_s:
        verb = "expired" if key.expires_s <= now_s else "expires"
        parts.append(f"{verb} {_day(key.expires_s)}")
    if key.requests_per_s:
        parts.append(f"{key.requests_per_s:g} requests/s of each process")
    if key.requests_per_day:
        parts.append(f"{key.requests_per_day} requests/day")
    return "  ".join(parts)


def shown(key: ApiKey) -> dict[str, Any]:
    """All members of a key but its hash."""
    members = msgspec.structs.asdict(key)
    del members["digest"], members["parent"]
    return members


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d")
