"""Schemas of datasets, in Avro's JSON: their columns, and the rules for each dataset type."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from models.errors import InvalidInput

DATASET_TYPES = ("INTERACTIONS", "ITEMS", "USERS", "ACTIONS", "ACTION_INTERACTIONS")

ACTION_TYPES = frozenset({"ACTIONS", "ACTION_INTERACTIONS"})
"""Types of datasets that only groups without a domain have."""

EVENT_TYPES_OF_DATASETS = frozenset({"INTERACTIONS", "ACTION_INTERACTIONS"})
"""Types of datasets whose rows are events; those of the others are metadata records."""

ITEM_KEYS: Mapping[str, str] = {
    "ITEMS": "ITEM_ID",
    "USERS": "USER_ID",
    "INTERACTIONS": "ITEM_ID",
    "ACTIONS": "ACTION_ID",
    "ACTION_INTERACTIONS": "ACTION_ID",
}
"""The column of each type of dataset that names the item, user or action."""

NUMBERS = frozenset({"float", "double", "int", "long"})
TYPES = NUMBERS | {"string", "boolean", "null"}
CATEGORICAL = frozenset({"string", "boolean", "int", "long"})
"""Types of columns whose values often repeat."""

MAX_METADATA: Mapping[str, int] = {
    "INTERACTIONS": 5,
    "ITEMS": 100,
    "USERS": 25,
    "ACTIONS": 10,
    "ACTION_INTERACTIONS": 5,
}
"""Columns of each type of dataset that are neither required nor reserved, at most."""

MAX_TEXTUAL = 1
MAX_SHOWN = 60

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,149}")


@dataclass(frozen=True)
class Column:
    """One column: its name, its Avro types, and the meaning of its text."""

    name: str
    types: frozenset[str]
    is_categorical: bool = False
    is_textual: bool = False

    @property
    def is_nullable(self) -> bool:
        """True if a row may leave it empty."""
        return "null" in self.types


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset, in their order."""

    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """The column of exactly this name; None without one."""
        return next((column for column in self.columns if column.name == name), None)


class _ColumnRule(NamedTuple):
    """Rule for a column: one of these names, the usual one first, and one of these types."""

    names: tuple[str, ...]
    types: frozenset[str]
    is_nullable: bool = False
    is_categorical: bool = False


def _key(name: str, kind: str = "string") -> _ColumnRule:
    return _ColumnRule((name,), frozenset({kind}))


def _optional(name: str, *kinds: str) -> _ColumnRule:
    return _ColumnRule((name,), frozenset(kinds), is_nullable=True)


def _category(*names: str) -> _ColumnRule:
    return _ColumnRule(names, frozenset({"string"}), is_nullable=True, is_categorical=True)


_REQUIRED: Mapping[str, tuple[_ColumnRule, ...]] = {
    "INTERACTIONS": (_key("USER_ID"), _key("ITEM_ID"), _key("TIMESTAMP", "long")),
    "ITEMS": (_key("ITEM_ID"),),
    "USERS": (_key("USER_ID"),),
    "ACTIONS": (_key("ACTION_ID"),),
    "ACTION_INTERACTIONS": (
        _key("USER_ID"),
        _key("ACTION_ID"),
        _key("EVENT_TYPE"),
        _key("TIMESTAMP", "long"),
    ),
}
_OF_DOMAIN: Mapping[tuple[str | None, str], tuple[_ColumnRule, ...]] = {
    ("ECOMMERCE", "INTERACTIONS"): (_key("EVENT_TYPE"),),
    ("ECOMMERCE", "ITEMS"): (_optional("PRICE", "float", "double"), _category("CATEGORY_L1")),
    ("VIDEO_ON_DEMAND", "INTERACTIONS"): (_key("EVENT_TYPE"),),
    # Amazon's own pages name the first level in three ways.
    ("VIDEO_ON_DEMAND", "ITEMS"): (
        _category("GENRES", "GENRE_L1", "GENRES_L1"),
        _key("CREATION_TIMESTAMP", "long"),
    ),
}
_RESERVED: Mapping[str, tuple[_ColumnRule, ...]] = {
    "INTERACTIONS": (
        _optional("EVENT_TYPE", "string"),
        _optional("EVENT_VALUE", *NUMBERS),
        _optional("IMPRESSION", "string"),
        _optional("RECOMMENDATION_ID", "string"),
        _optional("EVENT_ATTRIBUTION_SOURCE", "string"),
    ),
    "ITEMS": (_optional("CREATION_TIMESTAMP", "long"),),
    "USERS": (),
    "ACTIONS": (
        _optional("CREATION_TIMESTAMP", "long"),
        _optional("VALUE", "long", "int"),
        # Amazon's own pages name this one in two ways.
        _optional("ACTION_EXPIRATION_TIMESTAMP", "long"),
        _optional("EXPIRATION_TIMESTAMP", "long"),
        _optional("REPEAT_FREQUENCY", "long", "int"),
    ),
    "ACTION_INTERACTIONS": (
        _optional("IMPRESSION", "string"),
        _optional("RECOMMENDATION_ID", "string"),
    ),
}

