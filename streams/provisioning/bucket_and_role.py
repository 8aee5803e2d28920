"""Resources outside Amazon Personalize: the bucket with its policy, uploads, and the role."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import botocore.exceptions as boto

from models.errors import CannotProvision, ObjectNotFound
from streams.provisioning.aws_account import code_of
from streams.provisioning.declaration import Declaration
from streams.provisioning.iam_policies import (
    DATASETS,
    INPUTS,
    SID,
    bucket_policy,
    role_policy,
    trust_policy,
)
from streams.provisioning.resource import (
    FoundResource,
    ManagedResource,
    ProvisioningContext,
    Retained,
    digest,
)

POLICY = "personalize"
"""Name of the role's inline policy."""

_ABSENT = frozenset({"404", "NoSuchBucket", "NoSuchBucketPolicy", "NoSuchEntity", "NotFound"})


def storage_resources(declaration: Declaration, buckets_dir: str) -> list[ManagedResource]:
    """Bucket, bucket policy, uploads and role; with a buckets folder, no policy and no role."""
    resources = []
    if declaration.bucket is not None:
        name = declaration.bucket.name
        if buckets_dir:
            resources.append(_folder(Path(buckets_dir) / name))
        else:
            make_bucket = ManagedResource(
                "bucket", f"bucket {name}", _bucket, _make_bucket, _remove_bucket
            )
            policy = ManagedResource(
                "bucket.policy", "its policy", _policy, _make_policy, _remove_policy
            )
            resources += [make_bucket, policy]
        resources += [_upload(kind, dataset.source, DATASETS, f"datasets.{kind}.source")
                   for kind, dataset in declaration.datasets.items()
                   if dataset.source and not dataset.source.startswith("s3://")]  # fmt: skip
    role = declaration.role
    if role is not None and role.name is not None and not buckets_dir:
        resources.append(
            ManagedResource("role", f"role {role.name}", _role, _make_role, _remove_role)
        )
    return resources


def upload_batch_input(context: ProvisioningContext, source: str) -> str:
    """URL of a batch's input, which is uploaded if missing."""
    if source.startswith("s3://"):
        return source
    resource = _upload("input", source, INPUTS, "batch.input")
    if resource.find(context) is None:
        resource.make(context, None)
    return context.uploads["batch.input"]


def source_url(context: ProvisioningContext, kind: str) -> str:
    """URL of a dataset's rows, also before their upload."""
    source = context.declaration.datasets[kind].source or ""  # type: ignore[index]
    return source if source.startswith("s3://") else context.uploads[f"datasets.{kind}.source"]


def source_digest(context: ProvisioningContext, kind: str) -> str:
    """Digest of a version of a dataset's rows: of content, or of sizes for rows in S3."""
    url = source_url(context, kind)
    if url == context.uploads.get(f"datasets.{kind}.source"):
        return digest(context.declaration.group, url)
    sizes = (f"{found.url} {found.size}" for found in context.objects.find(url))
    return digest(context.declaration.group, *sizes)


def _upload(kind: str, source: str, folder: str, key: str) -> ManagedResource:
    """A file in the bucket, under a name with the digest of its content."""

    def url(context: ProvisioningContext) -> str:
        if key not in context.uploads:
            bucket = context.declaration.bucket
            if bucket is None:
                raise CannotProvision(f"{key}: needs a bucket")
            try:
                with Path(source).open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
            except OSError as error:
                raise CannotProvision(f"{key}: {error}") from error
            name = f"{context.declaration.group}-{kind}-{content}{Path(source).suffix}"
            context.uploads[key] = f"s3://{bucket.name}/{folder}{name}"
        return context.uploads[key]

    def find(context: ProvisioningContext) -> FoundResource | None:
        at = url(context)
        try:
            context.objects.size(at)
        except ObjectNotFound:
            return None
        return FoundResource(at)

    def make(context: ProvisioningContext, _: FoundResource | None) -> None:
        context.objects.upload(Path(source), url(context))

    return ManagedResource(key, f"upload of {Path(source).name}", find, make, _remove_upload)


def _folder(path: Path) -> ManagedResource:
    """A local folder in place of a bucket."""

    def remove(_: ProvisioningContext, __: FoundResource) -> None:
        if any(below.is_file() for below in path.rglob("*")):
            raise Retained("it holds files that were not uploaded from this file")
        shutil.rmtree(path)

    return ManagedResource(
        "bucket",
        f"folder {path}",
        lambda _: FoundResource(str(path)) if path.is_dir() else None,
        lambda _, __: path.mkdir(parents=True),
        remove,
    )


