"""The declarative file of `recommender provision` and `recommender batch`: TOML, checked whole."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from models.errors import CannotProvision

MAX_FILE_BYTES = 256 * 1024
MAX_SCHEMA_BYTES = 64 * 1024
MAX_NAMED = 100
"""Solutions, campaigns and filters that one file may name, each."""

AUTOMATIC = "automatic"

DeclaredKind: TypeAlias = Literal["interactions", "items", "users"]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$")]
BucketName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
Path_: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]


class DeclaredBucket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bucket for data of Amazon Personalize and for its results."""

    name: BucketName


class DeclaredRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The role of Amazon Personalize: an existing one (`arn`), or one to create (`name`)."""

    arn: Annotated[str, Meta(pattern=r"^arn:[a-z0-9-]+:iam::[0-9]{12}:role/.{1,512}$")] | None = (
        None
    )
    name: Annotated[str, Meta(pattern=r"^[\w+=,.@-]{1,64}$")] | None = None


class DeclaredDataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One dataset: a file with its Avro schema, and its rows (a CSV file, or in S3) if any."""

    schema: Path_
    source: Path_ | None = None


class DeclaredTracker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The event tracker of the group."""

    name: Name


class DeclaredSolution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A solution: a recipe's name, or `automatic` for the best of several by metrics."""

    recipe: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,128}$")]
    event_type: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class DeclaredCampaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A campaign that serves a solution."""

    solution: Name
    min_tps: Annotated[int, Meta(ge=1, le=500)] = 1


class DeclaredFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A filter on the recommended items."""

    expression: Annotated[str, Meta(min_length=1, max_length=2500)]


class DeclaredBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inference of `recommender batch`: solution, input, and the output folder in S3."""

    solution: Name
    input: Path_
    output: Annotated[str, Meta(pattern=r"^s3://[^/]+/.+/$", max_length=1024)]
    num_results: Annotated[int, Meta(ge=1, le=500)] = 25
    filter: Name | None = None


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file; paths in it are relative to its folder.

    Attributes
    ----------
    account
        AWS account, to which the policies are restricted; by default that of `role.arn`.
    """

    group: Name
    bucket: DeclaredBucket | None = None
    role: DeclaredRole | None = None
    account: Annotated[str, Meta(pattern=r"^[0-9]{12}$")] | None = None
    datasets: dict[DeclaredKind, DeclaredDataset] = {}
    tracker: DeclaredTracker | None = None
    solutions: Annotated[dict[Name, DeclaredSolution], Meta(max_length=MAX_NAMED)] = {}
    campaigns: Annotated[dict[Name, DeclaredCampaign], Meta(max_length=MAX_NAMED)] = {}
    filters: Annotated[dict[Name, DeclaredFilter], Meta(max_length=MAX_NAMED)] = {}
    batch: DeclaredBatch | None = None

    @property
    def owner(self) -> str:
        """The account of the policies; raises `CannotProvision` without one."""
        if self.account is not None:
            return self.account
        if self.role is not None and self.role.arn is not None:
            return self.role.arn.split(":")[4]
        raise CannotProvision("account: missing, and no role.arn says it")


def read_declaration(path: Path) -> Declaration:
    """The checked file, with local paths made absolute.

    Raises
    ------
    CannotProvision
        The file is invalid; the text begins with a key.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise CannotProvision(f"{path}: more than {MAX_FILE_BYTES} bytes")
        document = tomllib.loads(raw.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CannotProvision(f"{path}: {error}") from error
    try:
        found = msgspec.convert(document, Declaration)
    except msgspec.ValidationError as error:
        text, _, at = str(error).partition(" - at `")
        # "$.datasets", or "key` in `$.datasets" for an invalid key.
        key = at.rstrip("`").rpartition("$")[2].lstrip(".") or "the file"
        raise CannotProvision(f"{key}: {text}") from error
    _check(found)
    return _with_absolute_paths(found, path.resolve().parent)


def schema_text(dataset: DeclaredDataset, key: str) -> str:
    """The Avro schema of a dataset; raises `CannotProvision` naming the key if unreadable."""
    try:
        with Path(dataset.schema).open("rb") as file:
            raw = file.read(MAX_SCHEMA_BYTES + 1)
        if len(raw) > MAX_SCHEMA_BYTES:
            raise CannotProvision(f"{key}.schema: more than {MAX_SCHEMA_BYTES} bytes")
        msgspec.json.decode(raw)
        return raw.decode()
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise CannotProvision(f"{key}.schema: {error}") from error


def _check(found: Declaration) -> None:
    """Raise `CannotProvision` if parts of the file contradict each other."""
    role = found.role
    if role is not None and (role.arn is None) == (role.name is None):
        raise CannotProvision("role: give either arn or name")
    if role is not None and role.name is not None and found.account is None:
        raise CannotProvision("account: needed to make role.name for this account alone")
    for kind, dataset in found.datasets.items():
        if dataset.source is not None:
            _check_source(found, dataset.source, f"datasets.{kind}.source")
    for name, campaign in found.campaigns.items():
        if campaign.solution not in found.solutions:
            raise CannotProvision(f"campaigns.{name}.solution: no solutions.{campaign.solution}")
    if (batch := found.batch) is None:
        return
    _check_source(found, batch.input, "batch.input")
    if batch.solution not in found.solutions:
        raise CannotProvision(f"batch.solution: no solutions.{batch.solution}")
    if batch.filter is not None and batch.filter not in found.filters:
        raise CannotProvision(f"batch.filter: no filters.{batch.filter}")


def _check_source(found: Declaration, source: str, key: str) -> None:
    if found.role is None:
        raise CannotProvision(f"{key}: Amazon Personalize needs a role to read it")
    if not _is_remote(source) and found.bucket is None:
        raise CannotProvision(f"{key}: a file needs a bucket to go to")


def _with_absolute_paths(found: Declaration, folder: Path) -> Declaration:
    def located(path: str) -> str:
        return path if _is_remote(path) else str(folder / path)

    replace = msgspec.structs.replace
    datasets = {
        kind: replace(
            dataset,
            schema=str(folder / dataset.schema),
            source=None if dataset.source is None else located(dataset.source),
        )
        for kind, dataset in found.datasets.items()
    }
    batch = found.batch and replace(found.batch, input=located(found.batch.input))
    return replace(found, datasets=datasets, batch=batch)


def _is_remote(path: str) -> bool:
    return path.startswith("s3://")
