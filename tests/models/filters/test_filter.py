"""Filters, on examples and against a naive evaluator."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.filters import attribute_queries
from models.filters.filter import (
    INTERACTIONS_PER_TYPE,
    ReadPart,
    parse_filter_expression,
    seen_types,
)
from tests.models.filters.naive_filters import IDS, SCENES, allowed_by_rules, filters, sent, written

pytestmark = pytest.mark.unit

ITEMS: dict[str, dict[str, Any] | None] = {
    "heat": {"GENRE": "crime|drama", "LENGTH": 170, "YEAR": 1995, "STUDIO": "w"},
    "big": {"GENRE": "comedy", "LENGTH": 104, "YEAR": "1988", "STUDIO": "f"},
    "up": {"genre": "comedy|drama", "length": 96.5, "year": 2009},
    "new": {"GENRE": None, "LENGTH": True},
    "gone": None,
}
SEEN = {"heat": {"play", "Rate"}, "big": {"PLAY"}, "elsewhere": {"play"}, "up": set[str]()}


def shown(text: str, **more: Any) -> str:
    """Items that a filter allows, joined by spaces."""
    told = {"properties": list(ITEMS.values()), "interactions": SEEN, **more}
    allowed = parse_filter_expression(text).allowed(list(ITEMS), **told)
    return " ".join(np.array(list(ITEMS))[allowed])


INCLUDE = "INCLUDE ItemID WHERE"
EXCLUDE = "EXCLUDE ItemID WHERE"
ALL = " ".join(ITEMS)

SHOWN = [
    (f"{INCLUDE} Items.GENRE IN ('drama')", "heat up"),
    (f"{INCLUDE} Items.genre IN ('drama', 'comedy')", "heat big up"),
    (f"{INCLUDE} Items.GENRE IN ('Drama')", ""),
    (f"{INCLUDE} Items.GENRE IN ('crime|drama')", ""),
    (f"{INCLUDE} Items.GENRE NOT IN ('drama')", "big new gone"),
    (f"{EXCLUDE} Items.GENRE NOT IN ('drama')", "heat up"),
    (f"{INCLUDE} Items.GENRE = 'drama'", "heat up"),
    (f"{INCLUDE} Items.GENRE != 'drama'", "big new gone"),
    (f"{INCLUDE} Items.LENGTH < 104", "up"),
    (f"{INCLUDE} Items.LENGTH <= 104", "big up"),
    (f"{INCLUDE} Items.LENGTH > 104", "heat"),
    (f"{INCLUDE} Items.LENGTH >= 96.5", "heat big up"),
    (f"{INCLUDE} Items.LENGTH = 1.04e2", "big"),
    (f"{INCLUDE} Items.LENGTH != 104", "heat up new gone"),
    (f"{INCLUDE} Items.LENGTH = 1", ""),
    (f"{INCLUDE} Items.YEAR IN (1995.0, 1988, '2009')", "heat big up"),
    (f"{INCLUDE} Items.YEAR IN ('1995', '1988.0')", "heat"),
    (f"{INCLUDE} Items.YEAR > 1987 AND Items.YEAR < 2000", "heat big"),
    (f"{INCLUDE} Items.NOWHERE < 9", ""),
    (f"{INCLUDE} Items.ITEM_ID IN ('heat', 'gone')", "heat gone"),
    (f"{EXCLUDE} Items.itemId != 'up'", "up"),
    (f"{INCLUDE} Items.YEAR = 1988 OR Items.YEAR = 1995 AND Items.GENRE = 'comedy'", "big"),
    (f"{INCLUDE} Items.GENRE = 'comedy' AND Items.YEAR = 1995 OR Items.YEAR = 1988", "big"),
    (f"{INCLUDE} Interactions.EVENT_TYPE IN ('play')", "heat big"),
    (f"{INCLUDE} Interactions.EVENT_TYPE IN ('RATE')", "heat"),
    (f"{EXCLUDE} Interactions.EVENT_TYPE IN ('*')", "up new gone"),
    (f"{INCLUDE} Interactions.EVENT_TYPE NOT IN ('rate')", "big up new gone"),
    (f"{INCLUDE} Interactions.EVENT_TYPE = 'play' AND Interactions.EVENT_TYPE != 'rate'", "big"),
    (f"{INCLUDE} Interactions.EVENT_TYPE IN ('play, rate')", ""),
    (f"{INCLUDE} Items.YEAR = 1995 | {INCLUDE} Items.YEAR = 2009", "heat up"),
    (f"{EXCLUDE} Items.YEAR = 1995 | {EXCLUDE} Items.YEAR = 2009", "big new gone"),
    (f"{INCLUDE} Items.GENRE = 'drama' | {EXCLUDE} Interactions.EVENT_TYPE = 'play'", "up"),
    (f"{EXCLUDE} Interactions.EVENT_TYPE = 'play' | {INCLUDE} Items.GENRE = 'drama'", "up"),
]  # fmt: skip


def test_allowed_items() -> None:
    """Each kind of condition, and combinations, on five items."""
    assert [(text, shown(text)) for text, _ in SHOWN] == SHOWN


def test_conditions_on_the_current_item() -> None:
    """By its categories, numbers and texts; an absent property equals nothing."""
    item = {"Genre": "drama|war", "length": "104", "STUDIO": "f", "STARS": 3}

    for condition, expected in {
        "Items.GENRE IN CurrentItem.GENRE": "heat up",
        "Items.GENRE NOT IN CurrentItem.GENRE": "big new gone",
        "Items.LENGTH <= CurrentItem.LENGTH": "big up",
        "Items.LENGTH = CurrentItem.LENGTH": "big",
        "Items.STUDIO != CurrentItem.STUDIO": "heat up new gone",
        "Items.LENGTH > CurrentItem.STARS": "heat big up",
        "Items.LENGTH > CurrentItem.GENRE": "",
        "Items.LENGTH > CurrentItem.UNKNOWN": "",
        "Items.LENGTH IN CurrentItem.UNKNOWN": "",
    }.items():
        assert (condition, shown(f"{INCLUDE} {condition}", current_item=item)) == (
            condition,
            expected,
        )
    assert shown(f"{INCLUDE} Items.GENRE IN CurrentItem.GENRE") == ""


def test_an_expression_applies_if_the_user_meets_its_conditions() -> None:
    """Otherwise it is ignored: an INCLUDE restricts no other user."""
    adults = f"{INCLUDE} Items.GENRE = 'crime' IF CurrentUser.AGE >= 18 AND CurrentUser.PLAN != 'x'"

    assert shown(adults, user={"age": 18, "plan": "gold"}) == "heat"
    assert shown(adults, user={"age": "18"}) == "heat"
    for user in ({"age": 17}, {"age": 18, "plan": "x"}, {"age": None}, {}, None):
        assert shown(adults, user=user) == ALL
    assert shown(f"{adults} | {INCLUDE} Items.YEAR = 2009", user={"age": 18}) == "heat up"
    assert shown(f"{adults} | {INCLUDE} Items.YEAR = 2009", user={"age": 9}) == "up"
    assert shown(f"{adults} | {EXCLUDE} Items.YEAR = 2009", user={"age": 9}) == "heat big new gone"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"comedy"', "big up"),
        ("'comedy'", "big up"),
        ("comedy", "big up"),
        ('"crime","comedy"', "heat big up"),
        (" 'crime' , comedy ", "heat big up"),
        ("crime,comedy", "heat big up"),
        ('"crime,comedy"', ""),
        ("'a \"b\"',comedy,", "big up"),
        ("sur l'eau,comedy", "big up"),
        ("Comedy", ""),
        ("", ""),
        (" ", ""),
        (",,", ""),
    ],
)
def test_values_come_in_quotes_and_bare(value: str, expected: str) -> None:
    """Separated by commas; the AWS CLI's shorthand removes the quotes."""
    assert shown(f"{INCLUDE} Items.GENRE IN ($G)", values={"G": value}) == expected
    assert shown(f"{INCLUDE} Items.GENRE IN ('crime', $G)", values={"G": value}) == (
        "heat big up" if "big" in expected else "heat"
    )


