"""Secrets that settings name files for, as orchestrators mount them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from models.errors import InvalidSetting

SUFFIX = "_FILE"
"""End of a variable, after the name of a secret setting, that names a file with its value."""

MAX_BYTES = 1 << 18

SECRET: JsonDict = {"secret": True}
"""`json_schema_extra` of a setting that may hold a secret, beside the type `SecretStr`."""


def is_secret(field: FieldInfo) -> bool:
    """True if a setting holds a secret: it is shown nowhere, and may be read from a file."""
    annotation = field.annotation
    return (
        annotation is SecretStr
        or SecretStr in get_args(annotation)
        or field.json_schema_extra == SECRET
    )


def read_secret(name: str, file: Any) -> str:  # noqa: ANN401  whatever a TOML file holds
    """The text of a file without the line's end.

    Raises
    ------
    InvalidSetting
        It cannot be read or is no text; the error begins with `name`.
    """
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise InvalidSetting(f"{name}: {file} cannot be read ({why})") from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{name}: {file} is no text in UTF-8") from error
    if len(content) > MAX_BYTES or "\0" in text:
        raise InvalidSetting(f"{name}: {file} is no secret: it is too long, or holds zero bytes")
    return text.rstrip("\r\n")
