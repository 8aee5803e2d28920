"""Terms of items' texts and embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRecord
from models.item_terms import MAX_TERMS, terms_of
from models.metadata_records import validate_properties


def shared(one: dict[str, str], other: dict[str, str]) -> int:
    """How many terms two items have in common."""
    return len({*terms_of(one)} & {*terms_of(other)})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red lamp", "LAMP, blue"),
        ("Kinderfahrrad", "Fahrräder"),
        ("ΛΑΜΠΑ", "λαμπα"),
        ("красная лампа", "ЛАМПА"),
        ("红色台灯", "台灯套装"),
        ("ﬁne cup", "fine"),
    ],
)
def test_similar_titles_share_terms_in_any_language(one: str, other: str) -> None:
    """Words whatever their case, parts of compounds, and pairs of letters without spaces."""
    assert shared({"TITLE": one}, {"title": other}) >= 1
    assert shared({"TITLE": one}, {"TITLE": "0"}) == 0


@given(st.dictionaries(st.text(max_size=9), st.one_of(st.text(), st.integers()), max_size=9))
def test_any_properties_have_few_distinct_terms(properties: dict[str, str]) -> None:
    """Whatever a record holds: bounded, distinct, ascending, and never 0, which stands for none."""
    properties = {name: text for name, text in properties.items() if name.lower() != "embedding"}
    terms = terms_of(properties)
    assert terms == sorted(set(terms))
    assert len(terms) <= MAX_TERMS
    assert all(0 < term < 2**32 for term in terms)


def test_pictures_and_numbers_are_no_words() -> None:
    """Addresses say nothing of an item."""
    assert terms_of({"IMAGE": "https://shop.example/lamp.png", "PRICE": 9.5}) == []


def test_a_long_description_leaves_the_title_its_terms() -> None:
    """The title comes first, whatever the order of properties."""
    words = " ".join(f"word{n}" for n in range(90))
    assert shared({"DESCRIPTION": words, "TITLE": "lamp"}, {"TITLE": "lamp"}) == 1


def test_near_embeddings_share_buckets() -> None:
    """The more, the nearer they are; and the same in any process."""
    rng = np.random.default_rng(1)
    vector, noise = rng.normal(size=(2, 64))

    def embedded(numbers: np.ndarray) -> dict[str, str]:
        return {"EMBEDDING": ",".join(f"{number:.4f}" for number in numbers)}

    near = shared(embedded(vector), embedded(vector + 0.1 * noise))
    assert near >= 4
    assert shared(embedded(vector), embedded(noise)) < near
    assert shared(embedded(vector), embedded(3 * vector)) == 12
    assert terms_of({"EMBEDDING": "1 0 0"})[:2] == terms_of({"embedding": "[2, 0, 0]"})[:2]


@pytest.mark.parametrize("text", ["red", "1", "1,,nan", "inf 1", "0 0", "1 " * 3000])
def test_what_is_no_embedding_is_refused(text: str) -> None:
    """With an error that names the property, before it reaches Kafka or a worker's step."""
    with pytest.raises(InvalidRecord, match="EMBEDDING"):
        validate_properties("items", "lamp", {"EMBEDDING": text})
    validate_properties("users", "ada", {"EMBEDDING": text})
