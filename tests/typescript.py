"""What generates and compiles a TypeScript client, fetched once and kept in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from tests.personalize.clients.other_clients import npm

PACKAGES = (
    "openapi-typescript@7.13.0",
    "openapi-fetch@0.17.0",
    "typescript@5.9.3",
)


def typescript() -> Path:
    """The folder that has them in its `node_modules`."""
    return npm("openapi-typescript-7.13.0", PACKAGES)
