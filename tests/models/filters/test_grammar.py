"""The language of filters: valid and invalid texts, positions in errors, and hostile input."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.filters import attribute_queries
from models.filters.filter import Filter, parse_filter_expression
from models.filters.grammar import MAX_CHARACTERS, Condition, Expression, Value

pytestmark = pytest.mark.unit

CORPUS = """
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("purchase")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("play", "skip")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("play, skip")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("*")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ('*')
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN (*)
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ($TYPES)
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE NOT IN ("bookmark")
INCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("bookmark")
INCLUDE ItemID WHERE Interactions.EVENT_TYPE = "bookmark"
EXCLUDE itemId WHERE INTERACTIONS.event_type in ("Purchase")
exclude itemid where interactions.Event_Type not in ('cart','Purchase')
INCLUDE ItemID WHERE Interaction.EVENT_TYPE IN ("rate")
INCLUDE ItemID WHERE Items.GENRE IN ("western")
INCLUDE ItemID WHERE Items.GENRE IN ('western','noir',"film d'auteur")
INCLUDE ItemID WHERE Items.GENRE IN ($GENRE)
INCLUDE ItemID WHERE Items.GENRE IN ("western", $GENRE, $genre)
INCLUDE ItemID WHERE Items.GENRE NOT IN ("western")
EXCLUDE ItemID WHERE Items.GENRE IN ("western") AND Items.GENRE NOT IN ("noir")
EXCLUDE ItemID WHERE ITEMS.CATEGORY_L1 IN ("sofa") AND ITEMS.CATEGORY_L2 NOT IN ("corner")
INCLUDE ItemID WHERE Items.LENGTH < 90
INCLUDE ItemID WHERE Items.LENGTH <= 90.5
INCLUDE ItemID WHERE Items.LENGTH > -90
INCLUDE ItemID WHERE Items.LENGTH >= .9e2
INCLUDE ItemID WHERE Items.LENGTH = 90
INCLUDE ItemID WHERE Items.LENGTH != 90
INCLUDE ItemID WHERE Items.LENGTH<=$MAX
EXCLUDE ItemID WHERE Items.LENGTH > ($MAX)
INCLUDE ItemID WHERE Items.CREATION_TIMESTAMP >= 1700000000
INCLUDE ItemID WHERE Items.CREATION_TIMESTAMP < $BEFORE
INCLUDE ItemID WHERE Items.YEAR IN (1994, 1995)
EXCLUDE ItemID WHERE Items.ITEM_ID IN ($BASKET)
INCLUDE ItemID WHERE Items.STUDIO IN CurrentItem.STUDIO
EXCLUDE ItemID WHERE Items.STUDIO NOT IN CurrentItem.STUDIO
INCLUDE ItemID WHERE Items.LENGTH < CurrentItem.LENGTH
INCLUDE ItemID WHERE Items.LENGTH >= CurrentItem.LENGTH AND Items.RELEASED > $DATE
INCLUDE ItemID WHERE Items.LENGTH < CurrentItem.LENGTH AND Items.GENRE IN CurrentItem.GENRE
INCLUDE ItemID WHERE Items.STUDIO = CurrentItem.STUDIO OR Items.GENRE IN ("noir")
INCLUDE ItemID WHERE Items.GENRE IN ("noir") OR Items.LENGTH < 90 AND Items.YEAR > 1990
EXCLUDE ItemID WHERE Items.RATED IN ("R") IF CurrentUser.AGE < 17
EXCLUDE ItemID WHERE Items.LENGTH > 90 IF CurrentUser.AGE >= 6 AND CurrentUser.AGE < 12
INCLUDE ItemID WHERE Items.RATED IN ("R") AND Items.GENRE IN ("noir") IF CurrentUser.AGE > 17
EXCLUDE ItemID WHERE Items.GENRE IN ($GENRE) IF CurrentUser.AGE = $AGE
INCLUDE ItemID WHERE Items.GENRE IN ("noir") IF CurrentUser.PLAN IN ("gold", 'silver')
INCLUDE ItemID WHERE Items.GENRE IN ("noir") IF CurrentUser.PLAN NOT IN ("free")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("play") if currentuser.PLAN = "free"
INCLUDE ItemID WHERE Items.GENRE IN ("noir") | EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("*")
EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("play")|INCLUDE ItemID WHERE Items.GENRE IN ($G)
INCLUDE ItemID WHERE Items.A = 1|INCLUDE ItemID WHERE Items.B = 1|EXCLUDE ItemID WHERE Items.C = 1
INCLUDE UserID WHERE Users.PLAN IN ($PLAN)
EXCLUDE UserID WHERE Users.AGE < $AGE
INCLUDE UserID WHERE Interactions.EVENT_TYPE IN ("play", "rate")
EXCLUDE UserID WHERE Interactions.EVENT_TYPE IN ($TYPES)
INCLUDE UserID WHERE Users.AGE >= 18 AND Users.AGE < 30 OR Users.PLAN IN ("gold")
INCLUDE ActionID WHERE Actions.KIND IN ("mail")
INCLUDE ActionID WHERE Actions.VALUE > ($VALUE)
EXCLUDE ActionID WHERE Action_Interactions.EVENT_TYPE IN ("NOT_TAKEN")
INCLUDE ActionID WHERE Action.LEVEL IN ("gold") IF CurrentUser.PLAN = $PLAN
""".strip().splitlines()

INCLUDE = "INCLUDE ItemID WHERE Items.A"
FOUR = "AND Items.B = 1 AND Items.C = 1 | EXCLUDE ItemID WHERE Items.b = 2 AND Items.D = 1"

REFUSED = [
    ("  ¦", "the end", "INCLUDE or EXCLUDE"),
    ("¦SELECT ItemID", "'SELECT'", "INCLUDE or EXCLUDE"),
    ("¦INCLUDEItemID WHERE Items.A = 1", "'INCLUDEItemID'", "INCLUDE or EXCLUDE"),
    ("INCLUDE¦", "the end", "ItemID, UserID or ActionID"),
    ("INCLUDE ¦Items.A = 1", "'Items'", "ItemID, UserID or ActionID"),
    ("INCLUDE ItemID ¦Items.A = 1", "'Items'", "WHERE"),
    ("INCLUDE ItemID WHERE ¦Films.A = 1", "'Films'", "a data set (Items, Interactions,"),
    ("INCLUDE ItemID WHERE ¦(Items.A = 1)", "'('", "a data set"),
    ("INCLUDE ItemID WHERE ¦CurrentUser.A = 1", "'CurrentUser'", "a data set"),
    ("INCLUDE ItemID WHERE ¦CurrentItem.A = 1", "'CurrentItem'", "a data set"),
    ("INCLUDE ItemID WHERE ¦NOT Items.A = 1", "'NOT'", "a data set"),
    ("INCLUDE ItemID WHERE Items ¦A = 1", "'A'", "a dot"),
    ("INCLUDE ItemID WHERE Items.¦'A' = 1", "''A''", "the name of a field"),
    (f"{INCLUDE}¦", "the end", "IN, NOT IN or a comparison (=, !=, <, <=, >, >=)"),
    (f"{INCLUDE} ¦LIKE 'a'", "'LIKE'", "IN, NOT IN or a comparison"),
    (f"{INCLUDE}¦\u00a0= 1", r"'\u00a0='", "IN, NOT IN or a comparison"),
    (f"{INCLUDE} NOT ¦= 1", "'='", "expected IN"),
    (f"{INCLUDE} IN ¦'a'", "''a''", "( or CurrentItem"),
    (f"{INCLUDE} IN ¦$A", "'$A'", "( or CurrentItem"),
    (f"{INCLUDE} IN (¦)", "')'", "a text in quotes, a number or a $PARAMETER"),
    (f"{INCLUDE} IN ('a',¦)", "')'", "a text in quotes, a number or a $PARAMETER"),
    (f"{INCLUDE} IN (¦('a'))", "'('", "a text in quotes, a number or a $PARAMETER"),
    (f"{INCLUDE} IN ('a' ¦'b')", "''b''", "a comma or )"),
    (f"{INCLUDE} IN ('a'¦", "the end", "a comma or )"),
    (f"{INCLUDE} IN (¦a)", "'a'", "a text in quotes"),
    (f"{INCLUDE} IN (¦true)", "'true'", "a text in quotes"),
    (f"{INCLUDE} IN (¦'a)", "a text that does not end", "a '"),
    (f'{INCLUDE} IN (¦"a\n\n)', "a text that does not end", 'a "'),
    (f"{INCLUDE} IN (¦“a”)", "'“a”)'", "a text in quotes"),
    (f"{INCLUDE} = ¦12a", "'12a'", "a number"),
    (f"{INCLUDE} = ¦1.2.3", "'1.2.3'", "a number"),
    (f"{INCLUDE} = ¦1e999", "'1e999'", "a number within the range of 64 bits"),
    (f"{INCLUDE} =¦= 1", "'='", "a number"),
    (f"{INCLUDE} <¦> 1", "'>'", "a number"),
    (f"{INCLUDE} < ¦'a'", "''a''", "a number, a date in quotes or a $PARAMETER after <"),
    (f"{INCLUDE} = ('a'¦, 'b')", "','", ")"),
    (f"{INCLUDE} = ¦$", "'$'", "a $PARAMETER"),
    (f"{INCLUDE} = ¦${'p' * 51}", f"'${'p' * 19}…'", "50 characters at most"),
    (f"{INCLUDE} IN (¦'*')", "''*''", "* goes with EVENT_TYPE only"),
    (f"{INCLUDE} = ¦*", "'*'", "* goes with EVENT_TYPE only"),
    (f"{INCLUDE} = 1 IF ¦Items.B = 1", "'Items'", "CurrentUser"),
    (f"{INCLUDE} = 1 IF CurrentUser.B = 1 ¦OR CurrentUser.B = 2", "'OR'", "AND, | or the end"),
    (f"{INCLUDE} = 1 IF CurrentUser.B = 1 ¦IF CurrentUser.C = 2", "'IF'", "AND, | or the end"),
    (f"{INCLUDE} = 1 IF CurrentUser.B = ¦CurrentItem.B", "'CurrentItem'", "a number"),
    (f"{INCLUDE} = 1 |¦", "the end", "INCLUDE or EXCLUDE"),
    (f"{INCLUDE} = 1 |¦| {INCLUDE} = 2", "'|'", "INCLUDE or EXCLUDE"),
    (f"{INCLUDE} = 1 ¦, {INCLUDE} = 2", "','", "AND, OR, IF, | or the end"),
    (f"{INCLUDE} = 1¦; DROP", "';'", "AND, OR, IF, | or the end"),
    (f"{INCLUDE}\n  = 1\n AND Items¦", "the end", "a dot"),
    (f"{INCLUDE}\r\n = 1\r\n¦x", "'x'", "AND, OR, IF, | or the end"),
    (f"{INCLUDE} = '¦\ud800'", r"'\ud800'", "half a character"),
    (f"{INCLUDE} = 1 AND ¦Interactions.EVENT_TYPE = 'a'", "'Interactions'", "Items: AND"),
    ("INCLUDE ItemID WHERE Interactions.¦DEVICE IN ('a')", "'DEVICE'", "EVENT_TYPE, all"),
    ("INCLUDE ItemID WHERE Interactions.EVENT_TYPE ¦< 1", "'<'", "IN, NOT IN, = or !="),
    ("INCLUDE ItemID WHERE Items.itemId ¦> 1", "'>'", "IN, NOT IN, = or != with ITEMID"),
    ("INCLUDE ItemID WHERE ¦Users.AGE > 1", "'Users'", "Items or Interactions with ItemID"),
    ("INCLUDE UserID WHERE ¦Items.A > 1", "'Items'", "Users or Interactions with UserID"),
    ("INCLUDE ActionID WHERE ¦Items.A > 1", "'Items'", "Actions or Action_Interactions"),
    ("INCLUDE UserID WHERE Users.A > 1 IF ¦CurrentUser.A > 1", "'CurrentUser'", "no current"),
    ("INCLUDE UserID WHERE Users.A IN CurrentItem.¦A", "'A'", "CurrentItem goes with Items"),
    (f"{INCLUDE} = 1 | INCLUDE ¦UserID WHERE Users.A = 1", "'UserID'", "ItemID as before"),
    (
        f"{INCLUDE} = 1 {FOUR} IF CurrentUser.A = 1 AND CurrentUser.¦B = 1",
        "'B'",
        "5 fields at most",
    ),
    (f"{INCLUDE} = 1 {FOUR} AND Items.¦F = CurrentItem.G", "'F'", "5 fields at most"),
]


def test_the_corpus_parses() -> None:
    """Only its three ways to write * are the same filter."""
    filters = [parse_filter_expression(text) for text in CORPUS]

    assert len(set(filters)) == len(CORPUS) - 2 >= 45


def test_the_standard_form_parses_to_an_equal_filter() -> None:
    """The standard form of that is the same text."""
    for text in CORPUS:
        found = parse_filter_expression(text)
        assert parse_filter_expression(str(found)) == found
        assert str(parse_filter_expression(str(found))) == str(found)


def test_errors_have_a_position() -> None:
    """Line, column, the word found there and the words expected."""
    for marked, found, expected in REFUSED:
        before, after = marked.split("¦")
        *lines, last = before.split("\n")
        with pytest.raises(InvalidInput) as caught:
            parse_filter_expression(before + after)

        where = f"filterExpression, line {len(lines) + 1}, column {len(last) + 1}"
        assert str(caught.value).startswith(f"{where}: found {found}")
        assert expected in str(caught.value).removeprefix(f"{where}: found {found}")


def test_an_error_is_a_sentence() -> None:
    """One error in full."""
    with pytest.raises(InvalidInput) as caught:
        parse_filter_expression("INCLUDE ItemID WHERE\n  Items.PRICE < cheap")

    assert str(caught.value) == (
        "filterExpression, line 2, column 17: found 'cheap', "
        "expected (, a text in quotes, a number, a $PARAMETER or CurrentItem"
    )


def test_the_parts_of_a_filter() -> None:
    """AND binds tighter than OR; values and names are kept as written; the rest is folded."""
    found = parse_filter_expression(
        "include itemid where ITEMS.Year in (1994,\"a'b\",'c',$P)"
        " or Items.Year<=($q) and item.x Not  In CurrentItem.y if currentUSER.m=-3.50"
    )

    assert found == Filter(
        (
            Expression(
                True,
                "ItemID",
                (
                    (
                        Condition(
                            "Items",
                            "Year",
                            "IN",
                            (
                                Value("number", "1994"),
                                Value("text", "a'b"),
                                Value("text", "c"),
                                Value("parameter", "P"),
                            ),
                        ),
                    ),
                    (
                        Condition("Items", "Year", "<=", (Value("parameter", "q"),)),
                        Condition("Items", "x", "NOT IN", current_item="y"),
                    ),
                ),
                (Condition("CurrentUser", "m", "=", (Value("number", "-3.50"),)),),
            ),
        )
    )
    assert str(found) == (
        'INCLUDE ItemID WHERE Items.Year IN (1994, "a\'b", "c", $P)'
        " OR Items.Year <= $q AND Items.x NOT IN CurrentItem.y IF CurrentUser.m = -3.50"
    )


def test_keywords_can_name_fields() -> None:
    """After a dot, any name is a field's."""
    for word in ("IN", "and", "If", "WHERE", "Items", "CurrentUser", "include"):
        text = f"INCLUDE ItemID WHERE Items.{word} IN CurrentItem.{word} IF CurrentUser.{word} = 1"
        assert str(parse_filter_expression(text)) == text


