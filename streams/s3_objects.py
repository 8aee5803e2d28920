"""Objects of S3, with the errors of this project; `streams.object_store` has objects of any kind.

Apart from it, since boto3 takes 10 MB and some 60 ms of CPU to load.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import boto3.session
import botocore.exceptions as boto
from botocore.config import Config

from models.errors import ObjectNotFound, ObjectRefused, RecommenderError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TIMEOUT_S = 20.0
ATTEMPTS = 4
CHUNK_BYTES = 1024 * 1024

_NOT_FOUND = frozenset({"404", "NoSuchBucket", "NoSuchKey", "NotFound"})


class S3Objects:
    """Objects by bucket and key, with the credentials, region and endpoint of the AWS environment.

    Methods raise what those of `streams.object_store.Objects` do; `url` is for the error's text.

    Raises
    ------
    ObjectRefused
        boto3's own settings are not in order.
    """

    def __init__(self) -> None:
        config = Config(
            connect_timeout=TIMEOUT_S,
            read_timeout=TIMEOUT_S,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        )
        try:
            self._client: S3Client = boto3.session.Session().client("s3", config=config)
        except (boto.BotoCoreError, ValueError) as error:
            raise ObjectRefused(f"boto3 cannot be set up for S3: {error}") from error

    def size(self, bucket: str, key: str, url: str) -> int:
        """Size of an object in bytes."""
        with _translated_s3_errors(url):
            return self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]

    def open(self, bucket: str, key: str, url: str) -> BinaryIO:
        """The content of an object as a stream."""
        with _translated_s3_errors(url):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
        return io.BufferedReader(_Body(cast("BinaryIO", body), url), CHUNK_BYTES)

    def download(self, bucket: str, key: str, target: BinaryIO, url: str) -> None:
        """Write the content of an object to a file."""
        with _translated_s3_errors(url):
            self._client.download_fileobj(bucket, key, target)

    def upload(self, bucket: str, key: str, source: BinaryIO, url: str) -> None:
        """Write the content of a stream to an object, replacing it."""
        with _translated_s3_errors(url):
            self._client.upload_fileobj(source, bucket, key)

    def remove(self, bucket: str, key: str, url: str) -> None:
        """Remove an object; does nothing if it is missing."""
        with _translated_s3_errors(url):
            self._client.delete_object(Bucket=bucket, Key=key)

    def below(self, bucket: str, key: str, url: str) -> Iterator[tuple[str, int]]:
        """Keys that begin with `key`, in order, and their sizes in bytes."""
        with _translated_s3_errors(url):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=key):
                for each in page.get("Contents", []):
                    yield each["Key"], each["Size"]


class _Body(io.RawIOBase):
    """The body of an S3 response, with errors of this project."""

    def __init__(self, body: BinaryIO, url: str) -> None:
        self._body = body
        self._url = url

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        with _translated_s3_errors(self._url):
            chunk = self._body.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()
        super().close()


@contextlib.contextmanager
def _translated_s3_errors(url: str) -> Iterator[None]:
    """Translate errors of boto3 to this project's, with the URL and a remedy."""
    try:
        yield
    except boto.ClientError as error:
        raise _response_error(url, error) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise ObjectRefused(f"{url}: boto3 finds no credentials for S3: {error}") from error
    except boto.BotoCoreError as error:
        raise Unavailable(f"S3 does not answer for {url}: {error}") from error


def _response_error(url: str, error: boto.ClientError) -> RecommenderError:
    """The error of an S3 error response."""
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))[:100]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _NOT_FOUND:
        return ObjectNotFound(f"no object at {url} ({code}): check bucket and key")
    if 400 <= status < 500 and status not in {408, 429}:
        return ObjectRefused(
            f"S3 refuses {url} ({code}): check the credentials, and that they may s3:ListBucket,"
            " s3:GetObject and s3:PutObject there"
        )
    return Unavailable(f"S3 does not answer for {url}: {code}")
