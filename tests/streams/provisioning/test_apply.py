"""Provisioning by real boto3 against this project's own API, and moto's S3 and IAM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from models.errors import CannotProvision, Unavailable
from streams.preparation.prepare import PrepareOptions, prepare
from streams.provisioning import aws_account
from streams.provisioning.apply import as_text, destroy, plan, run
from tests.streams.provisioning.provisioning_fixtures import FILE, Cloud, a_cloud


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty cloud."""
    with a_cloud(tmp_path, monkeypatch) as made:
        yield made


def provisioned(cloud: Cloud, text: str = FILE) -> dict[str, str]:
    """Run it, as a new process does."""
    return run(*cloud.context(text), cloud.wait_options())


def test_every_resource_is_created_once(cloud: Cloud) -> None:
    """The plan makes all of it, the run does, and a second run finds nothing to do."""
    context, resources = cloud.context()
    assert {one.action for one in plan(context, resources)} == {"make"}
    assert cloud.everything()["groups"] == []

    known = provisioned(cloud)
    made = cloud.everything()
    cloud.reported.clear()

    assert {one.action for one in plan(*cloud.context())} == {"exists"}
    assert as_text(plan(*cloud.context())).endswith("nothing to do")
    assert provisioned(cloud) == known
    assert cloud.everything() == made
    assert {status for _, status in cloud.reported} == {"ACTIVE"}
    assert known["campaigns.home"].endswith(":campaign/home")
    assert known["trackingId"]
    assert sorted(made["solutions"]) == ["best", "recommended"]
    assert len(made["imports"]) == 1
    assert len(made["objects"]) == 1


def test_an_interrupted_run_is_resumed(cloud: Cloud) -> None:
    """Runs that are interrupted after each step end with the resources of one run."""
    n_runs = 0
    while True:
        n_runs += 1
        context, resources = cloud.context()
        wait_options = cloud.wait_options()
        n_made = 0

        def say(_: str, status: str) -> None:
            nonlocal n_made
            n_made += status == "making"
            if n_made == 2:
                raise KeyboardInterrupt

        try:
            run(context, resources, type(wait_options)(say=say, pause=wait_options.pause))
        except KeyboardInterrupt:
            continue
        break
    made = cloud.everything()

    assert n_runs > 10
    assert len(made["versions"]) == 2
    assert len(made["imports"]) == 1
    assert made["campaigns"] == ["home"]


def test_destroying_removes_every_resource(cloud: Cloud) -> None:
    """All created resources are removed from every service; a second time does nothing."""
    before = cloud.everything()
    provisioned(cloud)

    assert destroy(*cloud.context(), cloud.wait_options()) == {}
    assert cloud.everything() == before
    cloud.reported.clear()
    assert destroy(*cloud.context(), cloud.wait_options()) == {}
    assert cloud.reported == []


def test_foreign_objects_are_retained(cloud: Cloud) -> None:
    """A bucket with other objects is retained, with the reason."""
    provisioned(cloud)
    boto3.client("s3").put_object(Bucket="movies-data", Key="results/1.json", Body=b"{}")

    kept = destroy(*cloud.context(), cloud.wait_options())

    assert kept == {"bucket": "it holds objects that were not uploaded from this file"}
    assert cloud.everything()["objects"] == ["results/1.json"]


def test_new_rows_are_imported_trained_and_served(cloud: Cloud) -> None:
    """A changed source leads to a new import, new versions, and the campaign on the newest."""
    first = provisioned(cloud)
    path = cloud.folder / "interactions.csv"
    path.write_text(path.read_text() + "8,51,1700002000\n")

    actions = {one.key: one.action for one in plan(*cloud.context())}
    second = provisioned(cloud)

    assert actions["datasets.interactions.import"] == "make"
    assert actions["datasets.interactions"] == "exists"
    assert second["solutions.recommended.version"] != first["solutions.recommended.version"]
    served = boto3.client("personalize").describe_campaign(campaignArn=second["campaigns.home"])
    assert served["campaign"]["solutionVersionArn"] == second["solutions.recommended.version"]
    assert {one.action for one in plan(*cloud.context())} == {"exists"}


@pytest.mark.parametrize("kind", ["dataset-import-job", "solution-version"])
def test_a_failed_resource_is_created_again(cloud: Cloud, kind: str) -> None:
    """A failed job stops the run by its key and reason; the next run makes another."""
    cloud.failing[kind] = "the rows are too few"
    with pytest.raises(CannotProvision, match=r"^(datasets|solutions)\..*the rows are too few"):
        provisioned(cloud)

    assert provisioned(cloud)["campaigns.home"]
    assert {one.action for one in plan(*cloud.context())} == {"exists"}


