"""Least-privilege IAM documents of a provisioning file for Amazon Personalize.

They allow reading the imported objects and the inference input, and writing below the results'
folder, for one account only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from streams.provisioning.declaration import Declaration

VERSION = "2012-10-17"
SERVICE = "personalize.amazonaws.com"
SID = "StreamingRecommender"
"""Prefix of the ids of this project's statements in a bucket policy."""

DATASETS, INPUTS = "datasets/", "batch/"
"""Folders of the bucket for uploads."""


class _Access(NamedTuple):
    """Keys of one bucket, or folders with a star, for reading and for writing."""

    reads: set[str]
    writes: set[str]


def trust_policy(declaration: Declaration) -> dict[str, Any]:
    """Trust policy of the role: the service may assume it for this account's resources."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": SERVICE},
        "Action": "sts:AssumeRole",
        "Condition": _for_account(declaration),
    }
    return {"Version": VERSION, "Statement": [statement]}


def role_policy(declaration: Declaration) -> dict[str, Any]:
    """Permission policy of the role."""
    statements = []
    for bucket, access in sorted(_accesses(declaration).items()):
        statements += _statements(bucket, access)
    return {"Version": VERSION, "Statement": statements}


def bucket_policy(declaration: Declaration) -> dict[str, Any]:
    """Policy of the declared bucket for the service; without statements if there is none."""
    if declaration.bucket is None:
        return {"Version": VERSION, "Statement": []}
    bucket = declaration.bucket.name
    access = _accesses(declaration).get(bucket, _Access(set(), set()))
    statements = [
        {
            "Sid": f"{SID}{n}",
            **statement,
            "Principal": {"Service": SERVICE},
            "Condition": {**statement.get("Condition", {}), **_for_account(declaration)},
        }
        for n, statement in enumerate(_statements(bucket, access))
    ]
    return {"Version": VERSION, "Statement": statements}


def policies(declaration: Declaration) -> dict[str, dict[str, Any]]:
    """All policies by name."""
    return {
        "bucketPolicy": bucket_policy(declaration),
        "roleTrustPolicy": trust_policy(declaration),
        "rolePermissions": role_policy(declaration),
    }


def split(url: str) -> tuple[str, str]:
    """Bucket and key of a URL.

    >>> split("s3://bucket/a/b.csv")
    ('bucket', 'a/b.csv')
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def _for_account(declaration: Declaration) -> dict[str, Any]:
    return {
        "StringEquals": {"aws:SourceAccount": declaration.owner},
        "ArnLike": {"aws:SourceArn": f"arn:aws:personalize:*:{declaration.owner}:*"},
    }


def _accesses(declaration: Declaration) -> dict[str, _Access]:
    found: dict[str, _Access] = {}

    def access(bucket: str) -> _Access:
        return found.setdefault(bucket, _Access(set(), set()))

    def read(source: str, folder: str) -> None:
        if source.startswith("s3://"):
            bucket, key = split(source)
            # A folder's objects are read; a key may be the prefix of its parts.
            access(bucket).reads.add(f"{key}*" if key.endswith("/") or not key else key)
        elif declaration.bucket is not None:
            access(declaration.bucket.name).reads.add(f"{folder}*")

    for dataset in declaration.datasets.values():
        if dataset.source is not None:
            read(dataset.source, DATASETS)
    if (batch := declaration.batch) is not None:
        read(batch.input, INPUTS)
        bucket, key = split(batch.output)
        access(bucket).writes.add(f"{key}*")
    return found


def _statements(bucket: str, access: _Access) -> list[dict[str, Any]]:
    at = f"arn:aws:s3:::{bucket}"

    def allowed(action: str, keys: set[str]) -> dict[str, Any]:
        resources = [f"{at}/{key}" for key in sorted(keys)]
        return {"Effect": "Allow", "Action": action, "Resource": resources}

    listed = {
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": at,
        "Condition": {"StringLike": {"s3:prefix": sorted(access.reads | access.writes)}},
    }
    statements = [listed]
    if access.reads:
        statements.append(allowed("s3:GetObject", access.reads))
    if access.writes:
        statements.append(allowed("s3:PutObject", access.writes))
    return statements if access.reads or access.writes else []
