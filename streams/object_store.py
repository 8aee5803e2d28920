"""Objects by URL: local files, and objects of S3 or of a local folder in its place.

    s3://bucket/key    S3 with the credentials, region and endpoint of the standard AWS environment
                       (`AWS_ENDPOINT_URL_S3`, profiles, roles, …); with a buckets folder, the file
                       <folder>/bucket/key
    anything else      a local path

Objects are written atomically. Memory is bounded for any size.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from models.errors import ObjectNotFound, ObjectRefused

if TYPE_CHECKING:
    from streams.s3_objects import S3Objects

CHUNK_BYTES = 1024 * 1024
MAX_KEY_BYTES = 1024
"""Longest key of S3."""

_S3 = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_UNFINISHED = ".recommender-unfinished-"


class Object(NamedTuple):
    """An object with its size in bytes."""

    url: str
    size: int


class _Key(NamedTuple):
    """Location of an object in S3."""

    bucket: str
    key: str


class Objects:
    """Reads and writes objects; blocking, safe to call from many threads.

    Every method raises `ObjectNotFound` for a missing object, `ObjectRefused` for an invalid URL or
    denied access, and `Unavailable` if S3 does not answer.

    Parameters
    ----------
    buckets_dir
        Folder in place of S3, with a folder for each bucket; "": S3 itself.
    """

    def __init__(self, buckets_dir: str = "") -> None:
        self._buckets_dir = Path(buckets_dir) if buckets_dir else None

    def find(self, url: str) -> Iterator[Object]:
        """The object at a URL; without one, all objects below it as a folder, by key.

        Never empty. A URL that ends with a slash, or names a bucket only, is a folder.
        """
        place = self._place(url)
        found = self._listed(place, url) if isinstance(place, _Key) else _files(place, url)
        first = next(found, None)
        if first is None:
            raise ObjectNotFound(f"no object at {url}, nor below it: check bucket and key")
        yield first
        yield from found

    def size(self, url: str) -> int:
        """Size of an object in bytes."""
        place = self._place(url, folder=False)
        with _translated_errors(url):
            if isinstance(place, _Key):
                return self._s3.size(*place, url)
            if not place.is_file():
                raise FileNotFoundError
            return place.stat().st_size

    @contextlib.contextmanager
    def open(self, url: str) -> Iterator[BinaryIO]:
        """The content of an object as a stream, closed with the block."""
        place = self._place(url, folder=False)
        stream: BinaryIO
        with _translated_errors(url):
            stream = self._s3.open(*place, url) if isinstance(place, _Key) else place.open("rb")
        with stream:
            yield stream

    def download(self, url: str, folder: Path) -> Path:
        """A new file in the folder with the content of an object; the caller removes it."""
        place = self._place(url, folder=False)
        path = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
        with _translated_errors(url), _created(path) as target:
            if isinstance(place, _Key):
                self._s3.download(*place, target, url)
            else:
                with self.open(url) as source:
                    shutil.copyfileobj(source, target, CHUNK_BYTES)
        return path

    @contextlib.contextmanager
    def as_file(self, url: str, folder: Path) -> Iterator[Path]:
        """A file with the content of an object: itself, or a download removed with the block."""
        place = self._place(url, folder=False)
        path = self.download(url, folder) if isinstance(place, _Key) else place
        try:
            yield path
        finally:
            if path != place:
                path.unlink(missing_ok=True)

    def upload(self, path: Path, url: str) -> None:
        """Write a file's content to the object at a URL, replacing it."""
        with path.open("rb") as source:
            self._write(url, source)

    @contextlib.contextmanager
    def writing(self, url: str) -> Iterator[BinaryIO]:
        """A stream whose content becomes the object if the block ends without an error."""
        with tempfile.TemporaryFile() as spool:
            yield spool
            spool.seek(0)
            self._write(url, spool)

    def remove(self, url: str) -> None:
        """Remove an object; does nothing if it is missing."""
        place = self._place(url, folder=False)
        with _translated_errors(url):
            if isinstance(place, _Key):
                self._s3.remove(*place, url)
            else:
                place.unlink(missing_ok=True)

    def _write(self, url: str, source: BinaryIO) -> None:
        place = self._place(url, folder=False)
        with _translated_errors(url):
            if isinstance(place, _Key):
                self._s3.upload(*place, source, url)
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
            with _created(unfinished) as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
                target.flush()
                unfinished.replace(place)

    def _listed(self, place: _Key, url: str) -> Iterator[Object]:
        bucket, key = place
        if key and not key.endswith("/"):
            with contextlib.suppress(ObjectNotFound):
                yield Object(url, self.size(url))
                return
            key += "/"
        with _translated_errors(url):
            for name, size in self._s3.below(bucket, key, url):
                # Consoles mark a folder by an empty object whose key ends with a slash.
                if not name.endswith("/"):
                    yield Object(f"{_S3}{bucket}/{name}", size)

    def _place(self, url: str, *, folder: bool = True) -> Path | _Key:
        """Location of an object, or of a folder unless `folder` is False."""
        parsed = _parsed(url)
        key = parsed.key if isinstance(parsed, _Key) else url
        if not folder and (not key or key.endswith("/")):
            raise ObjectRefused(f"{url!r} is a folder: name an object in it")
        if not isinstance(parsed, _Key) or self._buckets_dir is None:
            return parsed
        root = (self._buckets_dir / parsed.bucket).resolve()
        if not root.is_dir():
            raise ObjectNotFound(f"no bucket {parsed.bucket}: make the folder {root}")
        with _translated_errors(url):
            if not (root / key).resolve().is_relative_to(root):
                raise ObjectRefused(f"{url!r} leads out of its bucket")
        return root / key

    @cached_property
    def _s3(self) -> S3Objects:
        from streams.s3_objects import S3Objects  # noqa: PLC0415  boto3, only where S3 is used

        return S3Objects()


