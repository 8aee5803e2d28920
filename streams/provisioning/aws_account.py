"""The clients of an AWS account by the standard AWS environment, and translation of their errors.

`AWS_ENDPOINT_URL_PERSONALIZE`, `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL_IAM` select other
servers, such as this project's own API.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import boto3.session
import botocore.exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from models.errors import CannotProvision, Unavailable
from streams.aws_personalize import DEFAULT_REGION, answer_of, describe
from streams.event_sinks import SinkAnswer

if TYPE_CHECKING:
    from mypy_boto3_personalize import PersonalizeClient
    from mypy_boto3_s3 import S3Client

TIMEOUT_S = 20.0
ATTEMPTS = 5
MAX_LISTED = 10_000
"""Most resources of one kind that are searched for a name."""


class AwsAccount:
    """Clients, created at first use; boto3 retries throttled and failed calls."""

    def __init__(self) -> None:
        self._config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        )

    @cached_property
    def personalize(self) -> PersonalizeClient:
        """The control plane of Amazon Personalize."""
        return cast("PersonalizeClient", self._client("personalize"))

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3."""
        return cast("S3Client", self._client("s3"))

    @cached_property
    def iam(self) -> Any:  # noqa: ANN401  boto3's stubs of it are not installed
        """AWS IAM."""
        return self._client("iam")

    @property
    def region(self) -> str:
        """Region of the resources."""
        return str(self.s3.meta.region_name)

    def listed(self, operation: str, members: str, **request: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
        """The summaries of a List operation of Amazon Personalize, page by page.

        Raises
        ------
        CannotProvision
            There are more than `MAX_LISTED`.
        """
        pages = cast("Any", self.personalize).get_paginator(operation).paginate(**request)
        n = 0
        for page in pages:
            for summary in page[members]:
                n += 1
                if n > MAX_LISTED:
                    raise CannotProvision(f"{operation}: more than {MAX_LISTED} {members}")
                yield summary

    @cached_property
    def _session(self) -> boto3.session.Session:
        return boto3.session.Session()

    def _client(self, service: str) -> object:
        try:
            region = self._session.region_name or DEFAULT_REGION
            made: object = self._session.client(
                service,  # type: ignore[call-overload]
                region_name=region,
                config=self._config,
            )
        except (boto.BotoCoreError, ValueError) as error:
            raise CannotProvision(f"boto3 cannot be set up for {service}: {error}") from error
        return made


def code_of(error: boto.ClientError) -> str:
    """Code of an error response: `ResourceInUse`, `NoSuchBucket`, `404`."""
    return str(error.response.get("Error", {}).get("Code", "")).removesuffix("Exception")


@contextlib.contextmanager
def translated_errors(key: str) -> Iterator[None]:
    """Translate errors of boto3 to this project's, with a key of the declaration.

    Raises
    ------
    CannotProvision
        AWS refuses.
    Unavailable
        AWS does not answer.
    """
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
        text = f"{key}: {describe(error)}"
        if answer_of(error) in {SinkAnswer.FAILED, SinkAnswer.THROTTLED} and code_of_any(
            error
        ) not in {
            "ResourceNotFound",
            "ResourceInUse",
            "ResourceAlreadyExists",
            "LimitExceeded",
        }:
            raise Unavailable(text) from error
        raise CannotProvision(text) from error


def code_of_any(error: Exception) -> str:
    """Code of an error response; "" for other errors."""
    return code_of(error) if isinstance(error, boto.ClientError) else ""
