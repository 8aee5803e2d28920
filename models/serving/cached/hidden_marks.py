"""Marks of items that no answer may hold: those that are hidden, and those that have expired."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.serving.cached.shared_state import NONE_HIDDEN
from models.state.shared_reads import read_expiries, read_hidden
from models.state.store import Store

NO_EXPIRIES = np.zeros(0, np.uint32)


class HiddenMarks:
    """A group's hidden items and expiries, read again as their versions change.

    Attributes
    ----------
    expires_at
        The next moment at which an item expires, after that of the last `marks`; Unix seconds.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hidden, self._expiries = NONE_HIDDEN, NO_EXPIRIES
        self._hidden_version = self._expiry_version = 0
        self.expires_at = math.inf

    async def read(self, hidden_version: int, expiry_version: int) -> None:
        """Read what is of another version than these; a round trip for each of the two."""
        if hidden_version != self._hidden_version:
            self._hidden = await read_hidden(self._store)
            self._hidden_version = hidden_version
        if expiry_version != self._expiry_version:
            self._expiries = await read_expiries(self._store)
            self._expiry_version = expiry_version

    def marks(self, now_s: float) -> NDArray[np.bool_]:
        """Marks by item index of the items that are hidden, or have expired by `now_s`."""
        if not len(self._expiries):
            self.expires_at = math.inf
            return self._hidden
        later = self._expiries[self._expiries > now_s]
        self.expires_at = float(later.min()) if len(later) else math.inf
        expired = (self._expiries > 0) & (self._expiries <= now_s)
        if not expired.any():
            return self._hidden
        found = np.zeros(max(len(expired), len(self._hidden)), np.bool_)
        found[: len(self._hidden)] = self._hidden
        found[: len(expired)] |= expired
        return found