def join(folder: str, name: str) -> str:
    """URL of an object in a folder.

    >>> join("s3://bucket/prefix/", "items.csv"), join("s3://bucket", "a"), join("out", "a")
    ('s3://bucket/prefix/items.csv', 's3://bucket/a', 'out/a')
    """
    return f"{folder.rstrip('/')}/{name}"


def _parsed(url: str) -> Path | _Key:
    if not url.startswith(_S3):
        if not url or "\0" in url or _SCHEME.match(url):
            raise ObjectRefused(f"{url!r} is neither s3://bucket/key nor a path of this machine")
        return Path(url)
    bucket, _, key = url.removeprefix(_S3).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ObjectRefused(f"{url!r} names no bucket: 3 to 63 of a-z, 0-9, dot and hyphen")
    # An empty last part means a folder.
    *folders, last = key.split("/")
    if {".", ".."} & {*folders, last} or "" in folders or "\0" in key:
        raise ObjectRefused(f"{url!r} has an empty part, a dot or two dots in its key")
    if len(key.encode(errors="surrogatepass")) > MAX_KEY_BYTES:
        raise ObjectRefused(f"a key of more than {MAX_KEY_BYTES} bytes: {url[:100]!r}…")
    return _Key(bucket, key)


def _files(path: Path, url: str) -> Iterator[Object]:
    """The file, or all files below the folder in the order of S3 keys."""
    with _translated_errors(url):
        if path.is_dir():
            yield from _walk(path, url)
        elif path.is_file() and not url.endswith("/"):
            yield Object(url, path.stat().st_size)


def _walk(folder: Path, url: str) -> Iterator[Object]:
    with os.scandir(folder) as entries:
        # A folder sorts by its name with a slash, as the keys in it do.
        keys = sorted(
            os.fsencode(entry.name) + b"/" * entry.is_dir(follow_symlinks=False)
            for entry in entries
        )
    for key in keys:
        name = os.fsdecode(key.removesuffix(b"/"))
        path, at = folder / name, join(url, name)
        if key.endswith(b"/"):
            yield from _walk(path, at)
        elif path.is_file() and not name.startswith(_UNFINISHED):
            yield Object(at, path.stat().st_size)


@contextlib.contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing; removed if the block fails."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _translated_errors(url: str) -> Iterator[None]:
    """Translate errors of the system to this project's, with the URL and a remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectNotFound(f"no object at {url}: check the path") from error
    except OSError as error:
        raise ObjectRefused(f"{url}: {error.strerror or error}") from error
