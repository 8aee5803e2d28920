"""Dead letters that were replayed or discarded: all before the committed offset, and single ones.

Kafka keeps a text beside a committed offset. It names the later letters that were handled one by
one: their distances from the committed offset, with commas between. So both are committed at once,
and any client sees how far the letters are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from kafka.structs import OffsetAndMetadata

from models.errors import RecommenderError

MAX_TEXT = 4000
"""Characters of the text; Kafka's default limit is 4,096 bytes."""


class TooManySingled(RecommenderError):
    """More letters were handled one by one than can be remembered."""


class HandledLetters(NamedTuple):
    """Offsets of handled letters: all before `following`, and those in `beyond`.

    >>> handled = HandledLetters(5, frozenset()).with_single([7, 5, 8])
    >>> handled, handled.text()
    (HandledLetters(following=6, beyond=frozenset({8, 7})), '1,2')
    >>> handled.with_single([6])
    HandledLetters(following=9, beyond=frozenset())
    """

    following: int = 0
    beyond: frozenset[int] = frozenset()

    @classmethod
    def of(cls, committed: OffsetAndMetadata | None) -> Self:
        """The letters of a commit; a text of another kind names none.

        >>> HandledLetters.of(OffsetAndMetadata(5, "1,2", -1)).beyond == {6, 7}
        True
        """
        if committed is None:
            return cls()
        parts = [part for part in (committed.metadata or "").split(",") if part.isdecimal()]
        return cls(committed.offset, frozenset(committed.offset + int(part) for part in parts))

    def has(self, offset: int) -> bool:
        """True if the letter was handled."""
        return offset < self.following or offset in self.beyond

    def up_to(self, following: int) -> HandledLetters:
        """These letters, and all before an offset."""
        first = max(following, self.following)
        return HandledLetters(first, frozenset(one for one in self.beyond if one >= first))

    def with_single(self, offsets: Iterable[int]) -> HandledLetters:
        """These letters, and single ones at other offsets."""
        beyond, following = {*self.beyond, *offsets}, self.following
        while following in beyond:
            following += 1
        return HandledLetters(following, frozenset(one for one in beyond if one >= following))

    def text(self) -> str:
        """The text beside the offset; raises `TooManySingled` if it is too long."""
        text = ",".join(str(one - self.following) for one in sorted(self.beyond))
        if len(text) > MAX_TEXT:
            raise TooManySingled(
                "too many dead letters were handled one by one: replay or discard the oldest first"
            )
        return text

    def commit(self) -> Any:  # noqa: ANN401  kafka-python is not typed
        """The commit that stores it."""
        return OffsetAndMetadata(self.following, self.text(), -1)
