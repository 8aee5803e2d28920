"""API keys: their text, the hash that is stored of it, and what a key may do.

A key is `srk_<id>_<secret>`. The id is no secret: lists, logs and the audit log name a key by it.
The secret has 256 random bits, so one SHA-256 is enough: nobody can try as many, and a slow hash
such as Argon2 protects only what people choose themselves, while every request would pay for it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

import msgspec

from models.errors import InvalidSetting
from models.metadata_records import GROUP

PREFIX = b"srk_"
ID_BYTES = 6
SECRET_BYTES = 32
ID_SLICE = slice(len(PREFIX), len(PREFIX) + 2 * ID_BYTES)
"""Place of the id in a key's text."""

KEY_LENGTH = ID_SLICE.stop + 1 + 43
ALL_GROUPS = "*"
PERSON = "oidc:"
"""Begin of a session's `parent` that is a person of the login's provider, and no key."""

MAX_NAME_CHARACTERS = 100
MAX_ORIGINS = 100

_ORIGIN = re.compile(r"https?://(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?")


class Role(StrEnum):
    """Permission of a caller in a dataset group."""

    SEND = "send"
    """Send events."""
    READ = "read"
    """Ask for recommendations."""
    MANAGE = "manage"
    """Put metadata, export and erase users, and manage Personalize's resources."""
    OPERATE = "operate"
    """Read metrics and what is wrong."""


PUBLIC_ROLES = frozenset((Role.SEND, Role.READ))
"""Roles that a public key may have: whoever opens the page reads it."""


class ApiKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as it is stored: everything but its secret.

    Attributes
    ----------
    digest
        SHA-256 of its whole text.
    groups
        Dataset groups it is for; `*` for all.
    origins
        Origins of the web pages that may use it; a key with origins is public.
    expires_s
        Unix time from which it is refused; 0 for never.
    requests_per_s, requests_per_day
        Most requests, on average of a few seconds for each API process, and of all processes in a
        day of UTC; 0 for no limit.
    parent
        Id of the key that this one, a session of a browser, was made with, or of the person whom
        the login's provider knows, after `PERSON`; else empty.
    maker
        Id of the caller of the HTTP API that created it; empty for a command.
    """

    id: str
    name: str
    digest: bytes
    roles: tuple[Role, ...]
    groups: tuple[str, ...]
    created_s: float
    origins: tuple[str, ...] = ()
    expires_s: float = 0.0
    requests_per_s: float = 0.0
    requests_per_day: int = 0
    parent: str = ""
    maker: str = ""

    @property
    def is_public(self) -> bool:
        """True if web pages hold it, so that everybody can read it."""
        return bool(self.origins)

    @property
    def is_of_person(self) -> bool:
        """True for the session of a person whom the login's provider knows."""
        return self.parent.startswith(PERSON)

    @property
    def is_listed(self) -> bool:
        """True if it stands for itself: sessions that were made with a key end with that."""
        return not self.parent or self.is_of_person


class NewKey(NamedTuple):
    """A new key, and its text, which is shown once and stored nowhere."""

    key: ApiKey
    text: str


def new_key(
    name: str,
    roles: Collection[str],
    groups: Collection[str],
    *,
    now_s: float,
    origins: Collection[str] = (),
    expires_s: float = 0.0,
    requests_per_s: float = 0.0,
    requests_per_day: int = 0,
    parent: str = "",
    maker: str = "",
) -> NewKey:
    """A new random key; see `ApiKey` for the arguments.

    Raises
    ------
    InvalidSetting
        A name, role, group or origin breaks a rule; the text says which.

    Examples
    --------
    >>> made = new_key("shop backend", ["send", "read"], ["shop"], now_s=1790000000.0)
    >>> made.text.startswith(f"srk_{made.key.id}_"), made.key.digest == digest(made.text.encode())
    (True, True)
    >>> new_key("page", ["manage"], ["shop"], now_s=0.0, origins=["https://shop.example"])
    Traceback (most recent call last):
    models.errors.InvalidSetting: a public key may only send and read: not manage
    """
    _check_name(name)
    known = sorted({_role(role) for role in roles}, key=list(Role).index)
    if not known:
        raise InvalidSetting(f"give at least one role of {', '.join(Role)}")
    for group in groups:
        if group != ALL_GROUPS and not re.fullmatch(GROUP, group):
            raise InvalidSetting(f"not a dataset group's name: {group!r}")
    if not groups:
        raise InvalidSetting("give at least one dataset group, or * for all")
    lowered = sorted({_origin(origin) for origin in origins})
    more = [role for role in known if role not in PUBLIC_ROLES]
    if lowered and more:
        raise InvalidSetting(f"a public key may only send and read: not {', '.join(more)}")
    if len(lowered) > MAX_ORIGINS:
        raise InvalidSetting(f"a key may have {MAX_ORIGINS} origins")
    key_id = secrets.token_hex(ID_BYTES)
    text = f"{PREFIX.decode()}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    key = ApiKey(
        key_id,
        name,
        digest(text.encode()),
        tuple(known),
        tuple(sorted(set(groups))),
        now_s,
        tuple(lowered),
        expires_s,
        requests_per_s,
        requests_per_day,
        parent,
        maker,
    )
    return NewKey(key, text)


def digest(text: bytes) -> bytes:
    """The hash that is stored of a key's text."""
    return hashlib.sha256(text).digest()


def parse_access(text: str) -> tuple[frozenset[Role], frozenset[str]]:
    """Roles and groups written as `role+role@group+group`; without `@…` all groups.

    Raises
    ------
    ValueError
        A role or group is none.

    Examples
    --------
    >>> roles, groups = parse_access("send+read@shop")
    >>> sorted(roles), sorted(groups)
    ([<Role.READ: 'read'>, <Role.SEND: 'send'>], ['shop'])
    """
    roles, at, groups = text.partition("@")
    named = frozenset(groups.split("+")) if at else frozenset((ALL_GROUPS,))
    for group in named - {ALL_GROUPS}:
        if not re.fullmatch(GROUP, group):
            raise ValueError(f"not a dataset group's name: {group!r}")
    try:
        return frozenset(Role(role) for role in roles.split("+")), named
    except ValueError:
        raise ValueError(f"roles are {', '.join(Role)}, joined by +") from None


def _check_name(name: str) -> None:
    if not (1 <= len(name) <= MAX_NAME_CHARACTERS and name.isprintable()):
        raise InvalidSetting(f"a key's name has 1 to {MAX_NAME_CHARACTERS} printable characters")


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise InvalidSetting(f"no role {text!r}: there are {', '.join(Role)}") from None


def _origin(text: str) -> str:
    lowered = text.lower()
    if not _ORIGIN.fullmatch(lowered):
        raise InvalidSetting(
            f"{text!r} is no origin: write https://shop.example, with a port but without a path"
        )
    return lowered