def test_values_are_numbers_too() -> None:
    """In comparisons and among the values of IN, in quotes or bare."""
    for value in ("104", '"104"', " 104 ", "1.04e2", "'104.0'"):
        assert shown(f"{INCLUDE} Items.LENGTH <= $N", values={"N": value}) == "big up"
        assert shown(f"{INCLUDE} Items.LENGTH = ($N)", values={"N": value}) == "big"
        assert shown(f"{INCLUDE} Items.LENGTH IN ($N)", values={"N": value}) == "big"
    assert shown(f"{EXCLUDE} Interactions.EVENT_TYPE IN ($T)", values={"T": "*"}) == "up new gone"


def test_parameters_are_case_sensitive_and_others_are_ignored() -> None:
    """$g and $G are two; values of unknown parameters are ignored."""
    text = f"{INCLUDE} Items.GENRE IN ($g) | {EXCLUDE} Items.GENRE IN ($G)"

    assert parse_filter_expression(text).parameters == {"g", "G"}
    assert shown(text, values={"g": "drama", "G": "crime", "x": '"'}) == "up"


def test_an_include_needs_every_value_and_an_exclude_does_not() -> None:
    """The error names missing values; an EXCLUDE without its values is skipped as a whole."""
    text = f"{INCLUDE} Items.GENRE IN ($b, $a) AND Items.YEAR > $c IF CurrentUser.AGE > $d"
    with pytest.raises(InvalidInput, match=r"parameter of an INCLUDE: a, b, d$"):
        shown(text, values={"c": "1"})
    assert parse_filter_expression(text).required == {"a", "b", "c", "d"}

    skipped = f"{EXCLUDE} Items.GENRE = 'crime' AND Items.YEAR > $c | {EXCLUDE} Items.YEAR = 2009"
    assert parse_filter_expression(skipped).required == set()
    assert shown(skipped) == "heat big new gone"
    assert shown(skipped, values={"c": "1"}) == "big new gone"
    assert shown(f"{EXCLUDE} Items.YEAR = 2009 IF CurrentUser.AGE > $d", user={"AGE": 9}) == ALL


