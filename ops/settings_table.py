"""The table of settings in docs/settings.md."""

from __future__ import annotations

import json

from models.settings import Settings
from models.settings.secret_files import is_secret


def settings_table() -> str:
    """A Markdown table of every setting: variable, default, meaning."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, frozenset):
            default = sorted(default)
        shown = json.dumps(default) if isinstance(default, list | dict) else str(default)
        value = f"`{shown}`" if shown else "empty"
        file = f" Or `…_{name.upper()}_FILE`." if is_secret(field) else ""
        lines.append(f"| `RECOMMENDER_{name.upper()}` | {value} | {field.description}{file} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(settings_table())  # noqa: T201  docs/settings.md is filled from it