EVENT_COLUMNS = frozenset(
    name
    for kind in EVENT_TYPES_OF_DATASETS
    for rule in (*_REQUIRED[kind], *_RESERVED[kind])
    for name in rule.names
)
"""Columns of interactions that become members of the event; all others are its properties."""


@functools.lru_cache(maxsize=256)
def parse_schema(text: str) -> Schema:
    """Parse a schema.

    Raises
    ------
    InvalidInput
        With the place that breaks a rule, and the rule.

    Examples
    --------
    >>> field = '{"name": "GENRES", "type": ["null", "string"], "categorical": true}'
    >>> parse_schema('{"type": "record", "name": "Items", "fields": [%s]}' % field).columns[0].name
    'GENRES'
    """
    try:
        schema = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(f"schema is not JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise InvalidInput('schema must be a JSON object with "type": "record"')
    if not isinstance(schema.get("name"), str):
        raise InvalidInput("schema.name must be a string")
    fields = schema.get("fields")
    if not isinstance(fields, list) or not fields:
        raise InvalidInput("schema.fields must be a list of one field or more")
    columns = tuple(_column(field, f"schema.fields[{n}]") for n, field in enumerate(fields))
    seen: set[str] = set()
    for column in columns:
        if column.name.upper() in seen:
            raise InvalidInput(f"schema.fields: {column.name} appears twice")
        seen.add(column.name.upper())
    return Schema(columns)


def contextual(schema: Schema) -> list[str]:
    """Contextual columns of an Interactions schema.

    Those that are not reserved, and that hold texts, whole numbers or truth values: other numbers
    are measures, hardly ever the same twice.

    >>> fields = [{"name": "USER_ID", "type": "string"}, {"name": "DEVICE", "type": "string"}]
    >>> schema = {"type": "record", "name": "Interactions", "fields": fields}
    >>> contextual(parse_schema(msgspec.json.encode(schema).decode()))
    ['DEVICE']
    """
    return [
        column.name
        for column in schema.columns
        if column.name not in EVENT_COLUMNS and column.types & CATEGORICAL
    ]


def dataset_type_of(name: str) -> str:
    """Dataset type of a name in any case; raises `InvalidInput` for one that is not supported.

    >>> dataset_type_of("Interactions")
    'INTERACTIONS'
    """
    found = name.upper()
    if found not in DATASET_TYPES:
        raise InvalidInput(
            f"datasetType {_shown(name)} is not supported; there are {', '.join(DATASET_TYPES)}"
        )
    return found


def check_columns(schema: Schema, dataset_type: str, domain: str | None) -> None:
    """Check that a schema fits a dataset type, in a group of a domain or of none.

    Raises
    ------
    InvalidInput
        Naming the first column that is missing or breaks a rule.
    """
    if dataset_type in ACTION_TYPES and domain is not None:
        raise InvalidInput(f"a dataset group of domain {domain} has no dataset {dataset_type}")
    required = (*_REQUIRED[dataset_type], *_OF_DOMAIN.get((domain, dataset_type), ()))
    where = f"{dataset_type} schema" + (f" of domain {domain}" if domain else "")
    known: set[str] = set()
    for rule in required:
        column = next(filter(None, map(schema.column, rule.names)), None)
        if column is None:
            raise InvalidInput(f"the {where} must have the column {rule.names[0]}")
        _check_column(column, rule, where)
        known.add(column.name)
    for rule in _RESERVED[dataset_type]:
        column = schema.column(rule.names[0])
        if column is not None and column.name not in known:
            _check_column(column, rule, where)
            known.add(column.name)
    if dataset_type not in EVENT_TYPES_OF_DATASETS and len(schema.columns) < 2:
        raise InvalidInput(f"the {where} must have one metadata column or more")
    metadata = [column for column in schema.columns if column.name not in known]
    if len(metadata) > MAX_METADATA[dataset_type]:
        raise InvalidInput(
            f"the {where} has {len(metadata)} metadata columns, "
            f"more than {MAX_METADATA[dataset_type]}"
        )
    textual = [column.name for column in metadata if column.is_textual]
    if len(textual) > (MAX_TEXTUAL if dataset_type == "ITEMS" else 0):
        raise InvalidInput(f"the {where} may not have the textual column {textual[-1]}")


def check_replacement(old: Schema, new: Schema) -> None:
    """Check that data of one schema is valid in another: it may only add nullable columns.

    Raises
    ------
    InvalidInput
        Naming the first column that is missing, has changed, or is new and not nullable.
    """
    for column in old.columns:
        if new.column(column.name) != column:
            raise InvalidInput(f"the new schema must have {column.name} as the old one has it")
    for column in new.columns:
        if old.column(column.name) is None and not column.is_nullable:
            raise InvalidInput(f"the new column {column.name} must have null among its types")


def _column(field: object, where: str) -> Column:
    if not isinstance(field, dict):
        raise InvalidInput(f"{where} must be a JSON object")
    name = field.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"{where}.name must be letters, digits and _, not {_shown(name)}")
    types = _types(field.get("type"), f"{where} ({name}).type")
    flags = [_flag(field, flag, where) for flag in ("categorical", "textual")]
    if any(flags) and "string" not in types:
        raise InvalidInput(f"{where} ({name}): only a string can be categorical or textual")
    if all(flags):
        raise InvalidInput(f"{where} ({name}) is either categorical or textual")
    return Column(name, types, *flags)


