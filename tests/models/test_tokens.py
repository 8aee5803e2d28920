"""Read-your-writes tokens: reading, writing, and invalid ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidToken
from models.tokens import (
    MAX_OFFSET,
    MAX_PARTITION,
    MAX_PARTS,
    MAX_TOKEN_CHARACTERS,
    Position,
    Published,
    Receipt,
    TopicKind,
    parse_token,
    short_incarnation,
)

pytestmark = pytest.mark.unit

KINDS: st.SearchStrategy[TopicKind] = st.sampled_from(("clicks", "purchases", "items", "users"))
PUBLISHED = st.builds(
    Published,
    topic=st.just("any"),
    partition=st.integers(0, MAX_PARTITION),
    offset=st.integers(0, MAX_OFFSET),
    kind=KINDS,
    incarnation=st.sampled_from(("", "cluster/one", "cluster/other")),
)


def short(incarnation: str) -> str:
    """The incarnation's part of a token, if any."""
    return short_incarnation(incarnation) if incarnation else ""


@given(
    st.lists(
        PUBLISHED, min_size=1, max_size=MAX_PARTS, unique_by=lambda one: (one.kind, one.partition)
    )
)
def test_a_token_has_the_receipts_positions(published: list[Published]) -> None:
    """It is short, safe in a URL, and reads back as the positions."""
    token = Receipt(tuple(published)).token()
    assert re.fullmatch(r"[cpiu0-9a-f.-]+", token)
    assert len(token) <= MAX_TOKEN_CHARACTERS
    assert parse_token(token) == [
        Position(one.kind, one.partition, one.offset, short(one.incarnation)) for one in published
    ]


def test_incarnations_of_a_topic_differ() -> None:
    """Equal offsets of a topic and of its successor are different positions."""
    old, new = (
        Receipt((Published("c", 0, 5, "clicks", f"cluster/{topic}"),)).token()
        for topic in ("01a2293c-2b5a-7373-b2f8", "01a2293c-2f12-7303-acee")
    )
    assert old != new
    assert parse_token(old) != parse_token(new)
    assert parse_token("c0-5") == [Position("clicks", 0, 5)]


def test_an_unknown_offset_is_left_out_of_the_token() -> None:
    """A message without an offset cannot be waited for."""
    receipt = Receipt((Published("c", 0, -1, "clicks"), Published("p", 1, 7, "purchases")))
    assert receipt.token() == "p1-7"


def test_a_token_has_one_part_per_partition() -> None:
    """The last offset stands for the earlier ones."""
    published = [Published("i", n % 2, n, "items") for n in (3, 0, 2, 1)]

    assert Receipt(tuple(published)).token() == "i1-3.i0-2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "c0-1.",
        "c0-1..p0-1",
        "x0-1",
        "C0-1",
        "c0_1",
        "c-1-1",
        "c0--1",
        "c00-1",
        "c0-01",
        "c0-1-",
        "c0-1-5f0c2a9",
        "c0-1-5f0c2a911",
        "c0-1-5F0C2A91",
        "c0-1 ",
        "c0-1\n",
        "c\u0660-1",
        f"c{MAX_PARTITION + 1}-0",
        f"c0-{MAX_OFFSET + 1}",
        ".".join(["c0-1"] * (MAX_PARTS + 1)),
        "c0-" + "1" * MAX_TOKEN_CHARACTERS,
    ],
)
def test_other_text_is_no_token(text: str) -> None:
    """Text that no receipt writes is refused."""
    with pytest.raises(InvalidToken):
        parse_token(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Hostile text raises only `InvalidToken`, and valid tokens have one form."""
    try:
        positions = parse_token(text)
    except InvalidToken:
        return
    if len({(p.kind, p.partition) for p in positions}) == len(positions):
        parts = [
            f"{p.kind[0]}{p.partition}-{p.offset}{f'-{p.incarnation}' * bool(p.incarnation)}"
            for p in positions
        ]
        assert ".".join(parts) == text
