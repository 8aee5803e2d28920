"""A Redis server over two connections: one that reads or writes, and one that hears what changes.

Redis itself tells which keys have changed ("client-side caching", by broadcast): whoever changed
them, in a script or not, and also where they expired or all were removed. The notices of what was
changed before a command stand before the answer to a PING that is sent behind that command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
import redis.cluster
import redis.connection
import redis.exceptions

from models.errors import InvalidSetting, SnapshotRefused, Unavailable
from models.servers.redis_options import redis_options
from models.servers.server_checks import blocking_clients
from models.settings import Settings
from models.settings.redis_urls import redis_hosts, speaks_tls, with_first_host
from models.state.clients.redis_errors import AWAY_ERRORS, is_not_now
from models.state.copies.saved_values import (
    KINDS,
    MOST_MEMBERS,
    READ_KEYS,
    READ_MEMBERS,
    SavedValue,
    WriteCommand,
)
from models.state.groups.group_registry import GROUPS, REGISTRY

TIMEOUT_S = 20.0

KEYS_AT_ONCE = 200
"""Keys that are read in one script: some milliseconds of the server's time at most."""

SCANNED_AT_ONCE = 1000

_CHANGES = b"__redis__:invalidate"
_OF_GROUPS = b"{"
"""The first character of all keys of this program."""


class WatchedServer:
    """A server from which keys are read, or to which they are written, as others use it.

    Nothing connects again by itself, for what changed meanwhile would not be heard: every method
    raises the errors of redis-py.

    Attributes
    ----------
    changed
        Keys that have changed since `watch`, of those that were heard; the caller removes them.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self.changed: set[bytes] = set()
        self._pool = pool
        self._asking: Any = pool.get_connection()
        self._hearing: Any = None

    def close(self) -> None:
        """Close both connections."""
        for connection in (self._asking, self._hearing):
            if connection is not None:
                connection.disconnect()
                self._pool.release(connection)
        self._hearing = None
        self._pool.disconnect()

    def ask(self, *commands: WriteCommand) -> list[Any]:
        """Answers of commands that are sent in one piece; the first error is raised."""
        self._asking.send_packed_command(self._asking.pack_commands(commands), check_health=False)
        answers = [self._answer() for _ in commands]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _answer(self) -> Any:  # noqa: ANN401  whatever a command answers
        try:
            return self._asking.read_response()
        except redis.exceptions.ResponseError as error:
            return error

    def watch(self, *, own: bool) -> None:
        """Hear what changes from now on; without `own`, only what others change."""
        hearing: Any = self._pool.get_connection()
        self._hearing = hearing
        hearing.send_command("CLIENT", "ID")
        number = hearing.read_response()
        hearing.send_command("SUBSCRIBE", _CHANGES)
        hearing.read_response()
        how = () if own else ("NOLOOP",)
        self.ask(
            ("CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", _OF_GROUPS, *how)
        )

    def hear(self) -> None:
        """Take note of what has been heard, without waiting."""
        while self._hearing.can_read(timeout=0):
            self._take(self._hearing.read_response())

    def hear_all(self) -> None:
        """Take note of all that was changed before this call."""
        # Notices go out when the server has no more commands at hand: behind the first answer at
        # the latest, and before the second.
        for _ in range(2):
            self._hearing.send_command("PING")
            while True:
                heard = self._hearing.read_response()
                if heard[0] == b"pong":
                    break
                self._take(heard)

    def _take(self, heard: Sequence[Any]) -> None:
        if heard[0] != b"message":
            return
        if heard[2] is None:
            raise SnapshotRefused("somebody has emptied the Redis server meanwhile")
        self.changed.update(heard[2])

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Keys that match a pattern of Redis, some at a time; a key may come twice."""
        cursor: bytes | int = 0
        while True:
            ((cursor, found),) = self.ask(
                ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED_AT_ONCE)
            )
            if found:
                yield found
            if int(cursor) == 0:
                return

    def read(self, keys: Sequence[bytes]) -> Iterator[list[SavedValue]]:
        """Values of keys, some at a time, each as it is when it is read; all of one hash slot.

        A value of many members comes in pieces, which are of several moments.

        Raises
        ------
        SnapshotRefused
            A key is of a type that this program has none of.
        """
        for at in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[at : at + KEYS_AT_ONCE]
            (found,) = self.ask(("EVAL_RO", READ_KEYS, len(some), *some, MOST_MEMBERS))
            whole = []
            for key, (kind, expires_at_ms, members) in zip(some, found, strict=True):
                if members is None:
                    yield from self._pieces(key, kind.decode())
                else:
                    whole.append(SavedValue(key, kind.decode(), expires_at_ms, members))
            yield whole

    def _pieces(self, key: bytes, kind: str) -> Iterator[list[SavedValue]]:
        if kind not in KINDS:
            raise SnapshotRefused(f"the key {key!r} is none of this program: it is a {kind}")
        cursor, is_continued = b"0", False
        while True:
            ((found_kind, expires_at_ms, members, cursor),) = self.ask(
                ("EVAL_RO", READ_MEMBERS, 1, key, MOST_MEMBERS, cursor)
            )
            if found_kind.decode() != kind:
                return  # it has changed, was heard, and will be read again
            yield [SavedValue(key, found_kind.decode(), expires_at_ms, members, is_continued)]
            is_continued = True
            if int(cursor) == 0:
                return

    def pause_writes(self, pause_s: float) -> None:
        """Have all commands of everybody that write wait, for so long at most; reads go on."""
        self.ask(("CLIENT", "PAUSE", round(1000 * pause_s), "WRITE"))

    def resume_writes(self) -> None:
        """End the pause."""
        self.ask(("CLIENT", "UNPAUSE"))


