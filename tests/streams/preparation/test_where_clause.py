"""`--where`: accepted conditions select the right rows, and all other SQL is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CannotPrepare
from streams.preparation.database import PreparationDatabase
from streams.preparation.where_clause import MAX_CHARS, parse
from tests.streams.preparation.preparation_fixtures import Preparing

pytestmark = pytest.mark.unit

COLUMNS = ["user", "item", "ts", "rating", "Country", "at"]
HEAD = "user,item,ts,rating,Country,at\n"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparationDatabase]:
    """A locked database, as it is when conditions run."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "output").mkdir()
    with PreparationDatabase(folder, memory_mb=256, progress=lambda _doing, _share: None) as opened:
        opened.lock(folder / "output")
        yield opened


@pytest.fixture
def run(tmp_path: Path) -> Preparing:
    """Prepares small inputs."""
    return Preparing(tmp_path)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("rating >= 3.5", ["b", "c"]),
        ("RATING >= 3.5", ["b", "c"]),
        ("rating > 3.4 AND NOT country = 'FR'", ["b"]),
        ("rating BETWEEN 1 AND 3.5", ["a", "b"]),
        ("country IN ('FR', 'DE')", ["a", "c"]),
        ("country LIKE '%K' OR item = 'i4'", ["b", "d"]),
        ("country IS NULL", ["d"]),
        ("lower(country) = 'fr' AND length(item) = 2", ["c"]),
        ("CASE WHEN rating > 4 THEN true ELSE item = 'i1' END", ["a", "c"]),
        ("try_cast(rating AS INTEGER) % 2 = 0", ["b", "c"]),
        ('"at" = 9', ["a", "b", "c"]),
        ("user || item = 'bi2' -- as told", ["b"]),
        ("\"user\" = 'a'", ["a"]),
        ("regexp_matches(item, '[12]$')", ["a", "b"]),
        ("true", ["a", "b", "c", "d"]),
    ],
)
def test_a_condition_keeps_its_rows(run: Preparing, condition: str, kept: list[str]) -> None:
    """Numbers compare as numbers, texts as texts, empty values as nothing."""
    rows = ("a,i1,1600000000,3.4,DE,9\nb,i2,1600000000,3.5,UK,9.0\nc,i3,1600000000,10,FR,9\n"
            "d,i4,1600000000,,,8\n")  # fmt: skip
    assert [row["USER_ID"] for row in run(HEAD + rows, where=condition).rows] == kept


def test_a_row_without_an_answer_is_dropped_and_reported(run: Preparing) -> None:
    """A row whose value cannot be compared is dropped, and checking continues."""
    rows = "a,i,1600000000,5,,\nb,i,1600000000,1,,\nc,i,1600000000,five,,\nd,i,soon,5,,\n"
    prepared = run(HEAD + rows, where="rating >= 3.5")
    assert [row["USER_ID"] for row in prepared.rows] == ["a"]
    assert prepared.report.filtered == 1
    assert prepared.dropped == {
        "--where has no answer": ["line 4"],
        "TIMESTAMP: not a time": ["line 5"],
    }


def test_an_error_inside_a_condition_drops_one_row(run: Preparing) -> None:
    """A cast that fails in one row leaves the others alone."""
    rows = "a,i,1600000000,5,1,\nb,i,1600000000,5,x,\n"
    prepared = run(HEAD + rows, where="CAST(country AS INTEGER) = 1")
    assert [row["USER_ID"] for row in prepared.rows] == ["a"]
    assert prepared.dropped == {"--where has no answer": ["line 3"]}


@pytest.mark.parametrize(
    "condition",
    [
        "",
        " ",
        "rating >=",
        "rating >= 3.5;",
        "true; DROP TABLE staged",
        "true) FROM staged; DELETE FROM staged; SELECT (true",
        "true) OR (1 = 1",
        "true LIMIT 1",
        "true AS x",
        "true, true",
        "rating > 1 FROM staged",
        "true UNION SELECT true",
        "(SELECT true)",
        "EXISTS (SELECT 1)",
        "user IN (SELECT content FROM read_text('/etc/passwd'))",
        "user = (SELECT content FROM read_text('/etc/hostname'))",
        "rating > ANY (SELECT 1)",
        "read_text('/etc/passwd') IS NULL",
        "getenv('HOME') = ''",
        "current_setting('threads') = '1'",
        "current_database() = ''",
        "query('SELECT 1') IS NULL",
        "nextval('s') > 0",
        "random() > 0.5",
        "now() > '2020-01-01'",
        "current_timestamp > '2020-01-01'",
        "error('x')",
        "repeat(user, 1000000000) = ''",
        "range(1000000000) IS NULL",
        "count(*) > 1",
        "sum(rating) OVER () > 1",
        "row_number() OVER () > 1",
        "list_transform([1], lambda x: x) IS NULL",
        "main.lower(user) = 'a'",
        "system.main.lower(user) = 'a'",
        "number(rating) > 1",
        "$1 = 1",
        "? = 1",
        "*",
        "COLUMNS('.*') = 1",
        "user COLLATE NOCASE = 'a'",
        "staged.user = 'a'",
        "bad IS NULL",
        "place > 1",
        "c0 = 'a'",
        "'a",
        "$$a",
        "true /*",
        "\0",
        "true OR " * 1000 + "true",
        "at = 9",
        "NOT " * 990 + "true",
        "- " * 1900 + "rating > 1",
        "-" * 3000 + "rating > 1",
    ],
)
def test_other_sql_than_a_condition_is_refused(
    database: PreparationDatabase, condition: str
) -> None:
    """Statements, files, other tables, and functions that are not of the few: all are refused."""
    with pytest.raises(CannotPrepare, match="--where"):
        parse(database, condition, COLUMNS)


def test_an_expression_without_a_truth_value_is_refused(run: Preparing) -> None:
    """A number is not true or false, and texts do not compare with numbers."""
    for condition in ("rating", "rating + 1", "upper(country)", "country + 1 > 2"):
        with pytest.raises(CannotPrepare, match="--where"):
            run(HEAD + "a,i,1600000000,5,x,\n", where=condition)


def test_an_unknown_column_is_named(database: PreparationDatabase) -> None:
    """The error names the column, and those there are."""
    with pytest.raises(CannotPrepare, match="no column 'ratings': there are user, item, ts"):
        parse(database, "ratings > 3", COLUMNS)


def test_a_locked_database_reaches_no_file(database: PreparationDatabase, tmp_path: Path) -> None:
    """Even a statement that was let through could neither read nor write, nor undo the lock."""
    for statement in (
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
        f"ATTACH '{tmp_path}/x.duckdb'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "INSTALL httpfs",
        "LOAD httpfs",
    ):
        with pytest.raises(Exception, match=r"disabled|locked|Cannot"):
            database.run(statement)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=30) | st.text(st.sampled_from("user()'\";,-*/ =1<>$[]{}"), max_size=30))
def test_any_text_is_a_condition_or_refused(database: PreparationDatabase, text: str) -> None:
    """Any text is a condition or one kind of error, and never another statement."""
    try:
        condition = parse(database, text, COLUMNS)
    except CannotPrepare:
        return
    assert condition.text == text
    assert len(text) <= MAX_CHARS
    assert all(0 <= n < len(COLUMNS) for n in condition.columns)
