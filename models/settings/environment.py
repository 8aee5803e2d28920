"""Settings from environment variables: names checked, lists and mappings in two forms."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from models.errors import InvalidSetting
from models.settings.secret_files import SUFFIX, is_secret, read_secret

PREFIX = "RECOMMENDER_"

READY_FILE = f"{PREFIX}READY_FILE"
"""Variable with the file that a child creates once it is ready."""


CONFIG = f"{PREFIX}CONFIG"
"""Variable with the settings' file."""


class Environment(EnvSettingsSource):
    """`RECOMMENDER_*` variables; for a secret, `…_FILE` names a file with its value.

    A list is `a,b` or JSON, a mapping `a=1,b=2` or JSON. Errors name the variable, and never
    repeat its value.

    Attributes
    ----------
    origins
        Variable of each setting that the last call has found, with the file if it names one.
    """

    origins: Mapping[str, str] = {}

    def __call__(self) -> dict[str, Any]:
        """Settings in the environment.

        Raises
        ------
        InvalidSetting
            A variable has the prefix but no setting's name, or cannot be parsed; a file with a
            secret cannot be read.
        """
        fields = self.settings_cls.model_fields
        files = {f"{variable(name)}{SUFFIX}": name for name in fields if is_secret(fields[name])}
        known = {variable(name) for name in fields} | files.keys()
        for name in sorted(os.environ):
            upper = name.upper()
            if upper.startswith(PREFIX) and upper not in known | {READY_FILE, CONFIG}:
                likely = known if upper.endswith(SUFFIX) else {variable(name) for name in fields}
                there = [name.removeprefix(PREFIX) for name in likely]
                asked = upper.removeprefix(PREFIX)
                # RECOMMENDER_REDIS_URL is meant for RECOMMENDER_REDIS, whatever else is like it.
                begins = [each for each in there if asked.startswith(f"{each}_")]
                near = sorted(begins, key=len)[-1:] or difflib.get_close_matches(asked, there, n=1)
                hint = f"did you mean {PREFIX}{near[0]}?" if near else "the README lists them"
                raise InvalidSetting(f"there is no setting {name}: {hint}")
        values = super().__call__()
        self.origins = {name: variable(name) for name in values}
        for named, name in files.items():
            file = os.environ.get(named, "")
            if not file:
                continue
            if variable(name) in os.environ:
                raise InvalidSetting(f"{variable(name)} and {named} are both set: leave one out")
            text = read_secret(named, file)
            is_complex = self.field_is_complex(fields[name])
            values[name] = (
                self.decode_complex_value(name, fields[name], text) if is_complex else text
            )
            self.origins[name] = f"{named}, {file}"
        return values

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:  # noqa: ANN401
        """Parse a list or mapping, for pydantic to validate."""
        is_mapping = get_origin(field.annotation) is dict
        text = str(value).strip()
        if text.startswith(("[", "{")):
            return _decoded(variable(field_name), text, is_mapping=is_mapping)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not is_mapping:
            return parts
        pairs = [part.partition("=") for part in parts]
        for number, (name, equals, _) in enumerate(pairs, 1):
            if not (name.strip() and equals):
                raise InvalidSetting(
                    f"{variable(field_name)}: entry {number} is not name=value; write"
                    ' name=value,name=value or JSON, {"name": "value"}'
                )
        return {name.strip(): entry.strip() for name, _, entry in pairs}


def variable(field_name: str) -> str:
    """Environment variable of a setting.

    >>> variable("data_dir")
    'RECOMMENDER_DATA_DIR'
    """
    return f"{PREFIX}{field_name.upper()}"


def _decoded(name: str, text: str, *, is_mapping: bool) -> Any:  # noqa: ANN401
    form = '{"name": "value"} or name=value' if is_mapping else '["a", "b"] or a,b'
    try:
        found = json.loads(text)
    except ValueError as error:
        position = (
            f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        )
        # Without the error's text: it may repeat the value, which may be a secret.
        raise InvalidSetting(f"{name} is no JSON{position}; write {form}") from None
    if isinstance(found, dict) is not is_mapping:
        raise InvalidSetting(
            f"{name} must be a {'mapping' if is_mapping else 'list'}: write {form}"
        )
    return found
