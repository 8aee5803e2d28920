"""Random filters and data, and the candidates that naive rules allow.

Nothing here knows the parser: a filter is a list of dictionaries, of which both its text and its
answer are made.
"""

from __future__ import annotations

import functools
import math
import operator
import random
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
DATASETS = {
    "ItemID": ("Items", "ITEM_ID", "Interactions"),
    "UserID": ("Users", "userId", "Interactions"),
    "ActionID": ("Actions", "ActionID", "Action_Interactions"),
}
SPELLINGS = {
    "genres": ["GENRES", "genres", "Genres"],
    "yearmade": ["YEAR_MADE", "yearMade", "year_made"],
    "age": ["AGE", "age"],
}
IDS = ["c0", "c1", "c2", "c|0"]
TEXTS = ["true", "a", "b", "5", "5.0", "a|b", "A", "", "it's", 'so "so"', "é, è", "c0", "c|0"]
DATES = ["2024-05-01", "2024-05-01T00:00:01Z"]
NUMBERS = ["5", "5.0", "7", "1e1", "-1", "+.5"]
TYPES = ["click", "Buy", "*", "5"]
STORED = [
    "a", "a|b", "5", 5, "5.0", "c|5", "x|10", 7, 5.0, 0.5, -1, 10, "", "it's", True, None, ["a"],
    math.nan, 2**70, False, "2024-05-01", "2024-05-01T02:00:00+02:00", "a|2025-01-01", 1714521600,
    1.8e12, "2024-13-01",
]  # fmt: skip
# Parameters by their values: any texts, one text, one number.
PARAMETERS = {"many": ["G", "g"], "one": ["ONE"], "number": ["N", "n_2"]}


def tables(*fields: str) -> st.SearchStrategy[dict[str, Any]]:
    """Properties under spellings of these fields, some fields more often than others."""
    keys = st.sampled_from([key for field in fields for key in SPELLINGS[field]])
    return st.dictionaries(keys, st.sampled_from(STORED), min_size=2, max_size=4) | st.just({})


VALUES = st.fixed_dictionaries(
    {},
    optional={
        **{
            name: st.lists(st.sampled_from(TEXTS + TYPES), max_size=3)
            for name in PARAMETERS["many"]
        },
        **{name: st.sampled_from(TEXTS + TYPES).map(lambda text: [text]) for name in ["ONE"]},
        **{
            name: st.sampled_from(NUMBERS + DATES).map(lambda text: [text])
            for name in PARAMETERS["number"]
        },
    },
)
SCENES = st.fixed_dictionaries(
    {
        "properties": st.lists(st.none() | tables("genres", "yearmade"), min_size=4, max_size=4),
        "seen": st.dictionaries(
            st.sampled_from([*IDS, "other"]), st.sets(st.sampled_from(["click", "BUY", "view"]))
        ),
        "user": st.none() | tables("age"),
        "current_item": st.none() | tables("genres", "yearmade"),
        "values": VALUES,
    }
)


@st.composite
def conditions(draw: st.DrawFn, target: str, kind: str) -> dict[str, Any]:
    """A condition on a candidate's properties, id or interactions, or on the current user."""
    candidates, identity, interactions = DATASETS[target]
    tests = ["IN", "NOT IN", "=", "!="]
    texts, numbers = TEXTS, NUMBERS
    if kind == "type":
        dataset, field, texts, numbers = interactions, "Event_Type", TYPES, []
    elif kind == "id":
        dataset, field = candidates, identity
    else:
        dataset = "CurrentUser" if kind == "user" else candidates
        name = "age" if kind == "user" else draw(st.sampled_from(["genres", "yearmade"]))
        field = draw(st.sampled_from(SPELLINGS[name]))
        tests += COMPARE
    test = draw(st.sampled_from(tests))
    condition = {"kind": kind, "dataset": dataset, "field": field, "test": test}
    if target == "ItemID" and kind in ("id", "candidate") and draw(st.booleans()):
        spellings = SPELLINGS["genres"] + SPELLINGS["yearmade"]
        return condition | {"current": draw(st.sampled_from(spellings))}
    takes = "number" if test in COMPARE else "many" if test.endswith("IN") else "one"
    pairs = [("parameter", name) for name in PARAMETERS[takes]]
    pairs += [("number", text) for text in numbers]
    pairs += [("text", text) for text in (DATES if test in COMPARE else texts)]
    n_most = 3 if takes == "many" else 1
    values = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=n_most))
    return condition | {"values": values}


@functools.cache
def groups(target: str, kinds: tuple[str, ...]) -> st.SearchStrategy[list[list[dict[str, Any]]]]:
    """Conditions of these kinds, joined by OR and AND."""
    one = st.one_of([conditions(target, kind) for kind in kinds])
    return st.lists(st.lists(one, min_size=1, max_size=2), min_size=1, max_size=2)


