"""The check of every request: who sends it, whether that one may, and not too often.

It stands in front of FastAPI and of the fast path alike, so that no route is without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from starlette.routing import Router
from starlette.types import Scope

from api.access.callers import EVERYBODY, NOBODY, Caller
from api.access.key_table import KeyTable, KnownKey
from api.access.roles import NATIVE, route_path
from api.server.origins import PORTS, SAFE, authority, is_own_page
from api.server.refusals import Refusal
from models.api_keys import Role

API_KEY, AUTHORIZATION, ORIGIN = b"x-api-key", b"authorization", b"origin"
BEARER = b"bearer "

SESSION_COOKIE = "recommender"
"""Name of the cookie of a session; over TLS with the prefix `__Host-`."""

ONCE = frozenset((API_KEY, AUTHORIZATION, ORIGIN, b"cookie"))
"""Headers that decide about access: a request may have each of them once."""

CHALLENGE: Mapping[str, str] = {"www-authenticate": "Bearer"}

MISSING = Refusal(
    401,
    "unauthenticated",
    "this needs an API key: send X-Api-Key, or Authorization: Bearer",
    CHALLENGE,
)
UNKNOWN = Refusal(
    401, "unauthenticated", "no such API key: it is wrong, revoked or expired", CHALLENGE
)
UNREAD = Refusal(503, "unavailable", "Redis does not answer, so API keys are not known: try again")


class AccessDenied(Exception):
    """A request is refused; the refusal says how it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Need(NamedTuple):
    """The role that a route asks of a caller.

    Attributes
    ----------
    role
        None for a route that everybody may call.
    is_any_group
        True if the route itself checks the group, which its body names.
    """

    role: Role | None
    is_any_group: bool = False


