"""Read-your-writes tokens: positions of a sender's events in Kafka, as short URL-safe text.

`c0-123-5f0c2a91.p2-45-77e1b0d4` means: partition 0 of the clicks topic, offset 123, and partition 2
of the purchases topic, offset 45; `i` and `u` are the topics of items and users. The third number
identifies the topic's incarnation: in a topic that was made again, offsets begin again. A request
with the token as `?after=` waits until these messages are in effect. Tokens of earlier versions
have no incarnation.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from models.errors import InvalidToken

TopicKind = Literal["clicks", "purchases", "items", "users"]
"""A topic by its attribute of `streams.kafka.topics.Topics`."""

MAX_TOKEN_CHARACTERS = 2700
MAX_PARTS = 64
MAX_PARTITION = 2**31 - 1
MAX_OFFSET = 2**63 - 1

_KINDS: dict[str, TopicKind] = {"c": "clicks", "p": "purchases", "i": "items", "u": "users"}
_NUMBER = r"0|[1-9][0-9]*"
_PART = re.compile(rf"([cpiu])({_NUMBER})-({_NUMBER})(?:-([0-9a-f]{{8}}))?")

PATTERN = (
    f"^[cpiu]({_NUMBER})-({_NUMBER})(-[0-9a-f]{{8}})?"
    f"(\\.[cpiu]({_NUMBER})-({_NUMBER})(-[0-9a-f]{{8}})?){{0,{MAX_PARTS - 1}}}$"
)
"""Pattern of a token, for documents: `parse_token` decides, and its errors say why."""


class Position(NamedTuple):
    """One message of a topic, without the topic's name.

    Attributes
    ----------
    incarnation
        Result of `short_incarnation`; empty in a token without one.
    """

    kind: TopicKind
    partition: int
    offset: int
    incarnation: str = ""


class Published(NamedTuple):
    """One message that Kafka has acknowledged; offset -1 if Kafka gave none.

    Attributes
    ----------
    incarnation
        Of the topic: `<cluster id>/<topic id>`; empty if unknown.
    """

    topic: str
    partition: int
    offset: int
    kind: TopicKind
    incarnation: str = ""


def short_incarnation(incarnation: str) -> str:
    """Short form of a topic's incarnation, `<cluster id>/<topic id>`, in tokens.

    >>> short_incarnation("cluster/01a2293c-2b5a-7373-b2f8-cdad9433a4d5")
    '3ec9dd7d'
    """
    return f"{zlib.crc32(incarnation.encode()):08x}"


@dataclass(frozen=True)
class Receipt:
    """Kafka's acknowledgement of the messages of one call.

    >>> Receipt((Published("events.clicks", 0, 123, "clicks"),)).token()
    'c0-123'
    """

    published: tuple[Published, ...]

    def token(self) -> str:
        """Token for these messages; empty if Kafka gave no offset.

        It has the last message of each partition: earlier ones take effect first.
        """
        last: dict[tuple[TopicKind, int, str], int] = {}
        for one in self.published:
            if one.offset >= 0:
                place = (one.kind, one.partition, one.incarnation)
                last[place] = max(one.offset, last.get(place, -1))
        return ".".join(
            f"{kind[0]}{partition}-{offset}"
            + (f"-{short_incarnation(incarnation)}" if incarnation else "")
            for (kind, partition, incarnation), offset in last.items()
        )


def parse_token(text: str) -> list[Position]:
    """Positions in a token, in its order.

    Raises
    ------
    InvalidToken
        The text is not a token of `Receipt.token`.

    Examples
    --------
    >>> parse_token("c0-123-5f0c2a91.p2-45-77e1b0d4")[1]
    Position(kind='purchases', partition=2, offset=45, incarnation='77e1b0d4')
    """
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise InvalidToken(f"a token has at most {MAX_TOKEN_CHARACTERS} characters")
    parts = text.split(".")
    if len(parts) > MAX_PARTS:
        raise InvalidToken(f"a token has at most {MAX_PARTS} parts")
    return [_position(part) for part in parts]


def merged_token(tokens: Iterable[str]) -> str | None:
    """Token for the messages of several; None where they are of more partitions than one can name.

    Raises
    ------
    InvalidToken
        One is no token.

    Examples
    --------
    >>> merged_token(["i0-5-5f0c2a91.i1-7-5f0c2a91", "", "i0-9-5f0c2a91"])
    'i0-9-5f0c2a91.i1-7-5f0c2a91'
    """
    last: dict[tuple[TopicKind, int, str], int] = {}
    for kind, partition, offset, incarnation in (
        one for token in tokens if token for one in parse_token(token)
    ):
        place = (kind, partition, incarnation)
        last[place] = max(offset, last.get(place, -1))
    parts = [
        f"{kind[0]}{partition}-{offset}" + (f"-{incarnation}" if incarnation else "")
        for (kind, partition, incarnation), offset in last.items()
    ]
    return ".".join(parts) if len(parts) <= MAX_PARTS else None


def _position(part: str) -> Position:
    match = _PART.fullmatch(part)
    if match is None:
        raise InvalidToken(f"not a part of a token: {part!r}; one looks like c0-123-5f0c2a91")
    partition, offset = int(match[2]), int(match[3])
    if partition > MAX_PARTITION or offset > MAX_OFFSET:
        raise InvalidToken(f"number too large in a token: {part!r}")
    return Position(_KINDS[match[1]], partition, offset, match[4] or "")