@pytest.mark.parametrize(
    ("condition", "values", "message"),
    [
        ("Items.YEAR > $N", {"N": "much"}, "one number for N, it stands after >"),
        ("Items.YEAR > $N", {"N": "1,2"}, "one number for N"),
        ("Items.YEAR > $N", {"N": ""}, "one number for N"),
        ("Items.YEAR > $N", {"N": "nan"}, "one number for N"),
        ("Items.YEAR = $N", {"N": "secret,b"}, "one value for N, it stands after ="),
        ("Items.YEAR IN ($N)", {"N": 'a,"secret'}, "for N .* at character 3 they are not"),
        ("Items.YEAR IN ($N)", {"N": "'secret'b"}, "for N .* at character 1 they are not"),
        ("Items.YEAR IN ($N)", {"N": " " * 999 + '"'}, "at character 1 they are not"),
        ("Items.YEAR IN ($N)", {"N": "s" * 1001}, "at most 1000 characters for N"),
        ("Items.YEAR IN ($N)", {str(n): "a" for n in range(26)}, "at most 25 names, not 26"),
    ],
)
def test_invalid_values(condition: str, values: dict[str, str], message: str) -> None:
    """The error names the parameter and the rule, without the value."""
    with pytest.raises(InvalidInput, match=message) as caught:
        shown(f"{EXCLUDE} {condition}", values=values)

    assert str(caught.value).startswith("filterValues must have ")
    assert "secret" not in str(caught.value)


