"""Schemas of datasets: parsing, and the rules of dataset types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.personalize.datasets.dataset_schemas import (
    MAX_METADATA,
    Column,
    check_columns,
    check_replacement,
    dataset_type_of,
    parse_schema,
)

pytestmark = pytest.mark.unit

KEYS = {
    "INTERACTIONS": [("USER_ID", "string"), ("ITEM_ID", "string"), ("TIMESTAMP", "long")],
    "ITEMS": [("ITEM_ID", "string")],
    "USERS": [("USER_ID", "string")],
    "ACTIONS": [("ACTION_ID", "string")],
    "ACTION_INTERACTIONS": [
        ("USER_ID", "string"),
        ("ACTION_ID", "string"),
        ("EVENT_TYPE", "string"),
        ("TIMESTAMP", "long"),
    ],
}
CATEGORY = {"type": "string", "categorical": True}
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "name", "fields", "categorical", "textual"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


def text(*fields: tuple[str, Any], **more: Any) -> str:
    """A schema of these fields: a name, and a type or all other members."""
    listed = [
        {"name": name, **(one if isinstance(one, dict) else {"type": one})} for name, one in fields
    ]
    return json.dumps({"type": "record", "name": "Items", "fields": listed, **more})


def test_columns_keep_types_flags_and_order() -> None:
    """Unions, categorical and textual columns."""
    schema = parse_schema(
        text(
            ("ITEM_ID", "string"),
            ("GENRES", {"type": ["null", "string"], "categorical": True}),
            ("ABOUT", {"type": "string", "textual": True, "categorical": False}),
            ("PRICE", ["float", "null"]),
            namespace="com.amazonaws.personalize.schema",
            version="1.0",
        )
    )

    assert schema.columns == (
        Column("ITEM_ID", frozenset({"string"})),
        Column("GENRES", frozenset({"null", "string"}), is_categorical=True),
        Column("ABOUT", frozenset({"string"}), is_textual=True),
        Column("PRICE", frozenset({"float", "null"})),
    )
    assert [column.is_nullable for column in schema.columns] == [False, True, False, True]
    assert schema.column("PRICE") is schema.columns[3]
    assert schema.column("price") is None


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("", "schema is not JSON"),
        (text(("A", "string"))[:-1], "schema is not JSON"),
        ("[" * 5000, "schema is not JSON"),
        ("[]", '"type": "record"'),
        ('{"type": "enum", "name": "X", "fields": []}', '"type": "record"'),
        (text(("A", "string"), name=None), r"schema.name must be a string"),
        (text(), "one field or more"),
        (text(("A", "string"), fields={}), "one field or more"),
        (text(("A", "string"), fields=["A"]), r"schema.fields\[0\] must be a JSON object"),
        (text(("A", "string"), ("B C", "int")), r"fields\[1\].name must be letters.*'B C'"),
        (text(("", "string")), r"fields\[0\].name"),
        (text(("A" * 200, "string")), r"fields\[0\].name must be .*A…"),
        (text((None, "string")), r"fields\[0\].name must be .*None"),  # type: ignore[arg-type]
        (text(("A", "string"), ("a", "long")), "a appears twice"),
        (text(("A", "date")), r"\(A\).type: no such type: 'date'"),
        (text(("A", ["string", 5])), "no such type: 5"),
        (text(("A", [["string"]])), "no such type: a list"),
        (text(("A", {"type": {"type": "array"}})), "flat"),
        (text(("A", [])), "other than null"),
        (text(("A", "null")), "other than null"),
        (text(("A", {})), "no such type: None"),
        (text(("A", {"type": "string", "categorical": "yes"})), "true or false, not 'yes'"),
        (text(("A", {"type": "long", "categorical": True})), "only a string"),
        (text(("A", {"type": "string", "categorical": True, "textual": True})), "either"),
    ],
)
def test_invalid_schemas_name_the_member(schema: str, message: str) -> None:
    """The error has the member and the rule."""
    with pytest.raises(InvalidInput, match=message):
        parse_schema(schema)


@given(JSON)
def test_any_json_is_a_schema_or_invalid_input(document: Any) -> None:
    """Nothing else is raised."""
    try:
        schema = parse_schema(json.dumps(document))
    except InvalidInput:
        return
    assert schema.columns


@pytest.mark.parametrize("dataset_type", KEYS)
def test_required_columns(dataset_type: str) -> None:
    """Each is required, of its type, and never null."""
    keys = KEYS[dataset_type]
    whole = [*keys, ("AGE", "int")]
    check_columns(parse_schema(text(*whole)), dataset_type, None)
    for n, (name, kind) in enumerate(keys):
        without = [*whole[:n], *whole[n + 1 :]]
        with pytest.raises(
            InvalidInput, match=f"{dataset_type} schema must have the column {name}"
        ):
            check_columns(parse_schema(text(*without)), dataset_type, None)
        for wrong, message in (("boolean", "must be"), ([kind, "null"], "may not be null")):
            changed = [*without, (name, wrong)]
            with pytest.raises(InvalidInput, match=f"the column {name} of .* {message}"):
                check_columns(parse_schema(text(*changed)), dataset_type, None)


@pytest.mark.parametrize(
    ("dataset_type", "column", "good", "wrong"),
    [
        ("INTERACTIONS", "EVENT_TYPE", ["string", "null"], "long"),
        ("INTERACTIONS", "EVENT_VALUE", ["float", "null"], "string"),
        ("INTERACTIONS", "IMPRESSION", "string", ["string", "int"]),
        ("INTERACTIONS", "RECOMMENDATION_ID", ["null", "string"], "int"),
        ("INTERACTIONS", "EVENT_ATTRIBUTION_SOURCE", "string", "boolean"),
        ("ITEMS", "CREATION_TIMESTAMP", "long", "string"),
    ],
)
def test_reserved_columns_have_their_type(
    dataset_type: str, column: str, good: Any, wrong: Any
) -> None:
    """They may be absent or nullable, of the reserved type."""
    check_columns(parse_schema(text(*KEYS[dataset_type], (column, good))), dataset_type, None)
    with pytest.raises(InvalidInput, match=f"the column {column} of"):
        check_columns(parse_schema(text(*KEYS[dataset_type], (column, wrong))), dataset_type, None)


def test_metadata_columns_are_bounded() -> None:
    """Items and users have one or more; no dataset type exceeds its limit."""
    for dataset_type, most in MAX_METADATA.items():
        many = [(f"C{n}", "int") for n in range(most)]
        check_columns(parse_schema(text(*KEYS[dataset_type], *many)), dataset_type, None)
        with pytest.raises(InvalidInput, match=f"more than {most}"):
            check_columns(
                parse_schema(text(*KEYS[dataset_type], *many, ("MORE", "int"))), dataset_type, None
            )
    for dataset_type in ("ITEMS", "USERS"):
        with pytest.raises(InvalidInput, match="one metadata column or more"):
            check_columns(parse_schema(text(*KEYS[dataset_type])), dataset_type, None)
    textual = {"type": "string", "textual": True}
    check_columns(parse_schema(text(*KEYS["ITEMS"], ("T", textual))), "ITEMS", None)
    for fields in (
        [*KEYS["USERS"], ("T", textual)],
        [*KEYS["ITEMS"], ("T", textual), ("U", textual)],
    ):
        dataset_type = "USERS" if len(fields) == 2 else "ITEMS"
        with pytest.raises(InvalidInput, match="may not have the textual column"):
            check_columns(parse_schema(text(*fields)), dataset_type, None)


@pytest.mark.parametrize(
    ("domain", "dataset_type", "more"),
    [
        ("ECOMMERCE", "INTERACTIONS", [("EVENT_TYPE", "string")]),
        ("ECOMMERCE", "ITEMS", [("PRICE", "float"), ("CATEGORY_L1", CATEGORY)]),
        ("VIDEO_ON_DEMAND", "INTERACTIONS", [("EVENT_TYPE", "string")]),
        ("VIDEO_ON_DEMAND", "ITEMS", [("GENRES", CATEGORY), ("CREATION_TIMESTAMP", "long")]),
    ],
)
def test_domains_require_further_columns(
    domain: str, dataset_type: str, more: list[tuple[str, Any]]
) -> None:
    """Each by its name, type and flags."""
    keys = KEYS[dataset_type]
    check_columns(parse_schema(text(*keys, *more)), dataset_type, domain)
    for n, (name, _) in enumerate(more):
        rest = [*more[:n], *more[n + 1 :], ("OTHER", "int")]
        with pytest.raises(InvalidInput, match=f"of domain {domain} must have the column {name}"):
            check_columns(parse_schema(text(*keys, *rest)), dataset_type, domain)
        with pytest.raises(InvalidInput, match=f"the column {name} of .* of domain {domain} must"):
            check_columns(parse_schema(text(*keys, *rest, (name, "boolean"))), dataset_type, domain)


def test_video_genres_have_three_names() -> None:
    """Those of Amazon's documents for the first level."""
    for name in ("GENRES", "GENRE_L1", "GENRES_L1"):
        fields = [("ITEM_ID", "string"), (name, CATEGORY), ("CREATION_TIMESTAMP", "long")]
        check_columns(parse_schema(text(*fields)), "ITEMS", "VIDEO_ON_DEMAND")
    plain = [("ITEM_ID", "string"), ("GENRES", "string"), ("CREATION_TIMESTAMP", "long")]
    with pytest.raises(InvalidInput, match=r"GENRES of .* must be categorical"):
        check_columns(parse_schema(text(*plain)), "ITEMS", "VIDEO_ON_DEMAND")


def test_a_schema_is_replaced_by_a_wider_one_only() -> None:
    """Columns stay unchanged, and new ones are nullable."""
    old = parse_schema(text(("USER_ID", "string"), ("AGE", "int")))
    wider = [("AGE", "int"), ("CITY", ["null", "string"]), ("USER_ID", "string")]
    check_replacement(old, parse_schema(text(*wider)))
    with pytest.raises(InvalidInput, match="must have AGE"):
        check_replacement(old, parse_schema(text(("USER_ID", "string"), ("AGE", "long"))))
    with pytest.raises(InvalidInput, match="the new column CITY must have null"):
        check_replacement(old, parse_schema(text(*wider[::2], ("CITY", "string"))))


def test_dataset_types_in_any_case() -> None:
    """Unsupported ones are refused by name."""
    assert dataset_type_of("Items") == "ITEMS"
    assert dataset_type_of("Action_Interactions") == "ACTION_INTERACTIONS"
    with pytest.raises(InvalidInput, match=r"nothing.*INTERACTIONS, ITEMS, USERS, ACTIONS"):
        dataset_type_of("nothing")