ATTRIBUTES = [
    'ITEMS.genres = "Comedy" AND ITEMS.genres = "Action"',
    "items.YEAR = 1994",
    "Items.genres='Comedy'\nand Items.year=1994 AND Items.studio = \"A 'B' C\"",
]


def test_attribute_queries_parse() -> None:
    """Only = and AND; the standard form parses to an equal query."""
    for text in ATTRIBUTES:
        found = attribute_queries.parse_attribute_query(text)
        assert attribute_queries.parse_attribute_query(str(found)) == found


REFUSED_ATTRIBUTES = [
    ("", None, "1 to 2500 characters, not 0"),
    ("Items.a < 3", 9, "expected ="),
    ("Items.a IN ('b')", 9, "expected ="),
    ("Items.a = $x", 11, "a text in quotes or a number"),
    ("Items.a = 1 OR Items.b = 1", 13, "AND or the end"),
    ("Items.a = 1 | Items.b = 1", 13, "AND or the end"),
    ("Users.a = 1", 1, "expected Items"),
    ("Items.a = 1 AND Interactions.event_type = 'a'", 17, "expected Items"),
    ("Items.a = '*'", 11, "* goes with EVENT_TYPE only"),
    ("INCLUDE ItemID WHERE Items.a = 1", 1, "a data set"),
]


