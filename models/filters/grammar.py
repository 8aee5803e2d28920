"""The language of filters: text to expressions and back, with the position in every error.

The grammar is `filters.lark`; combinations of fields, values and data sets are checked here.
Parsing is linear in the text, which has at most 2,500 characters, and the language does not nest.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Literal, NamedTuple, NoReturn, cast

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from models.errors import InvalidInput
from models.metadata_records import normalized

MAX_CHARACTERS = 2500
MAX_PARAMETER_CHARACTERS = 50
MAX_SHOWN = 20
"""Characters of the input that an error repeats."""

IdTarget = Literal["ItemID", "UserID", "ActionID"]
DatasetName = Literal["Items", "Interactions", "Users", "Actions", "Action_Interactions"]
Test = Literal["IN", "NOT IN", "=", "!=", "<", "<=", ">", ">="]

ORDERINGS = frozenset({"<", "<=", ">", ">="})

IDENTITIES: dict[str, str] = {
    "Items": "itemid",
    "Users": "userid",
    "Actions": "actionid",
    "Interactions": "eventtype",
    "Action_Interactions": "eventtype",
}
"""Field of each data set that only equality makes sense of, `normalized`."""

INTERACTIONS = frozenset({"Interactions", "Action_Interactions"})
"""Data sets whose only field for filters is EVENT_TYPE."""

ANY_TYPE = "*"
"""Stands for every event type."""

_DATASETS: dict[IdTarget, tuple[DatasetName, DatasetName]] = {
    "ItemID": ("Items", "Interactions"),
    "UserID": ("Users", "Interactions"),
    "ActionID": ("Actions", "Action_Interactions"),
}
_TARGETS: dict[str, IdTarget] = {name.lower(): name for name in _DATASETS}
# Amazon's own guide writes a data set in the singular once.
_SPELLINGS: dict[str, DatasetName] = {
    "action_interactions": "Action_Interactions",
    **dict.fromkeys(("interactions", "interaction"), "Interactions"),
    **dict.fromkeys(("items", "item"), "Items"),
    **dict.fromkeys(("users", "user"), "Users"),
    **dict.fromkeys(("actions", "action"), "Actions"),
}
_CONDITIONS = frozenset({"condition", "user_condition", "attribute"})
_WORD = re.compile(r"[^ \t\r\n]{1,30}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WORDS = {
    "ACTION": "INCLUDE or EXCLUDE",
    "TARGET": "ItemID, UserID or ActionID",
    "_WHERE": "WHERE",
    "DATASET": "a data set (Items, Interactions, Users, Actions, Action_Interactions)",
    "CURRENT_USER": "CurrentUser",
    "_DOT": "a dot",
    "NAME": "the name of a field",
    "IN": "IN",
    "NOT": "NOT IN",
    "COMPARISON": "a comparison (=, !=, <, <=, >, >=)",
    "EQUALS": "=",
    "_LEFT": "(",
    "TEXT": "a text in quotes",
    "NUMBER": "a number",
    "PARAMETER": "a $PARAMETER",
    "_CURRENT_ITEM": "CurrentItem",
    "_COMMA": "a comma",
    "_RIGHT": ")",
    "_AND": "AND",
    "_OR": "OR",
    "_IF": "IF",
    "_PIPE": "|",
    "$END": "the end",
}


class Value(NamedTuple):
    """An operand of a condition: a text, a number as written, or a parameter's name."""

    kind: Literal["text", "number", "parameter"]
    text: str

    def __str__(self) -> str:
        """Text in the language of filters; a parsed text never has both kinds of quotes."""
        if self.kind == "text":
            quote = "'" if '"' in self.text else '"'
            return f"{quote}{self.text}{quote}"
        return f"${self.text}" if self.kind == "parameter" else self.text


@dataclass(frozen=True)
class Condition:
    """One test of one field.

    Attributes
    ----------
    field, current_item
        Names as written; `current_item` is the field of CurrentItem to compare with, or empty.
    values
        Other operands; exactly one unless the test is IN or NOT IN.
    """

    dataset: DatasetName | Literal["CurrentUser"]
    field: str
    test: Test
    values: tuple[Value, ...] = ()
    current_item: str = ""

    def __str__(self) -> str:
        """Text in the language of filters."""
        right = ", ".join(map(str, self.values))
        if self.current_item:
            right = f"CurrentItem.{self.current_item}"
        elif self.test in ("IN", "NOT IN"):
            right = f"({right})"
        return f"{self.dataset}.{self.field} {self.test} {right}"

    @property
    def negates(self) -> bool:
        """True for NOT IN and !=."""
        return self.test in ("NOT IN", "!=")

    @property
    def parameters(self) -> Iterator[str]:
        """Names of the parameters among its values."""
        return (value.text for value in self.values if value.kind == "parameter")

    @property
    def fields(self) -> Iterator[str]:
        """Fields of data sets in it, names folded: `Items.numratings`."""
        dataset = "Users" if self.dataset == "CurrentUser" else self.dataset
        yield f"{dataset}.{normalized(self.field)}"
        if self.current_item:
            yield f"Items.{normalized(self.current_item)}"


