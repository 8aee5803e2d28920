"""Checks of configurations that their shapes in the service model do not make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.personalize.dataset_schemas import dataset_type_of

EXPLORATION: Mapping[str, float] = {"explorationWeight": 1.0, "explorationItemAgeCutOff": 1e6}
"""Members of itemExplorationConfig: numbers as text, from 0 to this maximum."""


def check_config(config: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for an unknown member, or one out of range."""
    for name, text in config.get("itemExplorationConfig", {}).items():
        if name not in EXPLORATION:
            known = " and ".join(EXPLORATION)
            raise InvalidInput(f"itemExplorationConfig: unknown {name[:60]!r}, only {known}")
        if not 0 <= parse_number(text, f"itemExplorationConfig.{name}") <= EXPLORATION[name]:
            raise InvalidInput(
                f"itemExplorationConfig.{name} must be from 0 to {EXPLORATION[name]:g}"
            )
    check_columns_config(config)


def check_columns_config(config: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for columns of an unknown type of dataset."""
    for columns in config.get("trainingDataConfig", {}).values():
        for dataset_type in columns:
            dataset_type_of(dataset_type)


def parse_number(text: str, where: str) -> float:
    """The finite number that a text holds.

    Raises
    ------
    InvalidInput
        It holds none.

    Examples
    --------
    >>> parse_number("3.5", "eventValueThreshold")
    3.5
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{where} must be a number, not {text[:60]!r}")
    return number
