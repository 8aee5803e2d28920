"""Tables of recent events (recent_ids.lua), merged and shared out among session shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.resharding.history_numbers import NOBODY, HistoryNumbers
from models.state.shards.shard_names import FIRST_SESSION

RECORDS_PER_BUCKET = 8


def shared_out(tables: Sequence[bytes], numbers: HistoryNumbers) -> list[bytes]:
    r"""The table of each new session shard, out of those of all old ones.

    A user's event goes to the user's shard, one of an unknown owner to all: whoever has it again
    has to recognise it. Of a bucket's records of several tables the newer half of each stays.

    Examples
    --------
    >>> table = np.zeros(8, layout.RECENT_EVENT)
    >>> table[0], table[1] = (b"first", 7, 1), (b"other", 8, 0)
    >>> with HistoryNumbers(2, users=1, sessions=0) as numbers:
    ...     new = numbers.give(1, 1)
    ...     found = shared_out([table.tobytes()], numbers)
    >>> for one in found:
    ...     np.frombuffer(one, layout.RECENT_EVENT)[["hash", "owner"]][:2].tolist()
    [(b'other', 0), (b'\x00\x00\x00\x00\x00', 0)]
    [(b'first', 129), (b'other', 0)]
    """
    read = [np.frombuffer(bytes(one), layout.RECENT_EVENT) for one in tables if len(one)]
    if not read:
        return [b""] * numbers.shards
    size = max(map(len, read))
    size += -size % RECORDS_PER_BUCKET
    every = np.zeros((len(read), size), layout.RECENT_EVENT)
    for n, one in enumerate(read):
        every[n, : len(one)] = one
    is_used = every != np.zeros((), layout.RECENT_EVENT)
    old = every["owner"]
    new = np.where(old > 0, numbers.of(old.ravel()).reshape(old.shape), 0)
    shard = new % FIRST_SESSION // layout.OWNERS_PER_PAGE % numbers.shards
    every["owner"] = np.where((old > 0) & (new == 0), NOBODY, new)
    # By bucket: the newest of each table first.
    by_age = every.reshape(len(read), -1, RECORDS_PER_BUCKET).transpose(1, 2, 0)
    found = []
    for number in range(numbers.shards):
        is_own = is_used & ((new == 0) | (shard == number))
        own = is_own.reshape(len(read), -1, RECORDS_PER_BUCKET).transpose(1, 2, 0)
        found.append(_first_of_each(by_age.reshape(len(by_age), -1), own.reshape(len(own), -1)))
    return found


def _first_of_each(buckets: NDArray[Any], is_kept: NDArray[Any]) -> bytes:
    """The first records of each bucket that are kept, and nothing behind them."""
    order = np.argsort(~is_kept, axis=1, kind="stable")[:, :RECORDS_PER_BUCKET]
    records = np.take_along_axis(buckets, order, axis=1)
    records[~np.take_along_axis(is_kept, order, axis=1)] = np.zeros((), layout.RECENT_EVENT)
    return records.tobytes()