def test_other_attribute_queries_are_refused() -> None:
    """The error has the request's member, the position and the words expected."""
    for text, column, expected in REFUSED_ATTRIBUTES:
        with pytest.raises(InvalidInput) as caught:
            attribute_queries.parse_attribute_query(text)

        where = f", line 1, column {column}: found '" if column else " must have "
        assert str(caught.value).startswith(f"itemAttributes{where}")
        assert expected in str(caught.value)


def longest(opening: str, piece: str) -> str:
    """The opening, and as many pieces as fit into a filter."""
    return opening + piece * ((MAX_CHARACTERS - len(opening)) // len(piece))


LONGEST = [
    longest(f"{INCLUDE} = 1", " OR Items.A=1"),
    longest(f"{INCLUDE} = 1", " AND Items.A=1"),
    longest(f"{INCLUDE} = 1 IF CurrentUser.A=1", " AND CurrentUser.A=1"),
    longest(f"{INCLUDE} = 1", f"|{INCLUDE}=1"),
    longest(f"{INCLUDE} IN (11", ",1")[: MAX_CHARACTERS - 1] + ")",
    longest(f"{INCLUDE} = '", "x")[: MAX_CHARACTERS - 1] + "'",
    longest(f"{INCLUDE} = 0", "0"),
    longest(INCLUDE, " ")[: MAX_CHARACTERS - 3] + "= 1",
    longest(INCLUDE, "A")[: MAX_CHARACTERS - 2] + "=1",
]


def test_the_longest_filters_parse() -> None:
    """2,500 characters parse, and one more is refused unread."""
    for text in LONGEST:
        found = parse_filter_expression(text)
        assert sum(len(group) for one in found.expressions for group in one.any_of) <= 500
        with pytest.raises(InvalidInput, match="1 to 2500 characters, not 2501"):
            parse_filter_expression(text.ljust(MAX_CHARACTERS + 1))


HOSTILE = [
    "(" * MAX_CHARACTERS,
    longest("INCLUDE ItemID WHERE ", "("),
    longest(f"{INCLUDE} IN ", "("),
    longest(f"{INCLUDE} = ", "("),
    longest("INCLUDE ItemID WHERE ", "NOT "),
    longest(f"{INCLUDE} = '", "x"),
    longest(f"{INCLUDE} IN ('a'", ",'a'"),
    longest(f"{INCLUDE} = ", "1")[: MAX_CHARACTERS - 1] + "x",
    longest(f"{INCLUDE} = ", "+"),
    longest(f"{INCLUDE} = ", "."),
    longest(f"{INCLUDE} = 1e", "9"),
    longest("", "|"),
    longest("", "INCLUDE "),
    longest("", "\x00"),
    longest("", "\u2028"),
    longest("", "\U0001d540"),
    longest("", "\"'"),
    "INCLUDE\x0bItemID WHERE Items.A = 1",
    "\uff29\uff2e\uff23\uff2c\uff35\uff24\uff25 ItemID WHERE Items.A = 1",
    f"{INCLUDE} = \u0661",
    f"{INCLUDE}\x00 = 1",
    f"{INCLUDE} = 1\x00",
    "\ufeff" + INCLUDE + " = 1",
]


def test_hostile_texts_are_refused() -> None:
    """Long, deep and strange texts end in an error that is short and printable."""
    for text in HOSTILE:
        with pytest.raises(InvalidInput) as caught:
            parse_filter_expression(text)

        assert len(str(caught.value)) < 250
        assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """Any text parses to a filter with a standard form, or is an InvalidInput."""
    with contextlib.suppress(InvalidInput):
        assert parse_filter_expression(
            str(parse_filter_expression(text))
        ) == parse_filter_expression(text)


PIECES = sorted({piece for text in CORPUS for piece in re.findall(r"\w+|\S", text)})


@given(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30), st.sampled_from(CORPUS)
)
@example(["*"], CORPUS[0])
def test_damaged_filters_are_filters_or_refused(pieces: list[str], text: str) -> None:
    """Keywords in any order, also after a valid beginning, raise nothing else."""
    for damaged in (" ".join(pieces), f"{text[: len(text) // 2]} {' '.join(pieces)}"):
        with contextlib.suppress(InvalidInput):
            assert parse_filter_expression(
                str(parse_filter_expression(damaged))
            ) == parse_filter_expression(damaged)
        with contextlib.suppress(InvalidInput):
            attribute_queries.parse_attribute_query(damaged)