@dataclass(frozen=True)
class Expression:
    """One INCLUDE or EXCLUDE.

    Attributes
    ----------
    any_of
        Groups of conditions on one data set: all of a group must hold, in at least one group.
    only_if
        Conditions on the current user; unless all hold, the expression does not apply.
    """

    includes: bool
    target: IdTarget
    any_of: tuple[tuple[Condition, ...], ...]
    only_if: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        """Text in the language of filters."""
        where = " OR ".join(" AND ".join(map(str, all_of)) for all_of in self.any_of)
        text = f"{'INCLUDE' if self.includes else 'EXCLUDE'} {self.target} WHERE {where}"
        return f"{text} IF {' AND '.join(map(str, self.only_if))}" if self.only_if else text

    @property
    def conditions(self) -> Iterator[Condition]:
        """All of them in the order of the text."""
        for all_of in (*self.any_of, self.only_if):
            yield from all_of

    @functools.cached_property
    def parameters(self) -> frozenset[str]:
        """Names of all its parameters."""
        return frozenset(name for condition in self.conditions for name in condition.parameters)


@functools.lru_cache(maxsize=4096)
def number_in(text: str) -> int | float | None:
    """The finite number in a text; None for digits of other scripts, `nan` and `1_000`.

    >>> number_in("1994"), number_in("-.5e1"), number_in("12 "), number_in("1e999")
    (1994, -5.0, None, None)
    """
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    # Up to the 64 bits of a schema's types, whole numbers are compared exactly.
    if len(text) <= 20 and text.lstrip("+-").isdigit():
        return int(text)
    return value if math.isfinite(value) else None


@functools.lru_cache(maxsize=4096)
def moment_in(text: str) -> float | None:
    """The moment, in Unix seconds, of a date or time of ISO 8601; in UTC where it names no zone.

    >>> moment_in("2024-05-01"), moment_in("2024-05-01T02:00:00+02:00"), moment_in("20240501")
    (1714521600.0, 1714521600.0, None)
    """
    if not _DATE.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def parse_filter(text: str, *, max_fields: int) -> tuple[Expression, ...]:
    """Parse a filter's expressions, in their order; all have the same target.

    Raises
    ------
    InvalidInput
        With line and column, counted from 1, the word found there, and the words expected.
    """
    source = _Source("filterExpression", text)
    expressions: list[Expression] = []
    fields: set[str] = set()
    for tree in _trees(source.parse("filter")):
        expression = _expression(source, tree)
        if expressions and expression.target != expressions[0].target:
            source.refuse(_tokens(tree)[1], f"expected {expressions[0].target} as before |")
        for leaf, condition in zip(_leaves(tree), expression.conditions, strict=True):
            fields.update(condition.fields)
            if len(fields) > max_fields:
                source.refuse(_tokens(leaf)[1], f"but a filter has {max_fields} fields at most")
        expressions.append(expression)
    return tuple(expressions)


def parse_attributes(text: str) -> tuple[Condition, ...]:
    """Parse an item attribute query; an item must meet all of its conditions.

    Raises
    ------
    InvalidInput
        As `parse_filter`.
    """
    source = _Source("itemAttributes", text)
    return tuple(_condition(source, tree, "Items") for tree in _trees(source.parse("attributes")))


@functools.cache
def _parser() -> Lark:
    # Created on first use: it takes 30 ms, and few processes parse filters.
    grammar = resources.files(__package__).joinpath("filters.lark").read_text()
    return Lark(grammar, parser="lalr", start=["filter", "attributes"], maybe_placeholders=False)


