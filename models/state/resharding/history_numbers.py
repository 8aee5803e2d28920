"""New numbers of histories: a number says which shard has the history, so all get new ones."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.shards.shard_names import FIRST_SESSION, history_shard

NOBODY = 2**32 - 1
"""Number of no history."""


def number_of(n: int, shard: int, shards: int, *, is_user: bool) -> int:
    """The n-th number that a session shard gives, as histories.lua does.

    >>> number_of(5, 2, 4, is_user=True), number_of(128, 2, 4, is_user=True)
    (261, 768)
    """
    page, place = divmod(n, layout.OWNERS_PER_PAGE)
    number = (page * shards + shard) * layout.OWNERS_PER_PAGE + place
    return number if is_user else FIRST_SESSION + number


class HistoryNumbers:
    """New numbers by old ones, in a file of 4 bytes for each: it takes no memory that is needed.

    Parameters
    ----------
    shards
        Session shards of the new layout.
    users, sessions
        Bounds of the old numbers of users, and of anonymous sessions above `FIRST_SESSION`.
    """

    def __init__(self, shards: int, *, users: int, sessions: int) -> None:
        self.shards = shards
        self.given: dict[tuple[int, bool], int] = defaultdict(int)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._file.truncate(4 * (users + sessions + 2))
        self._new: NDArray[Any] = np.memmap(self._file, np.uint32, "r+")
        self._users = users + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        del self._new
        self._file.close()

    def give(self, old: int, shard: int) -> int:
        """Give a history of a shard of the new layout a number."""
        is_user = old < FIRST_SESSION
        self.given[shard, is_user] += 1
        number = number_of(self.given[shard, is_user], shard, self.shards, is_user=is_user)
        self._new[self._place(old)] = number
        return number

    def _place(self, old: int) -> int:
        return old if old < FIRST_SESSION else self._users + old - FIRST_SESSION

    def of(self, old: NDArray[Any]) -> NDArray[Any]:
        """New numbers; 0 where there is no such history any more."""
        places = old.astype(np.int64)
        is_session = places >= FIRST_SESSION
        is_known = np.where(is_session, places - FIRST_SESSION < len(self._new) - self._users,
                            places < self._users)  # fmt: skip
        places = np.where(is_session, places - FIRST_SESSION + self._users, places)
        return np.where(is_known, self._new[np.where(is_known, places, 0)], 0).astype("<u4")

    def shard_of(self, new: int) -> int:
        """The session shard with a history."""
        return history_shard(new, self.shards)