def test_waiting_times_out_and_is_resumed(cloud: Cloud) -> None:
    """The wait for a step is bounded; the next run waits for the pending resource."""
    context, resources = cloud.context()
    wait_options = cloud.wait_options()
    times = iter(range(0, 10_000_000, 100))
    slow = type(wait_options)(
        timeout_s=1000, pause=lambda _: None, clock=lambda: float(next(times))
    )
    with pytest.raises(Unavailable, match=r"datasets\.interactions\.import: still CREATE"):
        run(context, resources, slow)

    actions = {one.key: one.action for one in plan(*cloud.context())}
    assert actions["datasets.interactions.import"] == "wait"
    provisioned(cloud)
    assert len(cloud.everything()["imports"]) == 1


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"aws-user-personalization-v2"', '"aws-popularity-count"', "solutions.recommended.recipe"),
        ('IN ("*")', 'IN ("buy")', "filters.not-seen.expression"),
        ("movies-tracker", "other-tracker", "tracker.name"),
    ],
)
def test_a_different_resource_of_the_same_name_is_an_error(
    cloud: Cloud, old: str, new: str, key: str
) -> None:
    """An existing resource that differs from the file is an error at its key, and unchanged."""
    provisioned(cloud)
    before = cloud.everything()

    with pytest.raises(CannotProvision, match=f"^{key}"):
        provisioned(cloud, FILE.replace(old, new))
    assert cloud.everything() == before


def test_exceeded_limits_are_retried_and_then_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota that stays reached ends the run at its key, after bounded tries."""
    monkeypatch.setattr(aws_account, "ATTEMPTS", 1)  # boto3 tries too, and sleeps in between
    many = "".join(f"[solutions.s{n}]\nrecipe = 'aws-popularity-count'\n" for n in range(3))
    with (
        a_cloud(tmp_path, monkeypatch, personalize_quotas={"solutions": 4}) as cloud,
        pytest.raises(CannotProvision, match=r"^solutions\.s2: LimitExceededException"),
    ):
        provisioned(cloud, FILE.replace("[batch]", many + "[batch]"))
    assert [status for _, status in cloud.reported].count("LimitExceeded, trying again") == 9


def test_prepared_data_is_imported_trained_and_served(cloud: Cloud) -> None:
    """A JSON array with extra columns is prepared, imported, trained and served."""
    rows = [
        {"userId": n % 40 + 1, "itemId": n % 90, "timestamp": 1_700_000_000 + n, "note": "x" * 9}
        for n in range(1200)
    ]
    (cloud.folder / "rows.json").write_text(json.dumps(rows))
    out = cloud.folder / "out"
    report = prepare(
        str(cloud.folder / "rows.json"), str(out), cloud.settings, PrepareOptions(), now_s=1.8e9
    )
    assert report.problems == []
    text = FILE.replace('"interactions.', '"out/interactions.')
    text = text[: text.index("[filters.not-seen]")]  # these events have no type
    known = provisioned(cloud, text)

    (key,) = cloud.everything()["objects"]
    stored = boto3.client("s3").get_object(Bucket="movies-data", Key=key)["Body"].read()
    assert stored == (out / "interactions.csv").read_bytes()
    assert stored.startswith(b"USER_ID,ITEM_ID,TIMESTAMP")
    assert stored.count(b"\n") == 1201
    runtime = boto3.client("personalize-runtime", endpoint_url=cloud.url)
    answer = runtime.get_recommendations(campaignArn=known["campaigns.home"], userId="1")
    assert answer["recommendationId"]


def test_a_folder_replaces_s3(cloud: Cloud) -> None:
    """With a buckets folder all is made without S3 and IAM, and removed again."""
    before, buckets = cloud.everything(), cloud.folder / "buckets"
    cloud.settings = cloud.settings.model_copy(update={"buckets_dir": str(buckets)})

    assert provisioned(cloud)["campaigns.home"]
    (upload,) = (buckets / "movies-data" / "datasets").iterdir()
    assert upload.read_bytes() == (cloud.folder / "interactions.csv").read_bytes()
    assert (cloud.everything()["buckets"], cloud.everything()["roles"]) == ([], [])
    assert destroy(*cloud.context(), cloud.wait_options()) == {}
    assert not (buckets / "movies-data").exists()
    assert cloud.everything() == before


def test_foreign_policy_statements_are_retained(cloud: Cloud) -> None:
    """In a bucket with a policy, only this project's statements are added and removed."""
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="movies-data")
    theirs = {
        "Sid": "Theirs",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObjectAcl",
        "Resource": "arn:aws:s3:::movies-data/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [theirs]}
    s3.put_bucket_policy(Bucket="movies-data", Policy=json.dumps(policy))
    provisioned(cloud)
    merged = json.loads(s3.get_bucket_policy(Bucket="movies-data")["Policy"])["Statement"]

    assert merged[0] == theirs
    assert {one["Principal"]["Service"] for one in merged[1:]} == {"personalize.amazonaws.com"}
    context, resources = cloud.context()
    destroy(
        context,
        [resource for resource in resources if resource.key != "bucket"],
        cloud.wait_options(),
    )
    assert json.loads(s3.get_bucket_policy(Bucket="movies-data")["Policy"]) == policy