def test_users_can_be_the_candidates() -> None:
    """A filter of segments reads users' properties, and users' interactions with any item."""
    users = [{"AGE": 31, "PLAN": "gold"}, {"age": 17, "plan": "free"}, None]
    seen = {"u1": {"click"}, "u2": {"Rating", "view"}}

    for text, expected in {
        "EXCLUDE UserID WHERE Users.AGE < 18": [True, False, True],
        "INCLUDE UserID WHERE Users.PLAN IN ('gold') OR Users.AGE < 18": [True, True, False],
        "INCLUDE UserID WHERE Users.USER_ID IN ('u3')": [False, False, True],
        "INCLUDE UserID WHERE Interactions.EVENT_TYPE IN ('click', 'rating')": [True, True, False],
        "EXCLUDE UserID WHERE Interactions.EVENT_TYPE IN ('rating')": [True, False, True],
    }.items():
        found = parse_filter_expression(text)
        allowed = found.allowed(["u1", "u2", "u3"], properties=users, interactions=seen)
        assert (text, allowed.tolist()) == (text, expected)
        assert found.target == "UserID"


def test_a_filter_names_the_data_it_reads() -> None:
    """Other data can be left out."""
    reads: dict[str, set[ReadPart]] = {
        f"{INCLUDE} Items.GENRE = 'a'": {"properties"},
        f"{INCLUDE} Items.ITEM_ID = 'a'": set(),
        f"{EXCLUDE} Interactions.EVENT_TYPE = 'a'": {"interactions"},
        f"{INCLUDE} Items.A = CurrentItem.A": {"properties", "current_item"},
        f"{INCLUDE} Items.ITEM_ID = 'a' IF CurrentUser.A = 1": {"user"},
        f"{INCLUDE} Items.A = 1 | {EXCLUDE} Interactions.EVENT_TYPE = 'a' IF CurrentUser.A = 1": {
            "properties", "interactions", "user",
        },
        "INCLUDE ActionID WHERE Actions.A = 1 | EXCLUDE ActionID WHERE "
        "Action_Interactions.EVENT_TYPE = 'a'": {"properties", "interactions"},
    }  # fmt: skip

    assert {text: set(parse_filter_expression(text).reads) for text in reads} == reads
    assert parse_filter_expression(f"{EXCLUDE} Interactions.EVENT_TYPE = 'a'").allowed(
        ["i"]
    ).tolist() == [True]
    with pytest.raises(ValueError, match="2 candidates, but properties of 1"):
        parse_filter_expression(f"{INCLUDE} Items.GENRE = 'a'").allowed(["i", "j"], properties=[{}])


def test_fields_are_counted_once_however_they_are_spelled() -> None:
    """The current user's are users' fields, the current item's are items' fields."""
    text = (
        f"{INCLUDE} Items.NUM_RATINGS > CurrentItem.numRatings IF CurrentUser.num_ratings > 1"
        f" | {EXCLUDE} Interactions.EVENT_TYPE IN ('*')"
    )

    assert parse_filter_expression(text).fields == {
        "Items.numratings", "Users.numratings", "Interactions.eventtype",
    }  # fmt: skip


def test_a_field_has_one_value() -> None:
    """Of two spellings of a field, the one of the filter counts."""
    twice: list[dict[str, Any]] = [
        {"numRatings": 1, "NUM_RATINGS": 2},
        {"NUM_RATINGS": None, "numRatings": 3},
    ]

    for field, value in {"numRatings": 1, "NUM_RATINGS": 2, "num_ratings": 2}.items():
        one = parse_filter_expression(f"{INCLUDE} Items.{field} = {value} OR Items.{field} = 3")
        assert one.allowed(["i", "j"], properties=twice).tolist() == [True, True]
        one = parse_filter_expression(f"{INCLUDE} Items.{field} = {3 - value}")
        assert one.allowed(["i", "j"], properties=twice).tolist() == [False, False]


