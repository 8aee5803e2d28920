"""Names are unique: whoever searches for one finds one thing. And files are short."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.unit

PACKAGES = ("api", "cli", "models", "ops", "streams")

MAX_LINES = 440

RECOMMENDER = (
    *(f"models/{name}" for name in ("state", "filters", "retrieval", "ranking", "serving")),
    *("models/evaluation", "streams/agents", "streams/kafka", "api/routes"),
)
"""Packages that know nothing of Amazon Personalize, as an import contract holds."""


def _sources(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if not path.stem.startswith("__")]


def test_no_two_public_classes_share_a_name() -> None:
    """Nor do type aliases."""
    names = Counter[str]()
    for package in PACKAGES:
        for path in _sources(package):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    names[node.name] += 1
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    name = node.targets[0].id
                    names[name] += name[0].isupper() and not name.isupper()

    assert len(names) > 300
    assert [name for name, n in names.items() if n > 1 and not name.startswith("_")] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_files_of_a_package_share_a_name(package: str) -> None:
    """A stack trace and an editor's tab name the file alone."""
    names = Counter(path.name for path in _sources(package))

    assert [name for name, n in names.items() if n > 1] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_say_what_a_thing_is(package: str) -> None:
    """By a noun: one that begins with "What" or "How" leaves the reader to guess its kind."""
    texts = {
        f"{path.relative_to(ROOT)}:{node.lineno}": str(node.value.value)
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }

    assert len(texts) > 50
    riddles = re.compile(r"(What|How|Whether|Where|When|Which|Who|Whose|Why) ")
    assert [place for place, text in texts.items() if riddles.match(text)] == []


def test_the_recommender_speaks_of_no_emulator() -> None:
    """Who reads it meets no ARN, no lease and no CSV."""
    files = [path for package in RECOMMENDER for path in (ROOT / package).rglob("*.py")]
    words = re.compile(r"\b(arns?|leases?|csv)\b", re.IGNORECASE)

    assert len(files) > 150
    assert [str(path) for path in files if words.search(path.read_text())] == []


def test_files_are_short() -> None:
    """One that is longer holds more than its noun."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for package in PACKAGES
        for kind in ("*.py", "*.lua")
        for path in (ROOT / package).rglob(kind)
    }

    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}
