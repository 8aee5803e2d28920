"""Mapping of columns to fields: guesses, options, and errors."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.errors import CannotPrepare
from streams.reading.column_mapping import (
    DATASETS,
    ColumnOptions,
    DatasetKind,
    field_name,
    map_columns,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "columns", "fields"),
    [
        (
            "interactions",
            ["USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE", "EVENT_VALUE", "IMPRESSION"],
            {"USER_ID": 0, "ITEM_ID": 1, "TIMESTAMP": 2, "EVENT_TYPE": 3, "EVENT_VALUE": 4,
             "IMPRESSION": 5},
        ),
        ("interactions", ["date", "asin", "reviewerID"], {"USER_ID": 2, "ITEM_ID": 1,
                                                          "TIMESTAMP": 0}),
        ("interactions", ["ts", "Customer ID", "visitor", "sku", "item-id"],
         {"USER_ID": 1, "ITEM_ID": 4, "TIMESTAMP": 0}),
        ("items", ["price", "id", "created_at"], {"ITEM_ID": 1, "CREATION_TIMESTAMP": 2,
                                                  "PRICE": 0}),
        ("users", ["id", "user", "age"], {"USER_ID": 1, "ID": 0, "AGE": 2}),
    ],
)  # fmt: skip
def test_columns_are_guessed_by_name(
    kind: DatasetKind, columns: list[str], fields: dict[str, int]
) -> None:
    """Columns are recognised by their usual names, the likeliest first."""
    mapping = map_columns(kind, columns, ColumnOptions())
    assert mapping.fields == fields
    assert [use.column for use in mapping.assignments] == columns


def test_a_value_is_only_guessed_beside_a_type() -> None:
    """A rating without a type of event stays out, and gets in with one."""
    columns = ["user", "item", "ts", "rating"]
    assert "EVENT_VALUE" not in map_columns("interactions", columns, ColumnOptions()).fields
    assert map_columns("interactions", columns, ColumnOptions(event_type="rate")).fields == {
        "USER_ID": 0, "ITEM_ID": 1, "TIMESTAMP": 2, "EVENT_TYPE": "rate", "EVENT_VALUE": 3,
    }  # fmt: skip


def test_options_come_before_guesses() -> None:
    """Options apply first; dropped and kept columns are not guessed."""
    columns = ["user", "customer", "item", "ts", "rating", "note", "Price"]
    column_options = ColumnOptions({"USER_ID": "CUSTOMER", "REMARK": "note"}, ["price"], ["rating"],
                event_type="buy")  # fmt: skip
    mapping = map_columns("interactions", columns, column_options)
    assert mapping.fields == {
        "USER_ID": 1, "ITEM_ID": 2, "TIMESTAMP": 3, "EVENT_TYPE": "buy", "REMARK": 5, "PRICE": 6,
    }  # fmt: skip
    assert {use.column: use.why for use in mapping.assignments} == {
        "user": "not mapped", "customer": "by --map", "item": "guessed", "ts": "guessed",
        "rating": "dropped", "note": "by --map", "Price": "kept",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "columns", "column_options", "reason"),
    [
        ("interactions", ["a", "b", "c"], ColumnOptions(), "looks like USER_ID among a, b, c"),
        ("interactions", ["user", "item"], ColumnOptions(), "--map TIMESTAMP=COLUMN"),
        ("interactions", ["user", "item", "ts"],
         ColumnOptions({"x": "user"}), "'x' cannot be a field"),
        ("interactions", ["user", "item", "ts"],
         ColumnOptions({"USER_ID": "who"}), "no column 'who'"),
        ("interactions", ["user", "item", "ts"], ColumnOptions(drop=["who"]), "no column 'who'"),
        ("interactions", ["user", "item", "ts"],
         ColumnOptions(drop=["user"]), "looks like USER_ID"),
        ("interactions", ["user", "item", "ts", "type"],
         ColumnOptions({"EVENT_TYPE": "type"}, event_type="buy"), "leave --event-type out"),
        ("interactions", ["user", "item", "ts", *"abcdef"],
         ColumnOptions(keep=[*"abcdef"]), "0 to 5"),
        ("interactions", ["user", "item", "ts", "a b", "a-b"], ColumnOptions(keep=["a b", "a-b"]),
         "would both be A_B"),
        ("interactions", ["user", "item", "ts", "é"], ColumnOptions(keep=["é"]), "--map NAME=é"),
        ("items", ["item"], ColumnOptions(), "1 to 100"),
        ("users", ["user", *(f"c{n}" for n in range(26))], ColumnOptions(), "1 to 25"),
        ("users", ["user", "A", "a"], ColumnOptions(keep=["A", "a"]), "would both be A"),
    ],
)  # fmt: skip
def test_ambiguous_or_missing_columns_are_errors(
    kind: DatasetKind, columns: list[str], column_options: ColumnOptions, reason: str
) -> None:
    """The error names the column and the way out."""
    with pytest.raises(CannotPrepare, match=re.escape(reason)):
        map_columns(kind, columns, column_options)


@given(
    st.sampled_from(["interactions", "items", "users"]),
    st.lists(st.text("abUIts_id 1é", min_size=1, max_size=6), unique=True, max_size=8),
)
def test_any_columns_give_a_mapping_or_an_error(kind: DatasetKind, columns: list[str]) -> None:
    """A mapping has the required fields, in order, each column once, and only valid names."""
    try:
        mapping = map_columns(kind, columns, ColumnOptions())
    except CannotPrepare:
        return
    used = list(mapping.fields.values())
    assert len(set(used)) == len(used)
    assert set(DATASETS[kind].required) <= mapping.fields.keys()
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", name) for name in mapping.fields)
    assert [use.field for use in mapping.assignments if use.field] == sorted(
        mapping.fields, key=lambda name: int(mapping.fields[name])
    )


@given(st.text(max_size=100))
@example("A0a")
@example("A" * 62 + "_B")
def test_a_field_name_is_unchanged(column: str) -> None:
    """A name that was made a field's once is one."""
    try:
        name = field_name(column)
    except CannotPrepare:
        return
    assert field_name(name) == name
