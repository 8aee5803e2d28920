"""The list inside a JSON document, read in chunks: the same as by `json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.errors import UnreadableRecording
from streams.reading.records.json_records import MAX_TEXT_CHARS, list_at_path

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('ab"\\[]{},: é\n'))
)
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "rows", 'b"', "x"]), inner, max_size=3)
    ),
    max_leaves=25,
)


@given(
    documents,
    st.lists(st.sampled_from(["a", "rows", 'b"']), min_size=1, max_size=2),
    st.integers(1, 7),
    st.booleans(),
)
@example({"x": {"rows": [1]}, "rows": [{"rows": [2]}]}, ["rows"], 1, False)
@example([{"rows": [1]}], ["rows"], 3, True)
def test_the_list_is_found_in_any_document(
    document: Any, path: list[str], size: int, is_ascii: bool
) -> None:
    """For any document cut anywhere, the list is the one that reading it whole gives."""
    text = json.dumps(document, indent=size % 3 or None, ensure_ascii=is_ascii)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    there = document
    for key in path:
        there = there.get(key) if isinstance(there, dict) else None
    try:
        found = json.loads("".join(list_at_path(pieces, path)))
    except UnreadableRecording:
        found = None
    assert found == (there if isinstance(there, list) else None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends too early"),
        ('{"rows": [1, 2', "ends too early"),
        ('{"rows": ["a', "ends too early"),
        ('{"rows": 1}', "no list at rows"),
        ('{"rows": {"a": []}}', "no list at rows"),
        ('{"a": []}', "no list at rows"),
        ("[]", "no list at rows"),
        ("]", "no list at rows"),
    ],
)
def test_a_missing_list_is_an_error(text: str, reason: str) -> None:
    """The error tells a truncated document from one without the list."""
    with pytest.raises(UnreadableRecording, match=reason):
        list(list_at_path([text], ["rows"]))


def test_memory_stays_bounded() -> None:
    """A string without an end is an error after the longest allowed length."""

    def endless() -> Iterator[str]:
        yield '{"rows": ["'
        while True:
            yield "x" * 65536

    with pytest.raises(UnreadableRecording, match=f"more than {MAX_TEXT_CHARS} characters"):
        list(list_at_path(endless(), ["rows"]))
