"""A copy of all state as it is at one moment, made while others go on writing it.

All keys are read while Redis tells which ones change, and those are read again, until few are left.
Then writes wait for the time that it takes to read these. Nothing is heard to change meanwhile, so
what was read, each key as it was read last, is the state of that moment: of all steps that had
ended, with the watermarks that belong to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple, Self

from models.errors import SnapshotRefused
from models.settings import Settings
from models.state.copies.saved_values import SavedValue
from models.state.copies.watched_server import ServersOfState, WatchedServer, told_errors
from models.state.groups.group_registry import GROUPS, REGISTRY
from models.state.shards.shard_names import mark_shard, shard_tags

MANY_CHANGED = 200_000
"""Changed keys that are read again before others are read the first time: it bounds memory."""

FEW_CHANGED = 1_000
"""Changed keys that may be left for the pause."""

MAX_ROUNDS = 20
"""Times that changed keys are read again before the pause."""

FEWER = 0.7
"""Another round is not worth it once more than this share of the keys of the last one is left."""

_TAG = re.compile(rb"\{([^{}]+)\}:")


class CopiedMoment(NamedTuple):
    """The moment that a copy is of.

    Attributes
    ----------
    at_s
        Unix seconds.
    pause_s
        Time for which writes waited.
    groups
        The dataset groups, that of the settings included.
    watermarks
        By field, of the settings' group: they hold for all. Where it has several shards, those of
        the topics of events, as far as all of its session shards are.
    """

    at_s: float
    pause_s: float
    groups: list[str]
    watermarks: dict[str, int]


class StateCopy:
    """A copy that is being made; a context manager, of one thread.

    Parameters
    ----------
    settings
        Name the server, and the group that always exists.
    longest_pause_s
        Time for which writes may wait, at most; the server ends it by itself.
    """

    def __init__(self, settings: Settings, *, longest_pause_s: float) -> None:
        self._moment: CopiedMoment | None = None
        self._settings = settings
        self._longest_pause_s = longest_pause_s
        self._groups = {settings.group, REGISTRY}
        self._tags = shard_tags(settings.group, settings.shards, settings.generation)
        self._servers = ServersOfState(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()

    @property
    def moment(self) -> CopiedMoment:
        """The moment that the values are of; known once all have been taken."""
        if self._moment is None:
            raise RuntimeError("not all values were taken")
        return self._moment

    @property
    def n_changed(self) -> int:
        """Keys that are known to have changed since they were read."""
        return sum(len(server.changed) for server in self._servers.all)

    def values(self) -> Iterator[list[SavedValue]]:
        """All values, in lists; if a key comes again, its last value and what continues it count.

        Memory is bounded by `MANY_CHANGED` names, and by what is read in the pause.

        Raises
        ------
        Unavailable
            Redis does not answer.
        InvalidSetting
            The user of Redis may not do this.
        SnapshotRefused
            What changes cannot be read within the longest pause.
        """
        with told_errors():
            for server in self._servers.all:
                server.watch(own=True)
            self._groups |= self._registered()
            for server in self._servers.all:
                for keys in server.scan("{*}:*"):
                    yield from self._read(server, keys)
                    server.hear()
                    if self.n_changed > MANY_CHANGED:
                        yield from self._read_changed()
            left = self.n_changed
            for _ in range(MAX_ROUNDS):
                if left <= FEW_CHANGED:
                    break
                yield from self._read_changed()
                # While steps go on there are always some: those of the time that a round takes.
                before, left = left, self.n_changed
                if left > FEWER * before:
                    break
            yield from self._read_last()

    def _read_last(self) -> list[list[SavedValue]]:
        """Values of the keys that are left, while nothing changes."""
        found: list[list[SavedValue]] = []
        began_s = time.monotonic()
        try:
            for server in self._servers.all:
                server.pause_writes(self._longest_pause_s)
            for server in self._servers.all:
                server.hear_all()
            self._servers.check_serving({REGISTRY, *self._tags})
            at_s, groups = time.time(), self._registered() - {REGISTRY}
            watermarks = self._watermarks()
            for values in self._read_changed():
                found.append(values)
                if time.monotonic() - began_s > self._longest_pause_s:
                    break
            for server in self._servers.all:
                server.hear_all()
        finally:
            for server in self._servers.all:
                server.resume_writes()
        pause_s = time.monotonic() - began_s
        if self.n_changed or pause_s > self._longest_pause_s:
            raise SnapshotRefused(
                f"what had changed could not be read within {self._longest_pause_s:g} s, the "
                "longest time for which writes may wait: save when less happens, or allow more "
                "with --longest-pause"
            )
        self._moment = CopiedMoment(at_s, pause_s, sorted(groups), watermarks)
        return found

    def _read_changed(self) -> Iterator[list[SavedValue]]:
        """Values of the keys that have changed, as they are now."""
        for server in self._servers.all:
            keys, server.changed = server.changed, set()
            # A group is registered before anything of it is written.
            self._groups |= self._registered()
            yield from self._read(server, keys)
            server.hear()

    def _read(self, server: WatchedServer, keys: Iterable[bytes]) -> Iterator[list[SavedValue]]:
        """Values of those keys that are of a group or the registry."""
        for same_slot in of_groups(keys, self._groups).values():
            yield from server.read(same_slot)

    def _registered(self) -> set[str]:
        """Hash tags of the registry and of all groups as they are now."""
        (members,) = self._servers.of_registry.ask(("SMEMBERS", GROUPS))
        return {self._settings.group, REGISTRY, *(member.decode() for member in members)}

    def _watermarks(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for tag in self._tags:
            (flat,) = self._servers.of(tag).ask(("HGETALL", f"{{{tag}}}:watermarks"))
            for raw, offset in zip(flat[::2], flat[1::2], strict=True):
                field = raw.decode()
                if mark_shard(field)[1] < 0:
                    found[field] = min(int(offset), found.get(field, int(offset)))
        return found


def of_groups(keys: Iterable[bytes], groups: Collection[str]) -> dict[str, list[bytes]]:
    """Those of the keys that are of one of these groups, or of a shard of one, by their hash tag.

    >>> of_groups([b"{a}:x", b"y", b"{b}:z", b"{a/u01}:x", b"{a}:w"], {"a"})
    {'a': [b'{a}:x', b'{a}:w'], 'a/u01': [b'{a/u01}:x']}
    """
    found: dict[str, list[bytes]] = {}
    for key in keys:
        match = _TAG.match(key)
        tag = match[1].decode(errors="replace") if match else ""
        if tag.partition("/")[0] in groups:
            found.setdefault(tag, []).append(key)
    return found
