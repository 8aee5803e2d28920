"""Settings from one TOML file, for those that the environment does not have."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from models.errors import InvalidSetting
from models.settings.environment import CONFIG, Environment
from models.settings.secret_files import SUFFIX, is_secret, read_secret

DEFAULT_FILE = "recommender.toml"
"""File in the current folder that is read if it is there."""

MAX_BYTES = 1 << 20


class SettingsFile(PydanticBaseSettingsSource):
    """A TOML file whose keys are settings, in small letters and without `RECOMMENDER_`.

    For a secret, the key with `_file` behind it names a file with its value.
    """

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.origins: dict[str, str] = {}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` gives all values at once."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Settings in the file; none without a file.

        Raises
        ------
        InvalidSetting
            `RECOMMENDER_CONFIG` names no file, it is no TOML, or it has a key that is no setting.
        """
        named = os.environ.get(CONFIG, "")
        path = Path(named or DEFAULT_FILE)
        if not named and not path.is_file():
            return {}
        fields = self.settings_cls.model_fields
        files = {f"{name}{SUFFIX.lower()}": name for name in fields if is_secret(fields[name])}
        values: dict[str, Any] = {}
        for key, value in _parsed(path, CONFIG if named else "the settings' file").items():
            name = files.get(key, key)
            if name not in fields:
                near = difflib.get_close_matches(key, [*fields, *files], n=1)
                hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists them"
                raise InvalidSetting(f"{path} has {key}, which is no setting: {hint}")
            if name in values:
                raise InvalidSetting(f"{path} has both {name} and {name}{SUFFIX.lower()}")
            values[name], self.origins[name] = value, str(path)
            if key in files:
                values[name] = self._secret(name, read_secret(f"{path}: {key}", value))
                self.origins[name] = f"{path}, {value}"
        return values

    def _secret(self, name: str, text: str) -> Any:  # noqa: ANN401  of any setting
        """A secret's text, in the forms of a variable."""
        field = self.settings_cls.model_fields[name]
        as_variable = Environment(self.settings_cls)
        if as_variable.field_is_complex(field):
            return as_variable.decode_complex_value(name, field, text)
        return text


def _parsed(path: Path, what: str) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidSetting(f"{what}: {path} cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise InvalidSetting(f"{what}: {path} is longer than {MAX_BYTES} bytes")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSetting(f"{what}: {path} is no TOML ({error})") from error
