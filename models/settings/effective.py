"""The settings as they are in effect, and where each comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic_core import to_jsonable_python

from models.secrets import HIDDEN, redacted
from models.settings import Settings
from models.settings.environment import Environment
from models.settings.secret_files import is_secret
from models.settings.settings_file import SettingsFile

DEFAULT = "default"


class EffectiveSetting(NamedTuple):
    """A setting's value, with secrets hidden, and its origin."""

    value: Any
    origin: str


def setting_origins() -> dict[str, str]:
    """Origin of each setting that is not the default's: its variable, or the file.

    Raises
    ------
    InvalidSetting
        A source cannot be read.
    """
    environment, file = Environment(Settings), SettingsFile(Settings)
    environment()
    file()
    return {**file.origins, **environment.origins}


def effective_settings(settings: Settings) -> dict[str, EffectiveSetting]:
    """Every setting, its value in the types of JSON.

    >>> effective_settings(Settings())["partitions"]
    EffectiveSetting(value=16, origin='default')
    """
    origins = setting_origins()
    return {
        name: EffectiveSetting(
            _shown(getattr(settings, name), is_secret=is_secret(field)), origins.get(name, DEFAULT)
        )
        for name, field in Settings.model_fields.items()
    }


def as_toml(effective: Mapping[str, EffectiveSetting]) -> str:
    """Lines of a settings file, each with its origin as a comment.

    >>> print(as_toml({"a": EffectiveSetting({"b c": 1.5}, "default")}))
    a = { "b c" = 1.5 }  # default
    """
    return "\n".join(
        f"{name} = {_toml(one.value)}  # {one.origin}" for name, one in effective.items()
    )


def _shown(value: Any, *, is_secret: bool) -> Any:  # noqa: ANN401  of any setting
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if isinstance(value, dict):
        return {name: _shown(one, is_secret=is_secret) for name, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return redacted(value) if is_secret else to_jsonable_python(value)


def _toml(value: Any) -> str:  # noqa: ANN401  of any setting
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # TOML's strings, numbers and truth values are written as JSON's are.
    return json.dumps(value, ensure_ascii=False)