class _Source(NamedTuple):
    """A text, and the member of the request that it came in."""

    member: str
    text: str

    def parse(self, start: str) -> Tree[Token]:
        if not 1 <= len(self.text) <= MAX_CHARACTERS:
            raise InvalidInput(
                f"{self.member} must have 1 to {MAX_CHARACTERS} characters, not {len(self.text)}"
            )
        try:
            self.text.encode()
            return _parser().parse(self.text, start=start)
        except UnicodeEncodeError as error:
            self._fail(error.start, f"found {_shown(self.text[error.start])}, half a character")
        except UnexpectedInput as error:
            self._explain(error)

    def _explain(self, error: UnexpectedInput) -> NoReturn:
        """Raise the error for the word that the parser met, with the words it expected."""
        position, found = len(self.text), "the end"
        if isinstance(error, UnexpectedCharacters):
            position = error.pos_in_stream or 0
            word = _WORD.match(self.text, position)
            found = _shown(word[0] if word else "")
            if found[1] in "\"'":
                self._fail(position, f"found a text that does not end, expected a {found[1]}")
        elif isinstance(error, UnexpectedToken) and error.token.type != "$END":
            position, found = error.token.start_pos or 0, _shown(error.token)
        possible = error.interactive_parser.accepts()  # type: ignore[no-untyped-call]
        words = [word for name, word in _WORDS.items() if name in possible]
        self._fail(position, f"found {found}, expected {_either(words)}")

    def refuse(self, token: Token, why: str) -> NoReturn:
        """Raise the error for a word that may not stand in its place."""
        self._fail(token.start_pos or 0, f"found {_shown(token)}, {why}")

    def _fail(self, position: int, what: str) -> NoReturn:
        before = self.text[:position]
        line, column = before.count("\n") + 1, position - before.rfind("\n")
        raise InvalidInput(f"{self.member}, line {line}, column {column}: {what}")


def _expression(source: _Source, tree: Tree[Token]) -> Expression:
    action, target = _tokens(tree)
    where, *user = _trees(tree)
    first = _tokens(next(_leaves(where)))[0]
    dataset, name = _SPELLINGS[first.lower()], _TARGETS[target.lower()]
    if dataset not in _DATASETS[name]:
        source.refuse(first, f"expected {_either(_DATASETS[name])} with {name}")
    if user and name == "UserID":
        source.refuse(
            _tokens(next(_leaves(user[0])))[0], "but there is no current user with UserID"
        )
    return Expression(
        action.lower() == "include",
        name,
        tuple(
            tuple(_condition(source, condition, dataset) for condition in _trees(all_of))
            for all_of in _trees(where)
        ),
        tuple(_condition(source, condition) for part in user for condition in _trees(part)),
    )


def _condition(source: _Source, tree: Tree[Token], dataset: DatasetName | None = None) -> Condition:
    """Condition of a tree; on the current user if no data set is given."""
    place, field, *tests = _tokens(tree)
    right = next(_trees(tree))
    test = cast("Test", " ".join(tests).upper())
    if dataset and _SPELLINGS[place.lower()] != dataset:
        source.refuse(place, f"expected {dataset}: AND and OR join conditions of one data set")
    is_identity = dataset is not None and normalized(field) == IDENTITIES[dataset]
    if dataset in INTERACTIONS and not is_identity:
        source.refuse(field, f"expected EVENT_TYPE, all that filters know of {dataset}")
    if is_identity and test in ORDERINGS:
        source.refuse(tests[0], f"expected IN, NOT IN, = or != with {field.upper()}")
    if right.data == "current_item":
        (other,) = _tokens(right)
        if dataset != "Items":
            source.refuse(other, "but CurrentItem goes with Items only")
        return Condition(dataset, field.value, test, current_item=other.value)
    values = tuple(_value(source, token, dataset, test) for token in _tokens(right))
    return Condition(dataset or "CurrentUser", field.value, test, values)


def _value(source: _Source, token: Token, dataset: DatasetName | None, test: Test) -> Value:
    if token.type == "PARAMETER":
        if len(token) > MAX_PARAMETER_CHARACTERS + 1:
            source.refuse(token, f"expected {MAX_PARAMETER_CHARACTERS} characters at most")
        return Value("parameter", token[1:])
    if token.type == "NUMBER":
        if number_in(token.value) is None:
            source.refuse(token, "expected a number within the range of 64 bits")
        return Value("number", token.value)
    text = token[1:-1] if token.type == "TEXT" else token.value
    if text == ANY_TYPE and dataset not in INTERACTIONS:
        source.refuse(token, "but * goes with EVENT_TYPE only")
    if test in ORDERINGS and moment_in(text) is None:
        source.refuse(token, f"expected a number, a date in quotes or a $PARAMETER after {test}")
    return Value("text", text)


def _tokens(tree: Tree[Token]) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def _trees(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    return (child for child in tree.children if isinstance(child, Tree))


def _leaves(tree: Tree[Token]) -> Iterator[Tree[Token]]:
    """Trees of its conditions, in the order of the text."""
    for child in _trees(tree):
        if child.data in _CONDITIONS:
            yield child
        else:
            yield from _leaves(child)


def _shown(text: str) -> str:
    """Some of the input, short and printable."""
    printable = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:MAX_SHOWN])
    return f"'{printable}{'…' if len(text) > MAX_SHOWN else ''}'"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