def test_types_are_seen_in_the_latest_interactions() -> None:
    """The service's number of latest interactions of each type, in any case."""
    many = [(f"i{n}", "click" if n % 3 else "CLICK") for n in range(150)]

    seen = seen_types([*many, ("late", "view"), ("i0", "View")])

    assert set(seen) == {f"i{n}" for n in range(INTERACTIONS_PER_TYPE["ItemID"])} | {"late"}
    assert seen["i0"] == {"click", "view"}


def test_attribute_queries_match_items() -> None:
    """An item must meet all conditions."""
    for text, expected in {
        "ITEMS.genre = 'drama' AND ITEMS.genre = 'comedy'": ["up"],
        "Items.YEAR = 1988": ["big"],
        "Items.item_id = 'gone'": ["gone"],
        "Items.genre = 'drama' AND Items.studio = 'f'": [],
    }.items():
        matching = attribute_queries.parse_attribute_query(text).matching(
            list(ITEMS), list(ITEMS.values())
        )
        assert np.array(list(ITEMS))[matching].tolist() == expected


@settings(max_examples=200)
@given(filters(), SCENES, st.integers(0, 2**32))
def test_a_naive_evaluator_agrees(
    expressions: list[dict[str, Any]], scene: dict[str, Any], seed: int
) -> None:
    """Random filters, in any form, allow what the naive rules allow; inputs stay unchanged."""
    chance = random.Random(seed)
    found = parse_filter_expression(written(expressions, chance))
    told: dict[str, Any] = {
        "properties": scene["properties"], "interactions": scene["seen"], "user": scene["user"],
        "current_item": scene["current_item"], "values": sent(scene["values"], chance),
    }  # fmt: skip
    before = copy.deepcopy(told)

    expected = allowed_by_rules(expressions, scene)

    if expected is None:
        with pytest.raises(InvalidInput, match="value for every parameter of an INCLUDE"):
            found.allowed(IDS, **told)
    else:
        assert found.allowed(IDS, **told).tolist() == expected
        assert parse_filter_expression(str(found)).allowed(IDS, **told).tolist() == expected
        read = {name: told[name] for name in (*found.reads, "values")}
        assert found.allowed(IDS, **read).tolist() == expected
    assert told == before


@settings(max_examples=100)
@given(filters(), SCENES, st.integers(0, 2**32))
def test_values_may_be_written_into_a_filter(
    expressions: list[dict[str, Any]], scene: dict[str, Any], seed: int
) -> None:
    """It allows the same as with the values beside it."""
    chance = random.Random(seed)
    found = parse_filter_expression(written(expressions, chance))
    values = sent(scene["values"], chance)
    told: dict[str, Any] = {
        "properties": scene["properties"], "interactions": scene["seen"], "user": scene["user"],
        "current_item": scene["current_item"],
    }  # fmt: skip
    try:
        expected = found.allowed(IDS, **told, values=values).tolist()
    except InvalidInput as error:
        with pytest.raises(InvalidInput, match=re.escape(str(error))):
            found.with_values(values)
        return

    bound = found.with_values(values)

    if bound is None:
        assert expected == [True] * len(IDS)
    else:
        assert not bound.parameters
        assert bound.allowed(IDS, **told).tolist() == expected


def test_the_document_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Its expressions are in standard form, and its Python prints what it shows."""
    text = (Path(__file__).parents[3] / "docs" / "filters.md").read_text()
    (expressions,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    exec(compile(code, "docs/filters.md", "exec"), {})  # noqa: S102

    assert [
        str(parse_filter_expression(line)) for line in expressions.splitlines()
    ] == expressions.splitlines()
    first, second = capsys.readouterr().out.splitlines()
    assert f"prints `{first}` and `{second}`" in text
