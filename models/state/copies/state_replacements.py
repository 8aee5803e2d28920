"""State that is written or removed as a whole, while nothing else may write any.

While it lasts, and for ever where it is killed, a mark says that the state is not whole: no process
starts on it (format_check.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from models.errors import RecommenderError, SnapshotRefused
from models.settings import Settings
from models.state.copies.saved_values import SavedValue, WriteCommand, writing
from models.state.copies.state_copies import of_groups
from models.state.copies.watched_server import ServersOfState, WatchedServer, told_errors
from models.state.groups.group_registry import GROUPS, REGISTRY, RESTORING
from models.state.shards.shard_names import mark_shard, shard_prefix, shard_tags

COMMANDS_AT_ONCE = 1_000

LEARNED: Final = frozenset(
    (
        "watermarks", "witnesses", "counts", "items", "ids", "types", "history", "forgotten",
        "recent", "links", "owners", "erased", "pairs", "takers", "stats", "values",
        "circumstance", "top", "updated", "ranker", "properties", "users", "categories", "category",
        "hidden", "tried", "served", "shown", "askers", "awaited", "outcomes",
        "exposure", "experiment", "factors", "term", "terms", "expires", "variants",
        "outbox", "emitted", "sources", "split",
    )
)  # fmt: skip
"""Families of keys that are learned from Kafka, or mean nothing without what is."""

NOT_IN_KAFKA: Final[Mapping[str, str]] = {
    "columns": "which columns are contextual, as solutions say",
    "forward": "how far events were forwarded: they would be sent again",
    "batch": "runs of the pipeline",
    "placements": "what people have configured",
    "segments": "the same",
    "experiments": "what people have started",
    "unreadable": "readers that stand still; gone by itself",
    "workers": "workers that are running; gone by itself",
    "figures": "key figures, measured once",
    "shards": "on how many shards it is",
    "reshard": "a move to others; gone by itself",
    "frozen": "that its state moves; gone by itself",
    "copied": "the end of a copy for other shards; gone with it",
    "changed": "a channel, no key",
}
"""Other families of a group, with the reason for which they stay when state is rebuilt."""


class StateReplacement:
    """A state that is being replaced; a context manager, of one thread.

    What is not `finish`ed when the block ends is removed again.

    Parameters
    ----------
    groups
        Dataset groups that will be written.
    what
        The command, for messages.
    replaces
        False: there must be no state.

    Raises
    ------
    SnapshotRefused
        There is state already.
    Unavailable
        Redis does not answer.
    """

    def __init__(
        self, settings: Settings, groups: Collection[str], *, what: str, replaces: bool
    ) -> None:
        self._is_finished = False
        self._settings = settings
        self._tags = shard_tags(settings.group, settings.shards, settings.generation)
        self._servers = ServersOfState(settings)
        self._what = what
        with told_errors():
            for server in self._servers.all:
                server.watch(own=False)
            registered = _registered(self._servers)
            self._groups = {settings.group, REGISTRY, *groups, *registered}
            if not replaces and self._has_keys():
                self._servers.close()
                raise SnapshotRefused(
                    f"Redis holds state of group {settings.group} already, or API keys: "
                    "--replace removes all of it first"
                )
            self._servers.of_registry.ask(("SET", RESTORING, what))
            self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._is_finished:
                # On new connections: an answer may be under way on those.
                self._servers.close()
                self._servers = ServersOfState(self._settings)
                with told_errors():
                    self._remove()
                    self._servers.of_registry.ask(("DEL", RESTORING))
        except RecommenderError as failure:
            # The first error is what matters; the mark stays, and says the rest.
            if error is None:
                raise
            error.add_note(str(failure))
        finally:
            self._servers.close()

    def write(self, values: Iterable[SavedValue]) -> None:
        """Write values, each over what its key has.

        Raises
        ------
        SnapshotRefused
            A key is of no group that was named, or others write as well.
        """
        commands: dict[str, list[WriteCommand]] = {}
        for value in values:
            (tag,) = of_groups([value.key], self._groups) or [""]
            if not tag or value.key == RESTORING.encode():
                raise SnapshotRefused(f"the snapshot holds a key of no group: {value.key[:100]!r}")
            commands.setdefault(tag, []).extend(writing(value))
        with told_errors():
            for tag, of_tag in commands.items():
                server = self._servers.of(tag)
                for at in range(0, len(of_tag), COMMANDS_AT_ONCE):
                    server.ask(*of_tag[at : at + COMMANDS_AT_ONCE])
                server.hear()
                self._check_alone(server)

    def finish(self) -> None:
        """Mark the state as whole: processes may start on it.

        Raises
        ------
        SnapshotRefused
            Others have written meanwhile.
        """
        with told_errors():
            for server in self._servers.all:
                server.hear_all()
                self._check_alone(server)
            self._servers.check_serving({REGISTRY, *self._tags})
            for tag in sorted({*self._groups - {REGISTRY}, *self._tags}):
                self._servers.of(tag).ask(("PUBLISH", f"{{{tag}}}:changed", b""))
            self._servers.of_registry.ask(("DEL", RESTORING))
        self._is_finished = True

    def _has_keys(self) -> bool:
        return any(
            of_groups(keys, self._groups)
            for server in self._servers.all
            for keys in server.scan("{*}:*")
        )

    def _remove(self) -> None:
        """Remove all keys of the groups and of the registry, but the mark."""
        for server in self._servers.all:
            for keys in _keys_of(server, self._groups):
                server.ask(*(("UNLINK", key) for key in keys if key != RESTORING.encode()))

    def _check_alone(self, server: WatchedServer) -> None:
        others = of_groups(server.changed, self._groups)
        if others:
            raise SnapshotRefused(_others_write(self._what, others))


def forget_learned(
    settings: Settings,
    *,
    what: str,
    progress: Callable[[int], None],
    skipped: Mapping[str, int] = {},
) -> int:
    """Remove all groups' state that is learned from Kafka; workers then learn it again.

    Returns the number of keys. `progress` is told it as it grows; `skipped` is as in
    `skipped_deltas`. Breaking it off, and repeating it, does no harm.

    Raises
    ------
    SnapshotRefused
        Others write as well.
    Unavailable
        Redis does not answer.
    """
    servers, n = ServersOfState(settings), 0
    try:
        with told_errors():
            groups = {settings.group, *_registered(servers)}
            for server in servers.all:
                server.watch(own=False)
            servers.of_registry.ask(("SET", RESTORING, what))
            for server in servers.all:
                for keys in _keys_of(server, groups):
                    gone = [key for key in keys if _family(key) in LEARNED]
                    server.ask(*(("UNLINK", key) for key in gone))
                    n += len(gone)
                    progress(n)
            for value in skipped_deltas(settings, skipped):
                (tag,) = of_groups([value.key], groups)
                servers.of(tag).ask(*writing(value))
            for server in servers.all:
                server.hear_all()
                # As a reader that stands still or a forwarder may: they harm nothing.
                others = {
                    tag: [key for key in keys if _family(key) in LEARNED]
                    for tag, keys in of_groups(server.changed, groups).items()
                }
                if any(others.values()):
                    raise SnapshotRefused(_others_write(what, others))
            tags = shard_tags(settings.group, settings.shards, settings.generation)
            servers.check_serving({REGISTRY, *tags})
            servers.of_registry.ask(("DEL", RESTORING))
    finally:
        servers.close()
    return n


def skipped_deltas(settings: Settings, skipped: Mapping[str, int]) -> list[SavedValue]:
    """Watermarks by which shards skip deltas of messages that will be applied again.

    Applied in another order, messages of two partitions may leave other deltas than before: a pair
    of the two would be in both, or in none. So shards take the new ones only.

    Parameters
    ----------
    skipped
        Last offset of each partition of deltas, by its field.
    """
    found = []
    for field, offset in skipped.items():
        kind, number = mark_shard(field)
        if number < 0:
            raise ValueError(f"{field} is no partition of deltas")
        key = shard_prefix(settings.group, kind, number, settings.generation) + "watermarks"
        members = [field.encode(), b"%d" % offset]
        found.append(SavedValue(key.encode(), "hash", -1, members, is_continued=True))
    return found


def _others_write(what: str, keys: Mapping[str, Collection[bytes]]) -> str:
    key = next(one for of_one in keys.values() for one in of_one)
    return (
        f"something else writes state during {what} ({key[:100].decode(errors='replace')}): stop "
        "all processes of this program first, and run it again"
    )


def _registered(servers: ServersOfState) -> set[str]:
    (members,) = servers.of_registry.ask(("SMEMBERS", GROUPS))
    return {member.decode() for member in members}


def _keys_of(server: WatchedServer, groups: Collection[str]) -> Iterator[list[bytes]]:
    for found in server.scan("{*}:*"):
        yield from of_groups(found, groups).values()


def _family(key: bytes) -> str:
    """The family of a group's key.

    >>> _family(b"{shop}:history:u:ada"), _family(b"{shop}:ranker")
    ('history', 'ranker')
    """
    return key.partition(b"}:")[2].partition(b":")[0].decode(errors="replace")
