"""An embedded Redis that restarts with an earlier state, or without the end of its file."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from models.state.clients.client import connect
from models.state.scripts.registered_scripts import rewrite_torn_file
from ops.embedded_servers import start_redis

SNAPSHOTS = 8


class LosingRedis:
    """The server, and snapshots of its last states."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = start_redis(Path(self._folder.name))
        self._snapshots: list[dict[bytes, bytes]] = []

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._server.url

    async def take_snapshot(self) -> None:
        """Take a snapshot, if the state has changed since the last one."""
        redis: Any = connect(self.url)
        keys = await redis.keys()
        pipe = redis.pipeline(transaction=False)
        for key in keys:
            pipe.dump(key)
        snapshot = dict(zip(keys, await pipe.execute(), strict=True))
        if [snapshot] != self._snapshots[-1:]:
            self._snapshots.append(snapshot)
            del self._snapshots[:-SNAPSHOTS]
        await redis.aclose()

    async def lose(self, back: int) -> None:
        """Restore the snapshot `back` before the last one."""
        if len(self._snapshots) <= back:
            return
        redis = connect(self.url)
        # All or nothing, also if the end of the file is lost next: no server restarts with some
        # keys of one state and some of another.
        await rewrite_torn_file(redis)
        pipe = redis.pipeline(transaction=True)
        pipe.flushall()
        for key, value in self._snapshots[-1 - back].items():
            pipe.restore(key, 0, value)
        await pipe.execute()
        await redis.aclose()

    def start_again(self, cut: int) -> None:
        """Kill it, cut bytes off the end of its append-only file, and start it."""
        self._server.process.kill()
        self._server.process.wait()
        folder = Path(self._folder.name)
        files = [p for p in folder.rglob("*.aof") if ".base" not in p.name]
        newest = max(files, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        os.truncate(newest, max(0, newest.stat().st_size - cut))
        self._server = start_redis(folder, port=self._server.port)
        # The server would not restart with the later steps that a snapshot holds.
        self._snapshots.clear()

    def stop(self) -> None:
        """Stop the server, and remove its files."""
        self._server.stop()
        self._folder.cleanup()
