"""Addresses of the servers of a running `recommender up` or `demo`, in a note in its folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import msgspec

from models.errors import NotConfigured
from models.secrets import without_password
from models.settings import Settings

DEMO = "demo"
"""Folder of the demo's own servers within the data folder."""


class Servers(msgspec.Struct, frozen=True):
    """Content of `servers.json` in the data folder; never a password.

    Attributes
    ----------
    partitions
        Partitions of each event topic.
    needs_password
        True if Redis' URL had one: the reader must provide it.
    """

    kafka: str
    redis: str
    partitions: int
    api: str = ""
    needs_password: bool = False


@contextlib.contextmanager
def announced(data_dir: Path, settings: Settings, api_url: str) -> Iterator[None]:
    """Keep the servers' addresses in the data folder during the block."""
    note = data_dir / "servers.json"
    redis = without_password(settings.redis)
    needs_password = redis != settings.redis
    servers = Servers(settings.kafka, redis, settings.partitions, api_url, needs_password)
    note.unlink(missing_ok=True)
    note.touch(mode=0o600)
    note.write_bytes(msgspec.json.encode(servers))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def announced_api(data_dir: Path) -> str | None:
    """Address of the API of what runs on this data folder; None while it is not all ready."""
    try:
        # Written in two steps: empty at first.
        note = (data_dir / "servers.json").read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(note, type=Servers).api or None if note else None


def located(settings: Settings, *, needs_redis: bool = True) -> Settings:
    """The settings with the servers' addresses filled in, from a running `up` if they lack them.

    Raises
    ------
    NotConfigured
        A server is not named, and no `recommender up` or `demo` runs on this data folder; or
        its Redis needs a password, which is stored nowhere.
    """
    lacks_redis = needs_redis and not settings.redis
    if settings.kafka and not lacks_redis:
        return settings
    folders = (settings.data_dir, settings.data_dir / DEMO)
    folder = next((folder for folder in folders if _is_running(folder)), None)
    if folder is None:
        raise NotConfigured(
            "no servers: start `recommender up` in this folder, or set RECOMMENDER_KAFKA"
            + (" and RECOMMENDER_REDIS" if needs_redis else "")
        )
    servers = msgspec.json.decode((folder / "servers.json").read_bytes(), type=Servers)
    if lacks_redis and servers.needs_password:
        raise NotConfigured(
            f"Redis at {servers.redis} wants a password, which is stored nowhere: set "
            "RECOMMENDER_REDIS here as for `recommender up`"
        )
    return settings.model_copy(
        update={
            "kafka": settings.kafka or servers.kafka,
            "redis": settings.redis or servers.redis,
            "partitions": settings.partitions if settings.kafka else servers.partitions,
        }
    )


def _is_running(folder: Path) -> bool:
    """True if a supervisor holds this folder's lock and has written the note."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return (folder / "servers.json").exists()
    except OSError:
        return False
    # A note of a killed supervisor is out of date.
    return False
