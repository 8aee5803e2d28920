"""`prepare` from source to target, on real data and on S3, with the rules of a whole data set."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from models.errors import CannotPrepare, InvalidRecord
from models.personalize.datasets.dataset_rows import event_of, record_of
from models.personalize.datasets.dataset_schemas import check_columns, parse_schema
from models.settings import Settings
from streams.jobs.dataset_files import DatasetRows
from streams.object_store import Objects
from streams.preparation.prepare import PrepareOptions, prepare
from streams.preparation.report import Report
from streams.reading.column_mapping import DatasetKind
from tests.buckets import s3_server, use_aws_environment
from tests.conftest import recorded
from tests.streams.preparation.preparation_fixtures import CSV, LIST, NOW_S, Preparing


@pytest.fixture
def run(tmp_path: Path) -> Preparing:
    """Prepares small inputs."""
    return Preparing(tmp_path)


def test_a_json_array_with_extra_columns_is_prepared(run: Preparing) -> None:
    """A JSON array with more columns than needed becomes a clean CSV and its schema."""
    reviews: list[dict[str, Any]] = [
        {
            "reviewerID": user,
            "asin": f"B{user % 7}",
            "overall": float(user % 5 + 1),
            "reviewText": 'Good, "very"\ngood',
            "helpful": [1, 2],
            "unixReviewTime": 1_500_000_000 + user,
        }
        for user in range(1200)
    ]  # fmt: skip
    prepared = run(json.dumps(reviews), "reviews.json", where="overall >= 3.5",
                   event_type="review")  # fmt: skip
    expected = [
        {
            "USER_ID": str(review["reviewerID"]),
            "ITEM_ID": review["asin"],
            "TIMESTAMP": str(review["unixReviewTime"]),
            "EVENT_TYPE": "review",
            "EVENT_VALUE": str(review["overall"]),
        }
        for review in reviews
        if review["overall"] >= 3.5
    ]
    assert prepared.rows == expected
    assert prepared.report.filtered == 1200 - len(expected)
    assert json.loads((prepared.folder / "interactions.schema.json").read_text()) == {
        "type": "record",
        "name": "Interactions",
        "namespace": "com.amazonaws.personalize.schema",
        "fields": [
            {"name": "USER_ID", "type": "string"},
            {"name": "ITEM_ID", "type": "string"},
            {"name": "TIMESTAMP", "type": "long"},
            {"name": "EVENT_TYPE", "type": "string"},
            {"name": "EVENT_VALUE", "type": "float"},
        ],
        "version": "1.0",
    }
    users = [json.loads(line) for line in
             (prepared.folder / "batch-users.jsonl").read_text().splitlines()]  # fmt: skip
    assert users == [{"userId": user} for user in sorted({row["USER_ID"] for row in expected})]


@pytest.mark.slow
def test_real_purchases_are_counted_exactly(run: Preparing) -> None:
    """All lines of the online-retail set are prepared, and a condition keeps its rows."""
    path = recorded("online-retail").with_name("lines.csv.gz")
    with gzip.open(path, "rt", newline="") as file:
        lines = list(csv.DictReader(file))
    prepared = run(path, event_type="purchase", keep=["quantity", "country"])
    assert [
        (row["USER_ID"], row["ITEM_ID"], row["TIMESTAMP"], row["QUANTITY"], row["COUNTRY"])
        for row in prepared.rows
    ] == [(line["user"], line["item"], line["ts"], line["quantity"], line["country"])
          for line in lines]  # fmt: skip
    kept = prepared.report.kept
    assert (kept.rows, kept.users, kept.items) == (
        len(lines), len({line["user"] for line in lines}), len({line["item"] for line in lines}),
    )  # fmt: skip
    of_users = Counter(line["user"] for line in lines)
    assert kept.returning_users == sum(n > 1 for n in of_users.values())
    assert prepared.schema["QUANTITY"] == {"type": "long"}
    assert prepared.schema["COUNTRY"] == {"type": "string", "categorical": True}
    large = run(path, where="quantity >= 12 and country <> 'United Kingdom'")
    expected = [line for line in lines if float(line["quantity"]) >= 12
                and line["country"] != "United Kingdom"]  # fmt: skip
    assert [row["ITEM_ID"] for row in large.rows] == [line["item"] for line in expected]
    assert large.report.filtered == len(lines) - len(expected)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(run: Preparing) -> None:
    """Preparing again changes nothing, with several threads and more than one block of rows."""
    rows = "".join(f"u{n % 977},i{n % 331},{1_600_000_000 + n},{n % 17}\n" for n in range(300_000))
    files: list[dict[str, bytes]] = []
    for _ in range(2):
        prepared = run("user,item,ts,price\n" + rows, keep=["price"])
        files.append({path.name: path.read_bytes() for path in prepared.folder.iterdir()})
    assert files[0] == files[1]
    assert files[0].keys() == {"interactions.csv", "interactions.schema.json", "batch-users.jsonl"}
    times = [line.split(b",")[2] for line in files[0]["interactions.csv"].splitlines()[1:]]
    assert times == sorted(times)


def strict(source: Path, target: Path | None) -> Report:
    """A preparation with all rules."""
    where = str(target) if target else None
    return prepare(str(source), where, Settings(), PrepareOptions(), now_s=NOW_S)


def test_too_few_interactions_are_not_written(tmp_path: Path) -> None:
    """Strictly, a set that nothing could be trained on is a problem, and no file is made."""
    source, target = tmp_path / "a.csv", tmp_path / "output"
    source.write_text(CSV)
    report = strict(source, target)
    assert report.problems == [
        "3 interactions, and 1000 are the least",
        "0 users with two or more interactions, and 25 are the least",
    ]
    assert not target.exists()
    rows = "".join(f"u{n % 25},i{n},{1_600_000_000 + n}\n" for n in range(1000))
    source.write_text("user,item,ts\n" + rows)
    assert strict(source, target).problems == []
    assert len((target / "interactions.csv").read_text().splitlines()) == 1001


def test_without_a_target_nothing_is_written(tmp_path: Path) -> None:
    """A source can be only checked."""
    source = tmp_path / "a.csv"
    source.write_text("user,item,ts\n" + "".join(f"u{n % 25},i,1600000000\n" for n in range(1000)))
    report = strict(source, None)
    assert (report.kept.rows, report.problems, report.written) == (1000, [], [])
    assert list(tmp_path.iterdir()) == [source]


def test_the_error_of_too_little_memory_names_a_remedy(tmp_path: Path) -> None:
    """The user never sees DuckDB's own error."""
    source = tmp_path / "a.csv"
    source.write_text(CSV)
    settings = Settings().model_copy(update={"prepare_memory_mb": 1})
    with pytest.raises(CannotPrepare, match="RECOMMENDER_PREPARE_MEMORY_MB"):
        prepare(str(source), None, settings, PrepareOptions(), now_s=NOW_S)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Address of an S3 server."""
    with s3_server() as url:
        yield url


def test_source_and_target_may_be_in_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moto: str
) -> None:
    """Objects of a prefix become objects of another, and no file of this machine."""
    use_aws_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    monkeypatch.chdir(tmp_path)
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket="raw-data")
    s3.put_object(Bucket="raw-data", Key="in/1.csv.gz", Body=gzip.compress(CSV.encode()))
    s3.put_object(Bucket="raw-data", Key="in/2.csv", Body=CSV.replace("u1", "u9").encode())
    options = PrepareOptions(is_strict=False)
    report = prepare("s3://raw-data/in", "s3://raw-data/out/", Settings(), options, now_s=NOW_S)
    names = ["interactions.schema.json", "batch-users.jsonl", "interactions.csv"]
    assert report.written == [f"s3://raw-data/out/{name}" for name in names]
    body = s3.get_object(Bucket="raw-data", Key="out/interactions.csv")["Body"].read().decode()
    assert [row["USER_ID"] for row in csv.DictReader(io.StringIO(body))] == [
        "u1", "u2", "ü3", "u9", "u2", "ü3",
    ]  # fmt: skip
    s3.close()
    assert list(tmp_path.iterdir()) == []


def test_a_buckets_folder_replaces_s3(tmp_path: Path) -> None:
    """With a buckets folder the same URLs are files of this machine."""
    (tmp_path / "raw-data").mkdir()
    (tmp_path / "raw-data" / "a.json").write_text(LIST)
    settings = Settings(buckets_dir=str(tmp_path))
    options = PrepareOptions(is_strict=False)
    prepare("s3://raw-data/a.json", "s3://raw-data/out", settings, options, now_s=NOW_S)
    text = (tmp_path / "raw-data" / "out" / "interactions.csv").read_text()
    assert text.splitlines()[0] == "USER_ID,ITEM_ID,TIMESTAMP"
    assert len(text.splitlines()) == 4


def test_prepared_files_can_be_imported(run: Preparing) -> None:
    """The import of this project takes every row by the schema, as Amazon Personalize would."""
    cases: list[tuple[DatasetKind, str, dict[str, Any]]] = [
        (
            "interactions",
            (
                'user,item,ts,type,rating,price,shelf\nu1,"a, ""b""",1600000000,buy,4,9.5,top\n'
                "u2,i2,1600000001123,buy,,1e3,\nü3,i3,2020-09-13,buy,true,-0.5,top\n"
            ),
            {"keep": ["price", "shelf"]},
        ),
        ("items", "id,price,sold,tag,text\na,1,true,x|y,one\nb,,FALSE,x|y,\nc,3,true,z,3\n", {}),
        ("users", "user,age\nu1,30\nu2,40\n", {}),
    ]
    for kind, text, options in cases:
        prepared = run(text, kind=kind, **options)
        schema = (prepared.folder / f"{kind}.schema.json").read_text()
        dataset_type: Any = kind.upper()
        columns = parse_schema(schema)
        check_columns(columns, dataset_type, None)
        where = str(prepared.folder / f"{kind}.csv")
        read = list(DatasetRows(Objects(""), where, columns, kind, latest_s=NOW_S).read())
        assert len(read) == prepared.report.kept.rows == text.count("\n") - 1
        for row in read:
            assert not isinstance(row.values, InvalidRecord)
            if kind == "interactions":
                assert event_of(row.values, now_s=NOW_S, future_limit_s=0).user_id
            else:
                assert record_of(kind, row.values)[1]
