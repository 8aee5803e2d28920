"""An embedded Redis that comes back with an earlier state, or without the end of its file."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from models.state.scripts import close_torn_file
from models.state.store import connect
from ops.embedded_servers import start_redis

SNAPSHOTS = 8


class LosingRedis:
    """The server, and the last states that it was in."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server = start_redis(Path(self._folder.name))
        self._snapshots: list[dict[bytes, bytes]] = []

    @property
    def url(self) -> str:
        """Where it is reached."""
        return self._server.url

    async def take_snapshot(self) -> None:
        """Remember its state, if it is another than the last one."""
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
        """Have it back at an earlier state, so many before the last."""
        if len(self._snapshots) <= back:
            return
        redis = connect(self.url)
        # All or nothing, also where the end of the file is lost next: no server comes back with
        # some keys of one state and some of another.
        await close_torn_file(redis)
        pipe = redis.pipeline(transaction=True)
        pipe.flushall()
        for key, value in self._snapshots[-1 - back].items():
            pipe.restore(key, 0, value)
        await pipe.execute()
        await redis.aclose()

    def start_again(self, cut: int) -> None:
        """Kill it, take so many bytes off the end of its file, and start it."""
        self._server.process.kill()
        self._server.process.wait()
        folder = Path(self._folder.name)
        files = [p for p in folder.rglob("*.aof") if ".base" not in p.name]
        newest = max(files, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        os.truncate(newest, max(0, newest.stat().st_size - cut))
        self._server = start_redis(folder, port=self._server.port)
        # What a snapshot holds of later steps is not what the server would come back with.
        self._snapshots.clear()

    def stop(self) -> None:
        """End it."""
        self._server.stop()
        self._folder.cleanup()
