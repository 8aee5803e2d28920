"""The condition of `prepare --where`: an expression on columns without any side effect.

DuckDB parses the user's text; it is accepted only if it consists of comparisons, arithmetic, CASE,
casts and a few functions of text and numbers. The database is locked besides when it runs, and so
could reach no file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import duckdb

from models.errors import CannotPrepare
from streams.preparation.database import PreparationDatabase

MAX_CHARS = 4000

_CLASSES = frozenset(
    {
        *("BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT"),
        *("FUNCTION", "OPERATOR", "TYPE"),
    }
)
_FUNCTIONS = frozenset(
    {
        *("+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*"),
        *("abs", "ceil", "contains", "date_part", "ends_with", "epoch", "floor", "greatest"),
        *("least", "left", "length", "lower", "ltrim", "prefix", "regexp_full_match"),
        *("regexp_matches", "replace", "right", "round", "rtrim", "starts_with", "strlen"),
        *("substr", "substring", "suffix", "trim", "upper"),
    }
)


class WhereClause(NamedTuple):
    """An accepted condition, and the numbers of the columns that it reads."""

    text: str
    columns: tuple[int, ...]


def parse(database: PreparationDatabase, text: str, columns: Sequence[str]) -> WhereClause:
    """Parse and check a condition.

    Raises
    ------
    CannotPrepare
        It is no expression, names an unknown column, or has a forbidden part.
    """
    if len(text) > MAX_CHARS or "\0" in text:
        raise CannotPrepare(f"--where: at most {MAX_CHARS} characters of text")
    inside, is_expression = None, False
    # Only an expression parses equally with and without parentheses.
    with contextlib.suppress(RecursionError):
        inside = _parsed(database, f"SELECT ({text}\n)")
        is_expression = inside is not None and inside == _parsed(database, f"SELECT {text}\n")
    if not is_expression:
        raise CannotPrepare(
            f"--where: {text!r} is not an expression, such as: rating >= 3.5; a column whose name"
            " is a word of SQL stands in double quotes"
        )
    numbers = {column.lower(): n for n, column in reversed([*enumerate(columns)])}
    used: dict[int, None] = {}
    for node in _nodes(inside):
        _check(node)
        if node["class"] == "COLUMN_REF":
            name = ".".join(node["column_names"])
            if name.lower() not in numbers:
                raise CannotPrepare(
                    f"--where: no column {name!r}: there are {', '.join(columns)}; texts stand in"
                    " single quotes"
                )
            used[numbers[name.lower()]] = None
    return WhereClause(text, tuple(used))


def _parsed(database: PreparationDatabase, statement: str) -> Any:  # noqa: ANN401  a syntax tree
    """Syntax tree of the one selected expression of a statement, without positions; or None."""
    try:
        [(tree,)] = database.run("SELECT json_serialize_sql(?)", [statement])
        parsed = json.loads(tree, object_hook=_without_positions)
    except duckdb.Error:
        return None
    if parsed["error"] or len(parsed["statements"]) != 1:
        return None
    node = parsed["statements"][0]["node"]
    expressions = node.get("select_list", [])
    return expressions[0] if len(expressions) == 1 else None


def _without_positions(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if not name.startswith("query_location")}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  a syntax tree
    left = [tree]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if "class" in part:
                yield part
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)


def _check(node: dict[str, Any]) -> None:
    kind = node["class"]
    if kind not in _CLASSES or node.get("alias"):
        word = kind.lower().replace("_", " ")
        raise CannotPrepare(f"--where: a {word} cannot stand in it; compare columns with values")
    name = node.get("function_name", "")
    if kind == "FUNCTION" and (node["schema"] or node["catalog"] or name not in _FUNCTIONS):
        known = ", ".join(sorted(each for each in _FUNCTIONS if each.isidentifier()))
        raise CannotPrepare(f"--where: no function {name!r} there, but {known}")