class ServersOfState:
    """The primaries with the keys of the groups and of the registry.

    Of a cluster they are perhaps two for a group of one shard, and all for one of several.

    Attributes
    ----------
    all
        Each once.
    of_registry
        The one with the keys of the registry.
    """

    def __init__(self, settings: Settings) -> None:
        self._cluster: Any = _cluster(settings) if settings.redis_cluster else None
        self._by_node: dict[str, WatchedServer] = {}
        with told_errors():
            if self._cluster is None:
                (client,) = blocking_clients(settings, timeout_s=TIMEOUT_S, protocol=2)
                self._by_node[""] = WatchedServer(client.connection_pool)
            elif settings.shards > 1:
                for node in self._cluster.get_primaries():
                    self._connect(node)
            else:
                for key in (f"{{{settings.group}}}:", GROUPS):
                    self._connect(self._cluster.get_node_from_key(key))
            self.all = list(self._by_node.values())
            self.of_registry = self.of(REGISTRY)

    def of(self, tag: str) -> WatchedServer:
        """The one with the keys that begin with `{tag}:`."""
        if self._cluster is None:
            return self._by_node[""]
        return self._by_node[self._cluster.get_node_from_key(f"{{{tag}}}:").name]

    def check_serving(self, tags: Iterable[str]) -> None:
        """Return if each serves all keys that it is asked for, and has since this was made.

        Raises
        ------
        redis.exceptions.AskError
            A slot of a cluster is on its way to another primary, or has moved.
        """
        for tag in tags:
            # Of a slot that is on its way, a key that does not exist would be on the other side.
            self.of(tag).ask(("EXISTS", f"{{{tag}}}:-"))

    def _connect(self, node: Any) -> None:  # noqa: ANN401  not typed there
        if node.name not in self._by_node:
            pool = self._cluster.get_redis_connection(node).connection_pool
            self._by_node[node.name] = WatchedServer(pool)

    def close(self) -> None:
        """Close all connections."""
        for server in self.all:
            server.close()


def _cluster(settings: Settings) -> Any:  # noqa: ANN401  redis-py types its cluster in part
    """A client that knows which primary serves a key, as it was when it was made."""
    parse_url: Any = redis.connection.parse_url
    in_url = parse_url(with_first_host(settings.redis))
    make_node: Any = redis.cluster.ClusterNode
    make: Any = redis.cluster.RedisCluster
    with told_errors():
        return make(
            startup_nodes=[make_node(*host) for host in redis_hosts(settings.redis)],
            ssl=speaks_tls(settings.redis),
            protocol=2,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            **redis_options(settings),
            **{name: in_url[name] for name in ("username", "password") if name in in_url},
        )


@contextmanager
def told_errors() -> Iterator[None]:
    """Turn the errors of redis-py into this project's, with a remedy."""
    try:
        yield
    except redis.exceptions.AskError as error:
        raise Unavailable(
            f"slots of the Redis Cluster are moving ({error}): try again when they are moved"
        ) from error
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}; try again") from error
    except redis.exceptions.NoPermissionError as error:
        raise InvalidSetting(
            f"the user of RECOMMENDER_REDIS may not do this ({error}): see the rights for "
            "snapshots in docs/connections.md"
        ) from error
    except redis.exceptions.ResponseError as error:
        if is_not_now(str(error)) or isinstance(error, redis.exceptions.OutOfMemoryError):
            raise Unavailable(f"Redis cannot do this now: {error}") from error
        raise SnapshotRefused(
            f"Redis refuses: {error}; snapshots need Redis 7.0 or Valkey"
        ) from error
