"""Context of events and requests: their values of contextual columns, such as DEVICE.

The store counts items under each value (context_counts.lua), and `models.ranking.context_lift`
turns the counts into lifts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models.metadata_records import normalized

ContextColumns = Mapping[str, Sequence[str]]
"""Values by the folded names of columns."""

NO_CONTEXT: ContextColumns = {}
"""The context of an event or request that names no value."""

MAX_VALUE_CHARACTERS = 100
MAX_WORDS = 5
"""Values of one column in an event or a request, separated by `|`."""

_decode = msgspec.json.Decoder().decode


def context_values(properties: str | Mapping[str, Any] | None) -> ContextColumns:
    """Context in the properties of an event, or in the context of a request.

    Short texts, whole numbers and truth values, in any case; others are measures or prose, hardly
    ever the same twice. The group's schema tells which columns are contextual.

    >>> context_values('{"DEVICE": "Phone|App ", "hourOfDay": 5, "price": 9.5}')
    {'device': ['phone', 'app'], 'hourofday': ['5']}
    >>> context_values({"HOUR_OF_DAY": "5"})
    {'hourofday': ['5']}
    """
    if not properties:
        return NO_CONTEXT
    found: dict[str, list[str]] = {}
    for name, value in (_decode(properties) if isinstance(properties, str) else properties).items():
        words = [word.strip().casefold() for word in _text(value).split("|")]
        short = [word for word in words if 1 <= len(word) <= MAX_VALUE_CHARACTERS]
        if short:
            found[normalized(name)] = list(dict.fromkeys(short))[:MAX_WORDS]
    return found


def _text(value: object) -> str:
    if isinstance(value, str | bool | int):
        return str(value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else ""
