"""Members of libraries below their public interface are named by a test that says what moved."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.unit

PACKAGES = ("api", "cli", "models", "ops", "streams")

NAMING = ("tests/test_library_internals.py", "tests/streams/kafka/test_kafka_internals.py")
"""Tests that fail with the name of a member that a release moves."""

TUPLES = frozenset({"_replace", "_asdict", "_fields", "_make"})
"""Public members of named tuples."""

TYPES = frozenset({"_HANDLER"})
"""Names of typeshed alone, which no program looks up."""


def own_names(tree: ast.Module) -> set[str]:
    """Private names that a module defines, or sets on its own objects."""
    names = set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return {name for name in names if name.startswith("_")}


def asked_names(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Line and name of each private attribute that a module asks for; True for one of `self`."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name) if re.match("_[^_]", name):
                is_own = isinstance(owner, ast.Name) and owner.id in {"self", "cls"}
                yield node.lineno, name, is_own
            case ast.ImportFrom(module=str(module), names=found, level=0):
                parts = [*module.split("."), *(one.name for one in found)]
                yield from ((node.lineno, part, False) for part in parts if re.match("_[^_]", part))


def test_private_members_of_libraries_are_named() -> None:
    """Whoever reaches below a library's interface says what for, and what to do once it moves."""
    trees = {
        path: ast.parse(path.read_text())
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    own = {path: own_names(tree) for path, tree in trees.items()}
    inherited = set[str]().union(*own.values())
    named = {
        name
        for path in NAMING
        for name in re.findall(r'[".](_[a-z]\w*)\b', (ROOT / path).read_text())
    }

    foreign = {
        (f"{path.relative_to(ROOT)}:{line}", name)
        for path, tree in trees.items()
        for line, name, is_own in asked_names(tree)
        if name not in own[path] | TUPLES | TYPES and not (is_own and name in inherited)
    }

    assert len({name for _, name in foreign}) > 15
    assert {(place, name) for place, name in foreign if name not in named} == set()