class AccessCheck:
    """Finds out who sends a request, and refuses those who may not.

    Parameters
    ----------
    keys
        All keys; None if everybody may call everything.
    group
        The dataset group of the native routes.
    """

    def __init__(
        self,
        keys: KeyTable | None,
        group: str,
        *,
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self._group = group
        self._now_s = now_s
        self._clock = clock

    def origins(self) -> Collection[bytes]:
        """Origins that public keys are bound to."""
        return () if self.keys is None else self.keys.origins

    async def ready(self) -> None:
        """Read the keys if they are too old, before `origins` is asked."""
        if self.keys is not None and not self.keys.is_good:
            await self.keys.refresh()

    async def admit(
        self, need: Need | None, scope: Scope, headers: Mapping[bytes, bytes]
    ) -> Caller:
        """The caller of a request, who may do what the request needs.

        Parameters
        ----------
        need
            None for a path or method that no route has: then who has a key learns so.

        Raises
        ------
        AccessDenied
            There is no valid key, or it lacks the role, or it has sent too much.
        """
        if len(headers) != len(scope["headers"]):
            _check_once(scope)
        if self.keys is None:
            return EVERYBODY
        if not self.keys.is_good:
            await self.keys.refresh()
        text = key_text(headers)
        known = None if text is None else self.keys.find(text)
        if known is None or known.key.parent:
            known = await self._other(self.keys, text, scope, headers)
            if known is None:
                return self._nobody(need)
        if known.origins:
            _check_origin(known, headers)
        if need is not None and need.role is not None:
            self._check_role(need, need.role, known.caller)
        if known.limit is not None:
            wait_s = known.limit.wait_s(self._clock(), self._now_s())
            if wait_s:
                raise AccessDenied(_too_much(known.caller, wait_s))
        return known.caller

    async def _other(
        self, keys: KeyTable, text: bytes | None, scope: Scope, headers: Mapping[bytes, bytes]
    ) -> KnownKey | None:
        """A key that is not known yet, or a session; None if a request names neither."""
        if text is None:
            return await self._session(keys, scope, headers)
        known = await self.find(text)
        if known.key.parent:  # a session is for its cookie only
            raise AccessDenied(UNKNOWN)
        return known

    async def find(self, text: bytes) -> KnownKey:
        """The key of this text, also if it was made since the keys were read.

        Raises
        ------
        AccessDenied
            There is none, or Redis does not tell.
        """
        keys = self.keys
        if keys is None:
            raise AccessDenied(UNKNOWN)
        known = await keys.find_new(text)
        if known is None:
            raise AccessDenied(UNKNOWN if keys.is_read else UNREAD)
        return known

    async def _session(
        self, keys: KeyTable, scope: Scope, headers: Mapping[bytes, bytes]
    ) -> KnownKey | None:
        """The session of a request of this site's own pages; None without one."""
        text = session_text(headers)
        # SameSite=Strict leaves pages of sibling domains, which CORS may allow.
        if text is None or not is_own_page(headers):
            return None
        if scope["method"] not in SAFE and not names_own_page(headers):
            return None
        known = await keys.find_new(text)
        return known if known is not None and known.key.parent else None

    def _nobody(self, need: Need | None) -> Caller:
        if need is not None and need.role is None:
            return NOBODY
        raise AccessDenied(MISSING)

    def _check_role(self, need: Need, role: Role, caller: Caller) -> None:
        if role not in caller.roles:
            raise AccessDenied(
                Refusal(403, "forbidden", f"key {caller.id} has not the role {role}")
            )
        if not need.is_any_group and not caller.may(role, self._group):
            text = f"key {caller.id} is not for the dataset group {self._group}"
            raise AccessDenied(Refusal(403, "forbidden", text))


SEND_EVENTS = Need(Role.SEND, is_any_group=True)
READ_LIST = Need(Role.READ)
PERSONALIZE = Need(None)
"""Its operations are checked once their body is known."""


def native_need(router: Router, scope: Scope) -> Need | None:
    """The need of the route of a request; None if no route answers it.

    It is matched as the router does it, on the same scope: what is checked is what will answer.
    """
    path = route_path(router, scope)
    if path is None:
        return None
    method = scope["method"]
    if path == "/events" and method == "POST":
        return SEND_EVENTS
    try:
        return Need(NATIVE[method, path])
    except KeyError:
        raise AccessDenied(Refusal(403, "forbidden", f"no role opens {method} {path}")) from None


def key_text(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request's headers hold; None if they hold none.

    >>> key_text({b"authorization": b"Bearer srk_1"}), key_text({b"authorization": b"Basic YTpi"})
    (b'srk_1', None)
    """
    text = headers.get(API_KEY)
    authorization = headers.get(AUTHORIZATION)
    if authorization is not None and authorization[:7].lower() == BEARER:
        bearer = authorization[7:].strip()
        if text is not None and text != bearer:
            raise AccessDenied(
                Refusal(400, "invalid_request", "X-Api-Key and Authorization name two keys")
            )
        return bearer
    return text


def session_text(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The session that a request's cookie names; None without one.

    >>> session_text({b"cookie": b"a=b; recommender=srk_1"})
    b'srk_1'
    """
    cookies = headers.get(b"cookie")
    if cookies is None:
        return None
    pairs = (pair.strip().partition(b"=") for pair in cookies.split(b";"))
    found = {name: value for name, _, value in pairs}
    name = SESSION_COOKIE.encode()
    # A cookie of this prefix cannot have been set by a page of another name.
    return found.get(b"__Host-" + name) or found.get(name)


def names_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """True if a browser says that a page of this site sent a request: what changes needs that."""
    return ORIGIN in headers or headers.get(b"sec-fetch-site") == b"same-origin"


def _check_once(scope: Scope) -> None:
    seen = set()
    for name, _ in scope["headers"]:
        if name in ONCE:
            if name in seen:
                text = f"there is more than one header {name.decode()}"
                raise AccessDenied(Refusal(400, "invalid_request", text))
            seen.add(name)


def _check_origin(known: KnownKey, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a public key that a page of another origin sent, or no page."""
    origin = headers.get(ORIGIN)
    if origin is not None:
        is_own = origin.lower() in known.origins
    else:
        # Browsers name no origin where a page reads from its own.
        is_own = headers.get(b"sec-fetch-site") == b"same-origin" and _is_of(
            known.origins, headers.get(b"host", b"")
        )
    if not is_own:
        whose = "of no origin" if origin is None else f"of {origin.decode('latin-1')!r}"
        text = f"the public key {known.key.id} is not for pages {whose}"
        raise AccessDenied(Refusal(403, "forbidden", text))


def _is_of(origins: Collection[bytes], host: bytes) -> bool:
    """True if the host and port of one of these origins are those of a Host header."""
    for origin in origins:
        scheme, _, place = origin.partition(b"://")
        port = PORTS[scheme.decode()]
        if authority(place, port) == authority(host, port):
            return True
    return False


def _too_much(caller: Caller, wait_s: int) -> Refusal:
    text = f"key {caller.id} has sent as many requests as it may: try again in {wait_s} s"
    return Refusal(429, "rate_limited", text, {"retry-after": str(wait_s)})
