"""Shards of a dataset group over several Redis primaries: their names, and what belongs to which.

A group of one shard is `models.state.store` as it is. A group of more has as many session shards,
`{group/u03}`, as item shards, `{group/i03}`, each in one slot of a cluster:

* A user or an anonymous session belongs to the session shard of its name (`owner_shard`): history,
  links, tombstones, recent events, watermarks of the topics of events.
* An item's id belongs to an item shard by the same function, which gives it its index; and the
  index says the shard (`item_shard`) of neighbours, counts, recent owners, top lists. Both are one
  shard, unless the index was given before the group had as many shards as now (`resharding`).

A message of events is applied by one session shard (`message_shard`), in one atomic step. What it
changes elsewhere is left as deltas in an outbox of the same slot: the step writes them, the caller
publishes them to the topic of the destination's kind, to the partition of its number, and takes
them from the outbox once the destination has applied them. Beside the keys of `models.state.store`:

    {group/uNN}:outbox:<shard>   list    values for one shard, as published, oldest first
    {group/uNN}:emitted:<shard>  hash    source -> offset of its last deltas for one shard
    {group/xNN}:sources          hash    source -> offset of its last deltas that were applied

A source is a session shard and one of the partitions whose messages it applies,
`u03/<incarnation>/<partition>`; its deltas carry the offset of the message that they follow from.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.messages import StoredMessage

MAX_SHARDS = 256
"""Session shards, and item shards, of a group at most: each session shard has an outbox for every
other shard, and every shard marks of all sources."""

DELTAS = {
    # For item shards. `places` are items and their distances in a window, one after the other.
    "ITEMS": 1,  # names of items that need an index
    "TYPES": 2,  # names of event types that need a code, at the first item shard
    "COUNT": 3,  # item, time, log2 of the weight, whether it is a purchase
    "TAKE_BACK": 4,  # the same of an event that counts no longer
    "BEFORE": 5,  # item, places, log2 of the weight, age, hash: for the item's list
    "AFTER": 6,  # the same, for the lists of the items at the places
    "TAKE_BACK_BEFORE": 7,
    "TAKE_BACK_AFTER": 8,
    "CONTEXT": 9,  # item, time, log2 of the weight, values by column
    "OWNER": 10,  # item, number of a history that has taken it
    "FORGET": 11,  # the same of one that has not any more
    # For session shards.
    "LINK": 20,  # session, its link shard, user, milliseconds: of a session there to a user here
    "UNLINK": 21,  # session, its link shard, user: the user has too many sessions
    "UNLINKED": 22,  # session, its link shard, user: the session is another user's now
    "ERASE": 23,  # session, its link shard, user, milliseconds: erased with the user
    "JOIN": 24,  # user, history as it is stored, trimmed ids, types: a session's history
    "FORWARD": 25,  # user, message, indexes, codes: of a session that is linked to the user
}
"""Kinds of deltas, and what follows the kind in each."""

FIRST_SESSION = 2**31
"""Numbers of anonymous sessions' histories start here (histories.lua)."""

ShardKind = Literal["u", "i"]


class DeltaRun(NamedTuple):
    """The deltas of one source in a value of their topics.

    Attributes
    ----------
    source
        Session shard and partition; empty for names, which need no order.
    previous
        Offset of the source's deltas before these for the same shard; -1 for the first.
    last
        Offset of its last deltas in the value.
    needs
        Offsets of other sources that must have been applied before.
    """

    source: str
    previous: int
    last: int
    needs: list[tuple[str, int]]


class DeltaMessage(NamedTuple):
    """A message of the topics of deltas, as the steps take it: `runs` are packed, see `split`."""

    offset: int
    runs: bytes
    timestamp_ms: int = 0
    checksum: int = 0


class DeltaPart(NamedTuple):
    """Messages of one partition of a topic of deltas; as `models.state.messages.Part`."""

    field: str
    expected: int
    messages: list[DeltaMessage]
    checksum: int = -1


def owner_shard(name: str, shards: int) -> int:
    """The session shard of a user or session, by its bare name; the item shard of an item's id.

    >>> [owner_shard(name, 16) for name in ("ada", "bob", "eve")]
    [12, 13, 0]
    """
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big") % shards


def item_shard(index: int, shards: int) -> int:
    """The item shard of an index: a page of statistics is on one shard."""
    return index // layout.STATS_PER_PAGE % shards


def history_shard(number: int, shards: int) -> int:
    """The session shard of a history's number: a page of owners is on one shard.

    >>> history_shard(2 * 128 + 5, 4), history_shard(FIRST_SESSION + 6 * 128 + 5, 4)
    (2, 2)
    """
    return number % FIRST_SESSION // layout.OWNERS_PER_PAGE % shards


def message_shard(message: StoredMessage, shards: int) -> int:
    """The session shard that applies a message: that of its user, else of its session."""
    return owner_shard(message.user_id or message.session_id, shards)


def shard_name(kind: ShardKind, number: int) -> str:
    """Names a shard within its group.

    >>> shard_name("u", 7)
    'u07'
    """
    return f"{kind}{number:02d}"


def shard_names(shards: int) -> list[str]:
    """All shards of a group: session shards, then item shards."""
    kinds: tuple[ShardKind, ...] = ("u", "i")
    return [shard_name(kind, number) for kind in kinds for number in range(shards)]


