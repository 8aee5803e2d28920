"""There is one way of each: waits that double, scripts in Redis, schemas, locks."""

from __future__ import annotations

import re

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.unit

PACKAGES = ("api", "cli", "models", "ops", "streams")


@pytest.mark.parametrize(
    ("pattern", "places"),
    [
        pytest.param(
            r"min\((2 \* \w+_s|\w+_s \* 2|self\.\w+_s \* 2)\b",
            {"models/waits.py"},
            id="waits that double: models.waits, and Tenacity by streams.retry_policy",
        ),
        pytest.param(
            r"\.(evalsha|eval|register_script|script_load)\(",
            {"models/state/scripts/registered_scripts.py"},
            id="scripts: run_script and run_step",
        ),
        pytest.param(
            r"\bpydantic(_\w+)?\b",
            {"models/settings/", "cli/group.py"},
            id="schemas: msgspec; pydantic reads settings",
        ),
        pytest.param(
            r"(client|redis)\.lock\(|\bnx=True",
            {"models/personalize/batches/pipeline_runs.py"},
            id="locks: redis-py's",
        ),
    ],
)
def test_one_place_does_it(pattern: str, places: set[str]) -> None:
    """A second way of doing it would be found by nobody who changes the first."""
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(pattern, path.read_text(), re.MULTILINE)
    }

    assert {path for path in found if not path.startswith(tuple(places))} == set()
    assert [place for place in places if not any(path.startswith(place) for path in found)] == []
