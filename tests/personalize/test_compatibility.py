"""docs/personalize-compatibility.md matches the code."""

from __future__ import annotations

import re

import pytest

from api.personalize.auth import request_check
from api.personalize.operations import OPERATIONS, operations_table
from api.personalize.refused_members import members_table
from api.personalize.service_model import service_operations
from models.settings import Settings
from tests.servers import ROOT
from tests.stack import Stack

DOCUMENT = (ROOT / "docs" / "personalize-compatibility.md").read_text()


def test_the_table_of_operations_is_current() -> None:
    """The table lists every operation, with its state."""
    expected = f"<!-- operations -->\n{operations_table()}\n<!-- /operations -->"

    assert expected in DOCUMENT
    assert (
        len(re.findall(r"^\| personalize", DOCUMENT, re.MULTILINE))
        == len(service_operations())
        >= 79
    )


def test_the_table_of_members_is_current() -> None:
    """The table lists every member that is refused, or described and no more."""
    assert f"<!-- members -->\n{members_table()}\n<!-- /members -->" in DOCUMENT


def test_implemented_names_are_operations() -> None:
    """Every registered name is an operation of the API."""
    assert set(OPERATIONS) <= set(service_operations())


def test_settings_and_modes_are_documented() -> None:
    """The document names every setting of this API, and every authentication mode."""
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
    """The document names the built-in campaigns."""
    assert name in Settings().campaigns
    assert f"`{name}`" in DOCUMENT


def test_the_example_runs(running: Stack) -> None:
    """The document's Python example gives the documented result."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    printed: list[object] = []

    code = example.replace("http://localhost:8080", running.url)
    exec(compile(code, "the document", "exec"), {"print": printed.append})  # noqa: S102

    assert isinstance(printed[0], list)