def _types(found: Any, where: str) -> frozenset[str]:  # noqa: ANN401  any JSON
    if isinstance(found, dict):
        raise InvalidInput(f"{where}: a schema is flat; there are no types within types")
    types = found if isinstance(found, list) else [found]
    for one in types:
        if not isinstance(one, str) or one not in TYPES:
            raise InvalidInput(f"{where}: no such type: {_shown(one)}; there are {_listed(TYPES)}")
    if not frozenset(types) - {"null"}:
        raise InvalidInput(f"{where} must name a type other than null")
    return frozenset(types)


def _flag(field: Mapping[str, Any], name: str, where: str) -> bool:
    flag = field.get(name, False)
    if not isinstance(flag, bool):
        raise InvalidInput(f"{where}.{name} must be true or false, not {_shown(flag)}")
    return flag


def _check_column(column: Column, rule: _ColumnRule, where: str) -> None:
    values = column.types - {"null"}
    if len(values) != 1 or not values <= rule.types:
        allowed, found = _listed(rule.types), _listed(column.types)
        raise InvalidInput(
            f"the column {column.name} of the {where} must be {allowed}, not {found}"
        )
    if column.is_nullable and not rule.is_nullable:
        raise InvalidInput(f"the column {column.name} of the {where} may not be null")
    if rule.is_categorical and not column.is_categorical:
        raise InvalidInput(f"the column {column.name} of the {where} must be categorical")


def _listed(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))


def _shown(value: object) -> str:
    """A value as an error shows it: shortened, and of structures only their kind."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
