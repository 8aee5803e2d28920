"""Settings from environment variables."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from models.errors import InvalidSetting
from models.settings import Settings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("CORS_ORIGINS", "https://a.example, https://b.example", ["https://a.example", "https://b.example"]),
        ("CORS_ORIGINS", '["https://a.example"]', ["https://a.example"]),
        ("CORS_ORIGINS", "*", ["*"]),
        ("CORS_ORIGINS", "", []),
        ("PURCHASE_TYPES", "buy,Order,", frozenset({"buy", "order"})),
        ("EVENT_WEIGHTS", "cart=2, buy=3.5", {"cart": 2.0, "buy": 3.5}),
        ("EVENT_WEIGHTS", '{"cart": 2}', {"cart": 2.0}),
        ("FORWARD_TRACKING_IDS", "shop=a=b", {"shop": "a=b"}),
    ],
)  # fmt: skip
def test_lists_and_mappings_are_read_in_two_forms(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: object
) -> None:
    """`a,b` or JSON, `a=1,b=2` or JSON."""
    monkeypatch.setenv(f"RECOMMENDER_{name}", text)
    assert getattr(Settings(), name.lower()) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("CORS_ORIGINS", '["https://a.example"', "no JSON at character"),
        ("CORS_ORIGINS", '{"a": "b"}', "must be a list"),
        ("EVENT_WEIGHTS", '["cart"]', "must be a mapping"),
        ("PERSONALIZE_ACCESS_KEYS", "id=fine,Pl4nted", "entry 2 is not name=value"),
        ("PERSONALIZE_ACCESS_KEYS", '{"id": "Pl4nted"', "no JSON"),
    ],
)
def test_unreadable_values_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    """And never repeat the value, which may be a secret."""
    monkeypatch.setenv(f"RECOMMENDER_{name}", text)
    with pytest.raises(InvalidSetting, match=f"RECOMMENDER_{name}.*{said}") as raised:
        Settings()
    assert "Pl4nted" not in str(raised.value)


def test_a_wrong_entry_names_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that is not a number."""
    monkeypatch.setenv("RECOMMENDER_EVENT_WEIGHTS", "cart=much")
    with pytest.raises(ValidationError, match=r"event_weights\.cart"):
        Settings()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RECOMMENDER_PARTITION", "did you mean RECOMMENDER_PARTITIONS?"),
        ("RECOMMENDER_REDIS_URL", "did you mean RECOMMENDER_REDIS?"),
        ("recommender_kafak", "did you mean RECOMMENDER_KAFKA?"),
        ("RECOMMENDER_QQ", "the README lists"),
    ],
)
def test_a_misspelt_variable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    """With the nearest name."""
    monkeypatch.setenv(name, "8")
    with pytest.raises(InvalidSetting) as raised:
        Settings()
    assert name in str(raised.value)
    assert hint in str(raised.value)
