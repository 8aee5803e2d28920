"""Entries of the audit log as lines of text."""

from __future__ import annotations

from datetime import UTC, datetime

from models.audit_entries import AuditEntry
from models.printable import escaped


def entry_line(entry: AuditEntry) -> str:
    r"""One line about an entry: time, actor, action, group, targets, address.

    >>> print(entry_line(AuditEntry(0.0, "1f0c", "shop\n", "put_items", "shop", ["i1"], "::1")))
    1970-01-01T00:00:00Z  1f0c (shop\n)  put_items  group shop  i1  from ::1
    """
    parts = [
        datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        f"{entry.actor} ({entry.name})",
        entry.action,
    ]
    if entry.group:
        parts.append(f"group {entry.group}")
    parts += [", ".join(entry.targets)] if entry.targets else []
    parts.append(f"from {entry.address or 'an unknown address'}")
    return escaped("  ".join(parts))
