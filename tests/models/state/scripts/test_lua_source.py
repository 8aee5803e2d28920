"""Texts of the scripts: numbers stand in place of their names."""

from __future__ import annotations

import re

import pytest

from models.state.catalogue.metadata import APPLY_RECORDS
from models.state.outcomes.served_outcomes import APPLY_SERVED
from models.state.scripts.lua_source import layout_constants
from models.state.scripts.registered_scripts import Script
from models.state.shards.sharded_steps import ITEM_STEP, SESSION_STEP
from models.state.store import STEP


@pytest.mark.parametrize("script", [STEP, APPLY_RECORDS, APPLY_SERVED, SESSION_STEP, ITEM_STEP])
def test_numbers_of_the_layout_are_no_locals(script: Script) -> None:
    """Functions would capture them at every step; and no file has a local of such a name."""
    code = re.sub(r"--[^\n]*|'[^'\n]*'", "", script.text)
    numbers = [name for name, one in layout_constants().items() if isinstance(one, int | float)]

    left = [name for name in numbers if re.search(rf"(?<![\w.:]){name}\b", code)]

    assert "STATS_PER_PAGE" in numbers
    assert left == []
