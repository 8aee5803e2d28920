"""Atomic steps on a server whose append-only file was torn by a crash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.scripts.registered_scripts import rewrite_torn_file
from models.state.store import Store
from ops.embedded_servers import redis_binary
from ops.ports import free_port
from tests.models.state.reference import NOW, click, message


def _debian() -> str:
    found = shutil.which("redis-server")
    if found is None and "CI" not in os.environ:
        pytest.skip("no redis-server on the PATH")
    return found or "redis-server"


class Server:
    """A Redis that a test kills, cuts and starts again; every write is on disk at once."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.binary, self.folder, self.port = binary, folder, free_port()
        self.start()

    def start(self) -> None:
        """Start with the folder's data; returns at once, clients wait."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        options += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.binary, *options], stdout=log)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        self.process.kill()
        self.process.wait()

    def cut_behind(self, text: bytes) -> None:
        """Cut the file a few bytes behind the last occurrence of a text."""
        files = [path for path in self.folder.rglob("*.aof") if ".base" not in path.name]
        newest = max(files, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
        raw = newest.read_bytes()
        newest.write_bytes(raw[: raw.rindex(text) + len(text) + 5])


@pytest.fixture(params=["embedded", "debian"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The embedded server, and Debian's."""
    find: dict[str, Callable[[], str]] = {"embedded": redis_binary, "debian": _debian}
    one = Server(find[request.param](), tmp_path)
    yield one
    one.kill()


async def _store(server: Server) -> Store:
    store = Store(connect(f"redis://127.0.0.1:{server.port}/0"), Settings())
    for _ in range(600):
        try:
            await store.redis.ping()
        except Exception:  # noqa: BLE001, S112  it is still starting, or loading
            continue
        return store
    raise AssertionError("no server")


async def test_half_a_step_never_comes_back(server: Server) -> None:
    """A crash cuts the file within a step; applied again, the step counts once."""
    store = await _store(server)
    expected = -1
    for number in range(3):
        part = Part("p/0", expected, [message(number, click(f"item{number}", number))])
        await store.apply([part], now_s=NOW)
        expected = number
    await store.redis.aclose()
    server.kill()
    server.cut_behind(b"item2")
    server.start()

    store = await _store(server)
    assert await store.watermarks(["p/0"]) == [1]
    await store.apply([Part("p/0", 1, [message(2, click("item2", 2))])], now_s=NOW)
    await store.apply([Part("p/0", 2, [message(3, click("item3", 3))])], now_s=NOW)
    before = await _counted(store)
    await store.redis.aclose()
    server.kill()
    server.start()

    store = await _store(server)
    assert await _counted(store) == before
    assert before == (4, [3], 4)
    await store.redis.aclose()


async def test_only_a_loaded_file_is_rewritten(tmp_path: Path) -> None:
    """Not on a fresh server, and not twice."""
    server = Server(redis_binary(), tmp_path)
    try:
        store = await _store(server)
        asked = _counting(store)
        await store.redis.set("a", "b")
        await rewrite_torn_file(store.redis)
        assert asked == []
        await store.redis.aclose()
        server.kill()
        server.start()
        store = await _store(server)
        asked = _counting(store)
        for _ in range(2):
            await rewrite_torn_file(store.redis)
        assert asked == ["BGREWRITEAOF"]
        await store.redis.aclose()
    finally:
        server.kill()


def _counting(store: Store) -> list[str]:
    asked: list[str] = []
    rewrite: Any = store.redis.bgrewriteaof

    async def counted() -> Any:
        asked.append("BGREWRITEAOF")
        return await rewrite()

    store.redis.bgrewriteaof = counted
    return asked


async def _counted(store: Store) -> tuple[int, list[int], int]:
    counts = await store.counts()
    marks = await store.watermarks(["p/0"])
    return int(counts["events"]), marks, int(counts["item_index"])
