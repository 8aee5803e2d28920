"""IAM documents: the needed permissions, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.provisioning.declaration import Declaration, read_declaration
from streams.provisioning.iam_policies import policies, role_policy, trust_policy
from tests.streams.provisioning.provisioning_fixtures import FILE


@pytest.fixture
def declaration(tmp_path: Path) -> Declaration:
    """A file that reads in two buckets and writes in one."""
    path = tmp_path / "file.toml"
    path.write_text(FILE.replace('"interactions.csv"', '"s3://theirs/in/rows.csv"'))
    return read_declaration(path)


def statements(document: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Resources by bucket and action."""
    return {
        (str(one["Resource"]).split(":::")[1].split("/")[0].rstrip("']"), one["Action"]): (
            [one["Resource"]] if isinstance(one["Resource"], str) else one["Resource"]
        )
        for one in document["Statement"]
    }


def test_the_role_has_the_needed_permissions(declaration: Declaration) -> None:
    """Read the object that is imported, write below the output, list there, and no more."""
    assert statements(role_policy(declaration)) == {
        ("movies-data", "s3:ListBucket"): ["arn:aws:s3:::movies-data"],
        ("movies-data", "s3:GetObject"): ["arn:aws:s3:::movies-data/batch/*"],
        ("movies-data", "s3:PutObject"): ["arn:aws:s3:::movies-data/results/*"],
        ("theirs", "s3:ListBucket"): ["arn:aws:s3:::theirs"],
        ("theirs", "s3:GetObject"): ["arn:aws:s3:::theirs/in/rows.csv"],
    }
    listed = [one for one in role_policy(declaration)["Statement"] if "Condition" in one]
    assert [one["Condition"]["StringLike"]["s3:prefix"] for one in listed] == [
        ["batch/*", "results/*"],
        ["in/rows.csv"],
    ]


def test_only_the_service_for_the_account_is_trusted(declaration: Declaration) -> None:
    """Nobody but Amazon Personalize, acting for this account, may use the role or the bucket."""
    documents = policies(declaration)
    for name in ("roleTrustPolicy", "bucketPolicy"):
        for one in documents[name]["Statement"]:
            assert one["Principal"] == {"Service": "personalize.amazonaws.com"}
            assert one["Condition"]["StringEquals"] == {"aws:SourceAccount": "123456789012"}
            source = one["Condition"]["ArnLike"]["aws:SourceArn"]
            assert source == "arn:aws:personalize:*:123456789012:*"
    assert trust_policy(declaration)["Statement"][0]["Action"] == "sts:AssumeRole"


def test_no_permission_is_unrestricted(declaration: Declaration) -> None:
    """No statement allows every action, every bucket, or all objects of a bucket."""
    for document in policies(declaration).values():
        for one in document["Statement"]:
            assert "*" not in one["Action"]
            resources = one.get("Resource", [])
            for resource in [resources] if isinstance(resources, str) else resources:
                bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
                assert "*" not in bucket
                assert key != "*"
