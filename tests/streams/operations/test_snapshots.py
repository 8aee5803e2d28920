"""Snapshots in folders and in S3: whole, or none; damaged ones are refused and touch nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
import redis

from models.errors import ObjectNotFound, ObjectRefused, SnapshotRefused
from models.settings import Settings
from models.state.copies import watched_server
from streams.operations import snapshots
from streams.operations.snapshots import Manifest, Progress, Snapshot, listed, newest, restore, save
from tests.buckets import s3_server, use_aws_environment

N_KEYS = 300


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """State of the group shop, which is emptied afterwards."""
    with redis.Redis.from_url(redis_url) as made:
        made.mset({f"{{shop}}:pairs:{n}": bytes([n % 256]) * 100 for n in range(N_KEYS)})
        made.hset("{shop}:watermarks", mapping={"c/t/0": 41, "c/t/1": 7})
        yield made
        made.flushdb()


@pytest.fixture
def settings(redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of the server, with parts of a few values."""
    assert client.ping()
    monkeypatch.setattr(snapshots, "PART_BYTES", 4000)
    monkeypatch.setattr(watched_server, "KEYS_AT_ONCE", 50)
    return Settings(redis=redis_url)


def nothing(_: Progress) -> None:
    """Progress that nobody looks at."""


def saved(settings: Settings, folder: object, **options: Any) -> Snapshot:
    """A snapshot in a folder."""
    return save(settings, str(folder), **{"longest_pause_s": 5, "tell": nothing, **options})


def restored(settings: Settings, folder: object, name: str, *, replaces: bool = True) -> Snapshot:
    """Restore one."""
    return restore(settings, str(folder), name, replaces=replaces, tell=nothing)


def held(client: redis.Redis) -> dict[str, bytes | None]:
    """Values of strings."""
    keys: list[Any] = client.keys("{shop}:pairs:*")
    names = sorted(key.decode() for key in keys)
    return dict(zip(names, client.mget(names) if names else [], strict=True))


def test_saved_listed_and_restored(settings: Settings, client: redis.Redis, tmp_path: Path) -> None:
    """Several snapshots in one folder; the newest is the last."""
    told: list[Progress] = []
    first = saved(settings, tmp_path, tell=told.append)
    before = held(client)
    assert len(before) == N_KEYS
    assert told[-1].values >= N_KEYS
    client.set("{shop}:pairs:0", b"later")
    second = saved(settings, tmp_path)
    found = list(listed(settings, str(tmp_path)))

    assert sorted(found) == sorted([first, second])
    assert newest(settings, str(tmp_path)) == max(first.name, second.name)
    assert len(first.manifest.parts) > 3
    assert first.manifest.watermarks == {"c/t/0": 41, "c/t/1": 7}
    assert first.manifest.groups == ["shop"]
    assert 0 < first.manifest.pause_s < 5
    with pytest.raises(SnapshotRefused, match="--replace"):
        restored(settings, tmp_path, first.name, replaces=False)
    client.flushdb()
    assert restored(settings, tmp_path, first.name, replaces=False) == first
    assert held(client) == before
    restored(settings, tmp_path, second.name)
    assert held(client)["{shop}:pairs:0"] == b"later"


