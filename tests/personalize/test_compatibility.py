"""docs/personalize-compatibility.md keeps up with the code."""

from __future__ import annotations

import re

import pytest

from api.personalize.auth import request_check
from api.personalize.operations import OPERATIONS, operations_table
from api.personalize.service_model import service_operations
from models.settings import Settings
from tests.servers import ROOT
from tests.stack import Stack

DOCUMENT = (ROOT / "docs" / "personalize-compatibility.md").read_text()


def test_the_table_of_operations_is_current() -> None:
    """All operations of the API are listed, and each says whether it is done."""
    expected = f"<!-- operations -->\n{operations_table()}\n<!-- /operations -->"

    assert expected in DOCUMENT
    assert (
        len(re.findall(r"^\| personalize", DOCUMENT, re.MULTILINE))
        == len(service_operations())
        >= 79
    )


def test_what_is_implemented_is_an_operation() -> None:
    """No operation is registered under a name that the API does not have."""
    assert set(OPERATIONS) <= set(service_operations())


def test_settings_and_modes_are_documented() -> None:
    """Every setting of the API is named, and every mode of authentication."""
    named = {
        f"RECOMMENDER_{name.upper()}"
        for name in Settings.model_fields
        if name in {"campaigns", "tracking_id"} or name.startswith("personalize_")
    }
    assert all(name in DOCUMENT for name in named)
    for mode in ("off", "access-key", "sigv4"):
        settings = {"personalize_auth": mode, "personalize_access_keys": {"id": "secret"}}
        request_check(Settings.model_validate(settings))
        assert f"| `{mode}`" in DOCUMENT


@pytest.mark.parametrize("name", ["default", "similar-items", "popularity", "trending", "ranking"])
def test_campaigns_of_the_settings_are_documented(name: str) -> None:
    """The campaigns that are there from the start are named."""
    assert name in Settings().campaigns
    assert f"`{name}`" in DOCUMENT


def test_the_example_runs(running: Stack) -> None:
    """The Python in the document does what it says."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    printed: list[object] = []

    code = example.replace("http://localhost:8080", running.url)
    exec(compile(code, "the document", "exec"), {"print": printed.append})  # noqa: S102

    assert isinstance(printed[0], list)
