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
    """Where data is put for Amazon Personalize, and where its results go."""

    name: BucketName


class DeclaredRole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Amazon Personalize acts as: a role that is there (`arn`), or one to make (`name`)."""

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
    """What to train: a recipe's name, or `automatic` for the choice by what is measured."""

    recipe: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,128}$")]
    event_type: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class DeclaredCampaign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A solution that is served."""

    solution: Name
    min_tps: Annotated[int, Meta(ge=1, le=500)] = 1


class DeclaredFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which items may be recommended."""

    expression: Annotated[str, Meta(min_length=1, max_length=2500)]


class DeclaredBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `recommender batch` infers: for whom, with what, and the folder in S3 for results."""

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
        Of AWS; the policies are for it alone. Taken from `role.arn` where that is given.
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
        """The account that the policies are for; raises `CannotProvision` if nothing says it."""
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
        What is wrong, by the file's key.
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
        # "$.datasets", or "key` in `$.datasets" of a key that is wrong itself.
        key = at.rstrip("`").rpartition("$")[2].lstrip(".") or "the file"
        raise CannotProvision(f"{key}: {text}") from error
    _check(found)
    return _located(found, path.resolve().parent)


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
    """Raise `CannotProvision` where parts of the file do not fit each other."""
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


def _located(found: Declaration, folder: Path) -> Declaration:
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
