"""The Avro schema of what `prepare` writes, as Amazon Personalize's CreateSchema takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from streams.preparation.database import PreparationDatabase
from streams.reading.column_mapping import DATASETS, ColumnMapping, DatasetKind

MAX_CATEGORY_CHARS = 1000
"""A category may not be longer; an import with such a one fails."""

_TYPES = {
    "USER_ID": "string",
    "ITEM_ID": "string",
    "TIMESTAMP": "long",
    "EVENT_TYPE": "string",
    "EVENT_VALUE": "float",
    "IMPRESSION": "string",
    "RECOMMENDATION_ID": "string",
    "EVENT_ATTRIBUTION_SOURCE": "string",
    "CREATION_TIMESTAMP": "long",
}


class Field(NamedTuple):
    """One field: its Avro type, whether it may be empty, and whether it is a category."""

    name: str
    type: str
    is_nullable: bool
    is_categorical: bool = False


def fields_of(
    database: PreparationDatabase, kind: DatasetKind, mapping: ColumnMapping
) -> list[Field]:
    """The fields with the narrowest types that all good rows of the table `judged` fit.

    Text is a category when its values are short and on average appear at least twice.
    """
    reserved = DATASETS[kind].reserved
    measured = ", ".join(
        _measured(n) if name not in reserved else f"[count(f{n})]"
        for n, name in enumerate(mapping.fields)
    )
    [(total, *counts)] = database.run(
        f"SELECT count(*), {measured} FROM judged WHERE verdict IS NULL", doing="counting"
    )
    return [
        Field(name, _TYPES[name], values[0] < total)
        if name in reserved
        else _field(name, total, *values)
        for name, values in zip(mapping.fields, counts, strict=True)
    ]


def _measured(n: int) -> str:
    # A number with a leading zero is a code: as a number it would lose it.
    return rf"""[count(f{n}),
      count(*) FILTER (regexp_full_match(f{n}, '[+-]?(0|[1-9]\d{{0,17}})')),
      count(*) FILTER (number(f{n}) IS NOT NULL AND NOT regexp_matches(f{n}, '^[+-]?0\d')),
      count(truth(f{n})), coalesce(max(length(f{n})), 0), approx_count_distinct(f{n})]"""


def _field(
    name: str,
    total: int,
    present: int,
    whole: int,
    numbers: int,
    truths: int,
    longest: int,
    different: int,
) -> Field:
    is_nullable = present < total
    if present:
        for type_, fitting in (("long", whole), ("double", numbers), ("boolean", truths)):
            if fitting == present:
                return Field(name, type_, is_nullable)
    is_categorical = longest <= MAX_CATEGORY_CHARS and different * 2 <= present
    return Field(name, "string", is_nullable, is_categorical)


def as_json(kind: DatasetKind, fields: Sequence[Field]) -> str:
    """The schema as JSON text.

    >>> json.loads(as_json("users", [Field("USER_ID", "string", False)]))["name"]
    'Users'
    """
    described = [
        {"name": field.name, "type": ["null", field.type] if field.is_nullable else field.type}
        | ({"categorical": True} if field.is_categorical else {})
        for field in fields
    ]
    schema = {
        "type": "record",
        "name": DATASETS[kind].schema,
        "namespace": "com.amazonaws.personalize.schema",
        "fields": described,
        "version": "1.0",
    }
    return json.dumps(schema, indent=2) + "\n"