def _remove_upload(context: ProvisioningContext, found: FoundResource) -> None:
    context.objects.remove(found.arn)


def _name(context: ProvisioningContext) -> str:
    bucket = context.declaration.bucket
    if bucket is None:
        raise CannotProvision("bucket: missing")
    return bucket.name


def _bucket(context: ProvisioningContext) -> FoundResource | None:
    try:
        context.account.s3.head_bucket(Bucket=_name(context))
    except boto.ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise
    return FoundResource(f"arn:aws:s3:::{_name(context)}")


def _make_bucket(context: ProvisioningContext, _: FoundResource | None) -> None:
    region = context.account.region
    # The default region must not be named.
    place: Any = (
        {} if region == "us-east-1"
        else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    )  # fmt: skip
    context.account.s3.create_bucket(Bucket=_name(context), **place)
    context.account.s3.put_public_access_block(
        Bucket=_name(context),
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )


def _remove_bucket(context: ProvisioningContext, _: FoundResource) -> None:
    try:
        context.account.s3.delete_bucket(Bucket=_name(context))
    except boto.ClientError as error:
        if code_of(error) == "BucketNotEmpty":
            raise Retained("it holds objects that were not uploaded from this file") from error
        raise


def _statements(context: ProvisioningContext) -> list[dict[str, Any]]:
    """Statements of the bucket's present policy."""
    try:
        answer = context.account.s3.get_bucket_policy(Bucket=_name(context))
    except boto.ClientError as error:
        if code_of(error) in _ABSENT:
            return []
        raise
    found: list[dict[str, Any]] = json.loads(answer["Policy"])["Statement"]
    return found


def _is_ours(statement: dict[str, Any]) -> bool:
    return str(statement.get("Sid", "")).startswith(SID)


def _policy(context: ProvisioningContext) -> FoundResource | None:
    ours = [statement for statement in _statements(context) if _is_ours(statement)]
    if not ours:
        return None
    is_same = ours == bucket_policy(context.declaration)["Statement"]
    return FoundResource(f"arn:aws:s3:::{_name(context)}", "ACTIVE" if is_same else "STALE")


def _make_policy(context: ProvisioningContext, _: FoundResource | None) -> None:
    _put(context, bucket_policy(context.declaration)["Statement"])


def _remove_policy(context: ProvisioningContext, _: FoundResource) -> None:
    _put(context, [])


def _put(context: ProvisioningContext, ours: list[dict[str, Any]]) -> None:
    """Replace this project's statements in the policy, and no others."""
    statements = [each for each in _statements(context) if not _is_ours(each)] + ours
    if statements:
        policy = bucket_policy(context.declaration) | {"Statement": statements}
        context.account.s3.put_bucket_policy(Bucket=_name(context), Policy=json.dumps(policy))
    else:
        context.account.s3.delete_bucket_policy(Bucket=_name(context))


def _role_name(context: ProvisioningContext) -> str:
    role = context.declaration.role
    if role is None or role.name is None:
        raise CannotProvision("role.name: missing")
    return role.name


def _role(context: ProvisioningContext) -> FoundResource | None:
    iam, name = context.account.iam, _role_name(context)
    try:
        role = iam.get_role(RoleName=name)["Role"]
    except boto.ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise
    try:
        existing = iam.get_role_policy(RoleName=name, PolicyName=POLICY)["PolicyDocument"]
    except boto.ClientError as error:
        if code_of(error) not in _ABSENT:
            raise
        existing = None
    declared = (trust_policy(context.declaration), role_policy(context.declaration))
    is_same = (role["AssumeRolePolicyDocument"], existing) == declared
    return FoundResource(role["Arn"], "ACTIVE" if is_same else "STALE")


def _make_role(context: ProvisioningContext, found: FoundResource | None) -> None:
    iam, name = context.account.iam, _role_name(context)
    trust = json.dumps(trust_policy(context.declaration))
    if found is None:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
    else:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
    permissions = json.dumps(role_policy(context.declaration))
    iam.put_role_policy(RoleName=name, PolicyName=POLICY, PolicyDocument=permissions)


def _remove_role(context: ProvisioningContext, _: FoundResource) -> None:
    iam, name = context.account.iam, _role_name(context)
    try:
        iam.delete_role_policy(RoleName=name, PolicyName=POLICY)
    except boto.ClientError as error:
        if code_of(error) not in _ABSENT:
            raise
    iam.delete_role(RoleName=name)