@functools.cache
def expressions(target: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Expressions about one target."""
    users = st.lists(conditions(target, "user"), max_size=0 if target == "UserID" else 2)
    one = st.fixed_dictionaries(
        {
            "includes": st.booleans(),
            "target": st.just(target),
            "where": groups(target, ("candidate", "id")) | groups(target, ("type",)),
            "if": users,
        }
    )
    return st.lists(one, min_size=1, max_size=3)


def filters() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Expressions, most of them about items."""
    return st.sampled_from(["ItemID", "ItemID", "UserID", "ActionID"]).flatmap(expressions)


def quoted(chance: random.Random, text: str) -> str:
    """A text in quotes that it does not contain."""
    quote = chance.choice([quote for quote in "\"'" if quote not in text])
    return f"{quote}{text}{quote}"


def written(parts: list[dict[str, Any]], chance: random.Random) -> str:
    """One of the ways to write a filter."""

    def word(text: str) -> str:
        return chance.choice([text, text.lower(), text.upper()])

    def gap() -> str:
        return chance.choice([" ", "  ", "\n", "\t"])

    def value(kind: str, text: str) -> str:
        return quoted(chance, text) if kind == "text" else f"${text}" if kind != "number" else text

    def condition(one: dict[str, Any]) -> str:
        if "current" in one:
            right = f"{word('CurrentItem')}.{one['current']}"
        else:
            right = f",{gap()}".join(value(*pair) for pair in one["values"])
            if one["test"].endswith("IN") or chance.random() < 0.5:
                right = f"({right})"
        test = gap().join(map(word, one["test"].split()))
        return gap().join([f"{word(one['dataset'])}.{one['field']}", test, right])

    def joined(kind: str, conditions: list[dict[str, Any]]) -> str:
        return f"{gap()}{word(kind)}{gap()}".join(map(condition, conditions))

    def expression(one: dict[str, Any]) -> str:
        parts = [word("INCLUDE" if one["includes"] else "EXCLUDE"), word(one["target"])]
        groups = [joined("AND", group) for group in one["where"]]
        parts += [word("WHERE"), f"{gap()}{word('OR')}{gap()}".join(groups)]
        if one["if"]:
            parts += [word("IF"), joined("AND", one["if"])]
        return gap().join(parts)

    return chance.choice([" | ", "|"]).join(map(expression, parts))


def sent(values: dict[str, list[str]], chance: random.Random) -> dict[str, str]:
    """Values of parameters as a request holds them."""

    def value(text: str) -> str:
        return text if text.isalnum() and chance.random() < 0.5 else quoted(chance, text)

    return {name: ",".join(map(value, texts)) for name, texts in values.items()}


def number(value: Any) -> Any:
    """The number in a stored or written value; None without one."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return None


def moment(value: Any) -> float | None:
    """The moment, Unix seconds, of a date or a number of any unit; None without one."""
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() if value else None
    return float(value / 1e3 if 1e11 < value <= 1e14 else value / 1e9 if value > 1e17 else value)


def stored(properties: dict[str, Any] | None, field: str) -> list[Any]:
    """Values of a field under the first name with some: its own spelling, then by name."""
    names = next(names for names in SPELLINGS.values() if field in names)
    for key in sorted(names, key=lambda key: (key != field, key)):
        value = (properties or {}).get(key)
        if isinstance(value, str):
            return list(value.split("|"))
        if isinstance(value, bool):
            return [str(value).lower()]
        if isinstance(value, int | float):
            return [value]
    return []


def equal(have: Any, kind: str, want: Any) -> bool:
    """True if a stored value equals a wanted one: texts by letter, numbers by size."""
    if isinstance(have, str):
        return have == want or (kind == "number" and number(have) == number(want))
    return bool(have == number(want))


def holds(one: dict[str, Any], candidate: int, scene: dict[str, Any]) -> bool:
    """True if a candidate meets a condition."""
    values: list[tuple[str, Any]] = []
    for kind, text in one.get("values", []):
        texts = scene["values"][text] if kind == "parameter" else [text]
        values += [("number" if kind == "number" else "text", text) for text in texts]
    if "current" in one:
        for value in stored(scene["current_item"], one["current"]):
            values.append(("text" if isinstance(value, str) else "number", value))
    if one["kind"] == "type":
        types = {name.lower() for name in scene["seen"].get(IDS[candidate], ())}
        have = [*types, "*"] if types else []
        values = [(kind, text.lower()) for kind, text in values]
    elif one["kind"] == "id":
        have = [IDS[candidate]]
    else:
        of = scene["user"] if one["kind"] == "user" else scene["properties"][candidate]
        have = stored(of, one["field"])
    if one["test"] in COMPARE:
        read = number
        if len(values) == 1 and values[0][0] == "text" and number(values[0][1]) is None:
            read = moment
        limit = read(values[0][1]) if len(values) == 1 else None
        numbers = [found for found in map(read, have) if found is not None]
        return any(limit is not None and COMPARE[one["test"]](found, limit) for found in numbers)
    found = any(equal(value, kind, want) for value in have for kind, want in values)
    return found != (one["test"] in ("NOT IN", "!="))


def parameters(one: dict[str, Any]) -> set[str]:
    """Names of the parameters in an expression."""
    conditions = [condition for group in (*one["where"], one["if"]) for condition in group]
    pairs = [pair for condition in conditions for pair in condition.get("values", [])]
    return {text for kind, text in pairs if kind == "parameter"}


def allowed_by_rules(parts: list[dict[str, Any]], scene: dict[str, Any]) -> list[bool] | None:
    """Candidates that may be shown; None if an INCLUDE lacks a parameter's value."""
    given = set(scene["values"])
    if any(one["includes"] and not parameters(one) <= given for one in parts):
        return None
    applying = [
        one
        for one in parts
        if parameters(one) <= given and all(holds(condition, 0, scene) for condition in one["if"])
    ]
    answer = []
    for n in range(len(IDS)):
        matching = [
            one["includes"]
            for one in applying
            if any(all(holds(condition, n, scene) for condition in group) for group in one["where"])
        ]
        includes = any(one["includes"] for one in applying)
        answer.append(all(matching) and (any(matching) or not includes))
    return answer
