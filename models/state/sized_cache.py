"""Values by key, bounded in number and in total size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class SizedCache(dict[K, V]):
    """A dictionary of what `keep` has put in; when it is full, the first that were kept make room.

    Reading is a dictionary's own, for it is done some hundred times an answer.

    Parameters
    ----------
    most
        Bound on the number of values.
    most_size
        Bound on the sum of their sizes.
    size_of
        The size of a value, in a unit of the caller's.

    Examples
    --------
    >>> held = SizedCache[str, str](most=3, most_size=5, size_of=len)
    >>> for key, text in (("a", "xx"), ("b", "yy"), ("a", "z"), ("c", "www")):
    ...     held.keep(key, text)
    >>> held
    {'a': 'z', 'c': 'www'}
    """

    def __init__(self, *, most: int, most_size: int, size_of: Callable[[V], int]) -> None:
        super().__init__()
        self._most, self._most_size = most, most_size
        self._size_of = size_of
        self._size = 0

    def keep(self, key: K, value: V) -> None:
        """Put a value in, in place of an earlier one of the key; it may be too large to stay."""
        if key in self:
            self._size -= self._size_of(self.pop(key))
        self[key] = value
        self._size += self._size_of(value)
        while len(self) > self._most or self._size > self._most_size:
            self._size -= self._size_of(self.pop(next(iter(self))))

    def clear(self) -> None:
        """Remove all values."""
        super().clear()
        self._size = 0