def shard_prefix(group: str, kind: ShardKind, number: int, generation: int = 0) -> str:
    """Prefix of a shard's keys, in a layout of the group (`stored_layout`).

    >>> shard_prefix("shop", "u", 7), shard_prefix("shop", "i", 0, 2)
    ('{shop/u07}:', '{shop/i00.2}:')
    """
    name = shard_name(kind, number)
    return f"{{{group}/{name}.{generation}}}:" if generation else f"{{{group}/{name}}}:"


def shard_tags(group: str, shards: int, generation: int = 0) -> list[str]:
    """Hash tags of all keys of a group: its own, then those of its shards if it has several.

    >>> shard_tags("shop", 1), shard_tags("shop", 2)
    (['shop'], ['shop', 'shop/u00', 'shop/u01', 'shop/i00', 'shop/i01'])
    """
    kinds: tuple[ShardKind, ...] = ("u", "i")
    of_shards = [
        shard_prefix(group, kind, number, generation)[1:-2]
        for kind in kinds
        for number in range(shards)
    ]
    return [group, *(of_shards if shards > 1 else [])]


DELTAS_OF_SESSIONS = "deltas.u/"
"""Prefix of the fields of partitions of deltas for session shards; see `mark_field`."""


def mark_field(kind: ShardKind, incarnation: str, number: int) -> str:
    """Names the watermark of a partition of deltas, which one shard applies.

    >>> mark_field("i", "cluster/topic", 3)
    'deltas.i/cluster/topic/3'
    """
    return f"deltas.{kind}/{incarnation}/{number}"


def record_field(kind: ShardKind, incarnation: str, number: int) -> str:
    """Names the watermark of a partition of metadata, which all shards of a kind apply.

    >>> record_field("i", "cluster/topic", 3)
    'records.i/cluster/topic/3'
    """
    return f"records.{kind}/{incarnation}/{number}"


def mark_shard(field: str) -> tuple[ShardKind, int]:
    """Kind and number of the shard that applies a partition; -1 where all of a kind do.

    >>> mark_shard("deltas.i/cluster/topic/3"), mark_shard("records.i/cluster/topic/3")
    (('i', 3), ('i', -1))
    >>> mark_shard("cluster/topic/3")
    ('u', -1)
    """
    name, _, rest = field.partition("/")
    kind: ShardKind = "i" if name in {"deltas.i", "records.i"} else "u"
    return kind, int(rest.rpartition("/")[2]) if name.startswith("deltas.") else -1


def last_index(n: int, shard: int, shards: int) -> int:
    """The index that an item shard has given last, of n.

    >>> last_index(70, 0, 1), last_index(70, 1, 4)
    (70, 326)
    """
    pages, place = divmod(n, layout.STATS_PER_PAGE)
    return (pages * shards + shard) * layout.STATS_PER_PAGE + place


def own_places(shards: int, shard: int, n: int) -> NDArray[np.int64]:
    """Indexes of items at the first n places of an item shard, in strings with one for each.

    >>> own_places(4, 1, 66)[[0, 63, 64]]
    array([ 64, 127, 320])
    """
    pages, places = np.divmod(np.arange(n), layout.STATS_PER_PAGE)
    return (pages * shards + shard) * layout.STATS_PER_PAGE + places


def names_value(items: Sequence[str], types: Sequence[str] = ()) -> bytes:
    """A value that asks an item shard for indexes of items and codes of event types."""
    deltas = [[DELTAS["ITEMS"], items], [DELTAS["TYPES"], types]]
    head = msgspec.msgpack.encode([DeltaRun("", -1, 0, [])])
    return _HEAD.pack(len(head)) + head + msgspec.msgpack.encode([["", -1, [[0, deltas]]]])


def split(value: bytes) -> tuple[list[DeltaRun], bytes]:
    """The header of a value of the topics of deltas, and its packed runs.

    >>> split(names_value(["i9"]))[0]
    [DeltaRun(source='', previous=-1, last=0, needs=[])]

    Raises
    ------
    ValueError
        It is no such value.
    """
    try:
        (size,) = _HEAD.unpack_from(value)
        end = _HEAD.size + size
        return msgspec.msgpack.decode(value[_HEAD.size : end], type=list[DeltaRun]), value[end:]
    except (struct.error, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"no deltas: {error}") from error


def by_shard(messages: Iterable[StoredMessage], shards: int) -> dict[int, list[StoredMessage]]:
    """Messages of one partition by the session shard that applies them, in their order."""
    found: dict[int, list[StoredMessage]] = {}
    for message in messages:
        found.setdefault(message_shard(message, shards), []).append(message)
    return found


def with_last(messages: list[StoredMessage], last: StoredMessage) -> list[StoredMessage]:
    """A shard's messages of a part, up to the part's last one, without the effects of that.

    So all shards have the same watermark of a partition behind a step, and one that has fallen back
    is told by its own.
    """
    if messages and messages[-1].offset == last.offset:
        return messages
    without = StoredMessage(last.offset, "", "", 0, 0.0, [], "", last.timestamp_ms, last.checksum)
    return [*messages, without]


def unknown_names(
    messages: Iterable[StoredMessage], indexes: Mapping[str, int], types: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Item ids without an index, and event types without a code, in the order they come."""
    items: dict[str, None] = {}
    unknown_types: dict[str, None] = {}
    for message in messages:
        for event in message.events:
            if event.item_id and event.item_id not in indexes:
                items[event.item_id] = None
            if event.type not in types:
                unknown_types[event.type] = None
    return list(items), list(unknown_types)


_HEAD = struct.Struct("<I")
