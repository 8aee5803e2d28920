"""The Avro schema of a prepared dataset, for Amazon Personalize's CreateSchema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from streams.preparation.database import PreparationDatabase, identifier
from streams.reading.column_mapping import DATASETS, ColumnMapping, DatasetKind

MAX_CATEGORY_CHARS = 1000
"""Longest category; an import with a longer one fails."""

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


class SchemaField(NamedTuple):
    """A field with its Avro type; nullable if it may be empty, categorical for categories."""

    name: str
    type: str
    is_nullable: bool
    is_categorical: bool = False


def fields_of(
    database: PreparationDatabase, kind: DatasetKind, mapping: ColumnMapping
) -> list[SchemaField]:
    """The fields with the narrowest types that fit all kept rows of the table `checked`.

    A text is a category if its values are short and occur twice or more on average.
    """
    reserved = DATASETS[kind].reserved
    measured = ", ".join(
        f"[count({identifier(name)})]" if name in reserved else _type_counts(identifier(name))
        for name in mapping.fields
    )
    [(total, *counts)] = database.run(
        f"SELECT count(*), {measured} FROM checked WHERE _reason IS NULL", doing="counting"
    )
    return [
        SchemaField(name, _TYPES[name], values[0] < total)
        if name in reserved
        else _field(name, total, *values)
        for name, values in zip(mapping.fields, counts, strict=True)
    ]


def _type_counts(column: str) -> str:
    """SQL of the arguments of `_field` for a quoted column, as a list."""
    # A number with a leading zero is a code, which would lose the zero as a number.
    return rf"""[count({column}),
      count(*) FILTER (regexp_full_match({column}, '[+-]?(0|[1-9]\d{{0,17}})')),
      count(*) FILTER (
        number({column}) IS NOT NULL AND NOT regexp_matches({column}, '^[+-]?0\d')),
      count(truth({column})), coalesce(max(length({column})), 0),
      approx_count_distinct({column})]"""


def _field(
    name: str,
    total: int,
    present: int,
    whole: int,
    numbers: int,
    truths: int,
    longest: int,
    different: int,
) -> SchemaField:
    is_nullable = present < total
    if present:
        for type_, fitting in (("long", whole), ("double", numbers), ("boolean", truths)):
            if fitting == present:
                return SchemaField(name, type_, is_nullable)
    is_categorical = longest <= MAX_CATEGORY_CHARS and different * 2 <= present
    return SchemaField(name, "string", is_nullable, is_categorical)


def as_json(kind: DatasetKind, fields: Sequence[SchemaField]) -> str:
    """The schema as JSON text.

    >>> json.loads(as_json("users", [SchemaField("USER_ID", "string", False)]))["name"]
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
