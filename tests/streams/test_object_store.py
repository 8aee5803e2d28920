"""Objects by URL: one contract for S3 and for a local folder in its place."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from models.errors import ObjectNotFound, ObjectRefused, Unavailable
from streams.object_store import Object, Objects, join
from tests.buckets import s3_server, use_aws_environment
from tests.servers import own_port

BUCKET = "shop-data"
ROOT = f"s3://{BUCKET}"
LARGE = os.urandom(1024) * 9 * 1024
"""More than boto3 sends or fetches in one part."""


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Address of an S3 server that this module's tests share."""
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_aws_environment(monkeypatch, tmp_path)


@pytest.fixture(params=["s3", "folder"])
def objects(
    request: pytest.FixtureRequest, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    """Objects of each kind, with one empty bucket."""
    if request.param == "folder":
        (tmp_path / "buckets" / BUCKET).mkdir(parents=True)
        return Objects(str(tmp_path / "buckets"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=BUCKET)
    for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=each["Key"])
    s3.close()
    return Objects()


def put(objects: Objects, key: str, content: bytes = b"x") -> None:
    """Write an object."""
    with objects.writing(f"{ROOT}/{key}") as stream:
        stream.write(content)


def content_of(objects: Objects, url: str) -> bytes:
    """Read an object."""
    with objects.open(url) as stream:
        return stream.read()


def test_a_written_object_can_be_read(objects: Objects, tmp_path: Path) -> None:
    """Stream, upload, size, download and the stream back agree, also for a large object."""
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    objects.upload(source, f"{ROOT}/a/large.bin")
    put(objects, "a/sm€ll 1%20.txt", b"h\xc3\xa4")
    put(objects, "empty", b"")
    assert content_of(objects, f"{ROOT}/a/large.bin") == LARGE
    assert content_of(objects, f"{ROOT}/a/sm€ll 1%20.txt") == b"h\xc3\xa4"
    assert content_of(objects, f"{ROOT}/empty") == b""
    assert objects.size(f"{ROOT}/a/large.bin") == len(LARGE)
    folder = tmp_path / "downloads"
    folder.mkdir()
    assert objects.download(f"{ROOT}/a/large.bin", folder).read_bytes() == LARGE
    assert len(list(folder.iterdir())) == 1


def test_a_stream_is_read_by_lines_and_chunks(objects: Objects) -> None:
    """The stream is a buffered one: lines, a few bytes, the rest."""
    put(objects, "lines", b"one\ntwo\n" + b"x" * 3_000_000)
    with objects.open(f"{ROOT}/lines") as stream:
        assert stream.readline() == b"one\n"
        assert stream.read(2) == b"tw"
        assert len(stream.read()) == 3_000_002


def test_writing_again_replaces(objects: Objects) -> None:
    """The last content written is the object's."""
    put(objects, "a", b"long before")
    put(objects, "a", b"now")
    assert content_of(objects, f"{ROOT}/a") == b"now"


def test_a_failed_write_leaves_the_old_object(objects: Objects) -> None:
    """An error in the middle of writing changes nothing, and leaves nothing behind."""
    put(objects, "a", b"before")

    def half() -> None:
        with objects.writing(f"{ROOT}/a") as stream:
            stream.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert content_of(objects, f"{ROOT}/a") == b"before"
    assert list(objects.find(ROOT)) == [Object(f"{ROOT}/a", 6)]


def test_a_folder_is_listed_by_key(objects: Objects) -> None:
    """All objects below a folder are found in key order, and none with only the same prefix."""
    keys = ["data/b.csv", "data/a/2.csv", "data/a.csv", "data/a/1.csv", "data-old/x", "data/Z"]
    for key in keys:
        put(objects, key)
    expected = ["Z", "a.csv", "a/1.csv", "a/2.csv", "b.csv"]
    for url in (f"{ROOT}/data", f"{ROOT}/data/"):
        assert [each.url for each in objects.find(url)] == [f"{ROOT}/data/{n}" for n in expected]
    everything = [each.url.removeprefix(f"{ROOT}/") for each in objects.find(ROOT)]
    assert everything == sorted(keys)


def test_an_object_is_found_by_its_own_url(objects: Objects) -> None:
    """A key that is an object gives just that."""
    put(objects, "a.csv", b"12345")
    put(objects, "a.csv.old")
    assert list(objects.find(f"{ROOT}/a.csv")) == [Object(f"{ROOT}/a.csv", 5)]


@pytest.mark.parametrize("url", [f"{ROOT}/none", f"{ROOT}/none/", "s3://no-such-bucket/a"])
def test_a_missing_object_is_an_error(objects: Objects, url: str, tmp_path: Path) -> None:
    """Neither a missing key nor a missing bucket is found, and a download leaves no file."""
    with pytest.raises(ObjectNotFound, match=url.split("/")[2]):
        list(objects.find(url))
    if not url.endswith("/"):
        for read in (objects.size, lambda url: content_of(objects, url)):
            with pytest.raises(ObjectNotFound, match=r"check|bucket"):
                read(url)
        with pytest.raises(ObjectNotFound):
            objects.download(url, tmp_path)
        assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_an_empty_bucket_has_nothing_to_find(objects: Objects) -> None:
    """A bucket without objects is no input."""
    with pytest.raises(ObjectNotFound):
        list(objects.find(ROOT))


def test_a_missing_bucket_is_not_written(objects: Objects, tmp_path: Path) -> None:
    """A misspelt bucket is not made."""
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(ObjectNotFound):
        objects.upload(tmp_path / "f", "s3://no-such-bucket/a")


@pytest.mark.parametrize(
    "url",
    [
        f"{ROOT}/../other/a",
        f"{ROOT}/a/../../b",
        f"{ROOT}/..",
        f"{ROOT}/./a",
        f"{ROOT}//etc/passwd",
        f"{ROOT}/a//b",
        f"{ROOT}/a\0b",
        f"{ROOT}/{'k' * 1025}",
        "s3://../a",
        "s3:///a",
        "s3://A_bucket/a",
        "s3://",
        "http://example.org/a",
        "gs://bucket/a",
        "",
        "a\0b",
    ],
)
def test_a_url_that_leads_elsewhere_is_refused(objects: Objects, url: str) -> None:
    """No key climbs out of its bucket, and no other scheme is tried."""
    with pytest.raises(ObjectRefused):
        list(objects.find(url))
    with pytest.raises(ObjectRefused):
        content_of(objects, url)
    with pytest.raises(ObjectRefused), objects.writing(url):
        pass


@pytest.mark.parametrize("url", [ROOT, f"{ROOT}/", f"{ROOT}/a/"])
def test_a_folder_cannot_be_read_as_an_object(objects: Objects, url: str) -> None:
    """The error asks for the name of an object in it."""
    with pytest.raises(ObjectRefused, match="name an object"):
        content_of(objects, url)
    with pytest.raises(ObjectRefused, match="name an object"), objects.writing(url):
        pass


def test_a_link_out_of_its_bucket_is_refused(tmp_path: Path) -> None:
    """Neither a file nor a folder outside is reached through a link inside a bucket."""
    bucket = tmp_path / "buckets" / BUCKET
    bucket.mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (bucket / "link").symlink_to(tmp_path / "secret")
    (bucket / "up").symlink_to(tmp_path)
    objects = Objects(str(tmp_path / "buckets"))
    for url in (f"{ROOT}/link", f"{ROOT}/up/secret"):
        with pytest.raises(ObjectRefused, match="out of its bucket"):
            content_of(objects, url)


def test_a_local_path_needs_no_bucket(tmp_path: Path) -> None:
    """Plain paths are written, listed and read; writing makes the folders."""
    objects = Objects()
    url = join(str(tmp_path / "new" / "folder"), "a")
    with objects.writing(url) as stream:
        stream.write(b"x")
    assert list(objects.find(str(tmp_path / "new"))) == [Object(url, 1)]
    assert content_of(objects, url) == b"x"
    assert Path(url).stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    """Permission bits that new files of this process do not get."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def test_without_credentials_s3_is_refused(monkeypatch: pytest.MonkeyPatch, moto: str) -> None:
    """The error names missing credentials."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
    with pytest.raises(ObjectRefused, match="credentials"):
        Objects().size(f"{ROOT}/a")


def test_an_unknown_profile_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that does not exist is named."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ObjectRefused, match="nobody"):
        Objects().size(f"{ROOT}/a")


def test_an_endpoint_without_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection may pass later."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{own_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        list(Objects().find(f"{ROOT}/a"))


class BadS3(BaseHTTPRequestHandler):
    """An S3 server that denies, fails, or truncates its responses, by the key."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer badly."""
        status = int(self.path.rsplit("/", 1)[-1].partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"short")
        self.close_connection = True

    def do_HEAD(self) -> None:
        """Answer badly, without a body."""
        self.send_response(int(self.path.rsplit("/", 1)[-1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def bad_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    """Objects of an S3 in a bad mood."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BadS3) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        yield Objects()
        server.shutdown()


def test_a_denial_names_the_needed_permissions(bad_s3: Objects) -> None:
    """Forbidden is no outage."""
    with pytest.raises(ObjectRefused, match="s3:GetObject"):
        bad_s3.size(f"{ROOT}/403")


def test_a_broken_s3_is_unavailable(bad_s3: Objects) -> None:
    """Errors of the server may pass."""
    with pytest.raises(Unavailable):
        bad_s3.size(f"{ROOT}/503")


def test_a_truncated_response_is_an_error(bad_s3: Objects) -> None:
    """Reading to the end raises an error."""
    with pytest.raises(Unavailable):
        content_of(bad_s3, f"{ROOT}/200")