def test_in_s3(
    settings: Settings, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a prefix of a bucket, by the AWS environment."""
    use_aws_environment(monkeypatch, tmp_path)
    with s3_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        s3 = boto3.client("s3", region_name="eu-west-1")
        s3.create_bucket(
            Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        folder = "s3://kept/shop"
        one, before = saved(settings, folder), held(client)
        client.flushdb()
        assert list(listed(settings, folder)) == [one]
        restored(settings, folder, newest(settings, folder), replaces=False)
        assert held(client) == before

        with pytest.raises(KeyboardInterrupt):
            saved(settings, folder, tell=interrupting(200))
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket="kept")["Contents"]]
        assert {key.split("/")[1] for key in keys} == {one.name}
        with pytest.raises(ObjectNotFound):
            saved(settings, "s3://absent/shop")


def interrupting(values: int) -> Callable[[Progress], None]:
    """Ctrl-C once so many values have been taken."""

    def tell(progress: Progress) -> None:
        if progress.values > values:
            raise KeyboardInterrupt

    return tell


def test_broken_off(settings: Settings, client: redis.Redis, tmp_path: Path) -> None:
    """Ctrl-C leaves no file of a save; of a restore it leaves no state, which says so."""
    one = saved(settings, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        saved(settings, tmp_path, tell=interrupting(200))
    assert [folder.name for folder in tmp_path.iterdir() if list(folder.iterdir())] == [one.name]
    client.set("{shop}:pairs:1", b"writes do not wait")
    with pytest.raises(KeyboardInterrupt):
        restore(settings, str(tmp_path), one.name, replaces=True, tell=interrupting(100))
    assert client.keys("*") == []


def test_killed_while_it_saves(settings: Settings, client: redis.Redis, tmp_path: Path) -> None:
    """What is left is no snapshot to any command."""
    one = saved(settings, tmp_path)
    shutil.copytree(tmp_path / one.name, tmp_path / "zz")
    (tmp_path / "zz" / "manifest.json").unlink()
    before = held(client)

    found = list(listed(settings, str(tmp_path)))
    assert found == [one, ("zz", "it was broken off: remove its files")]
    assert newest(settings, str(tmp_path)) == one.name
    with pytest.raises(ObjectNotFound):
        restored(settings, tmp_path, "zz")
    (tmp_path / one.name / "manifest.json").unlink()
    with pytest.raises(ObjectNotFound, match="no snapshot in"):
        newest(settings, str(tmp_path))
    assert held(client) == before


def edited(manifest: Path, **members: Any) -> None:
    """Change a manifest with a checksum that fits: made by another release, or by an enemy."""
    found: dict[str, Any] = json.loads(manifest.read_text()) | members
    made = msgspec.convert(found, Manifest)
    manifest.write_bytes(msgspec.json.encode(snapshots._sealed(made)))


def rewritten(folder: Path, content: bytes, **part: Any) -> None:
    """Put other content into the first part, with what fits it in the manifest."""
    packed = zlib.compress(content)
    (folder / "part-000001").write_bytes(packed)
    parts = json.loads((folder / "manifest.json").read_text())["parts"]
    digest = hashlib.sha256(packed).hexdigest()
    parts[0] |= {"bytes": len(content), "packed_bytes": len(packed), "sha256": digest, **part}
    edited(folder / "manifest.json", parts=parts)


def flipped(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of a part": lambda folder: flipped(folder / "part-000002", 50),
    "the end of a part": lambda folder: flipped(folder / "part-000003", -1),
    "a part that is torn": lambda folder: (folder / "part-000002").write_bytes(
        (folder / "part-000002").read_bytes()[:-9]
    ),
    "a part that is longer": lambda folder: (folder / "part-000002").write_bytes(
        (folder / "part-000002").read_bytes() + b"x"
    ),
    "a part that is missing": lambda folder: (folder / "part-000002").unlink(),
    "parts that are exchanged": lambda folder: (folder / "part-000001").rename(
        folder / "part-000002"
    ),
    "a manifest that is torn": lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_bytes()[:-30]
    ),
    "a manifest with another number": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace("41", "40")
    ),
    "a manifest that is none": lambda folder: (folder / "manifest.json").write_text("[]"),
    "a manifest without a part": lambda folder: edited(
        folder / "manifest.json",
        parts=json.loads((folder / "manifest.json").read_text())["parts"][1:],
    ),
    "a part of another name": lambda folder: rewritten(folder, b"\x90", name="../part-000001"),
    "a part that is a bomb": lambda folder: rewritten(folder, bytes(10**7), bytes=100),
    "a part that would be a bomb": lambda folder: rewritten(folder, b"\x90", bytes=2**40),
    "a part that holds nothing": lambda folder: rewritten(folder, b"\x90"),
    "a part of something else": lambda folder: rewritten(folder, b"\x91\xc0"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_refused(
    settings: Settings, client: redis.Redis, tmp_path: Path, damage: str
) -> None:
    """Before anything is written, by a sentence that names it."""
    one, before = saved(settings, tmp_path), held(client)
    DAMAGES[damage](tmp_path / one.name)
    client.set("{shop}:pairs:0", b"later")

    with pytest.raises((SnapshotRefused, ObjectNotFound), match=str(tmp_path)):
        restored(settings, tmp_path, one.name)

    assert held(client) == before | {"{shop}:pairs:0": b"later"}


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"format": 2}, "in format 2, and this release reads format 1"),
        ({"state_format": 99}, r"state in format 99 \(release .*recommender rebuild"),
        ({"group": "other"}, "of group other, and RECOMMENDER_GROUP says shop"),
    ],
)
def test_a_snapshot_of_another_kind_is_refused(
    settings: Settings,
    client: redis.Redis,
    tmp_path: Path,
    member: dict[str, Any],
    said: str,
) -> None:
    """By a sentence that says what to do; nothing is touched."""
    one = saved(settings, tmp_path)
    edited(tmp_path / one.name / "manifest.json", **member)
    with pytest.raises(SnapshotRefused, match=said):
        restored(settings, tmp_path, one.name)
    assert len(held(client)) == N_KEYS


def test_a_folder_that_cannot_be_one(
    settings: Settings, client: redis.Redis, tmp_path: Path
) -> None:
    """It is told, and nothing is left."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ObjectRefused):
        saved(settings, file)
    with pytest.raises(ObjectRefused):
        saved(settings, "ftp://host/folder")
    with pytest.raises(ObjectNotFound):
        list(listed(settings, str(tmp_path / "absent")))
    assert client.ping()
