"""Checks of Host and Origin: protection against requests of other sites' pages and DNS rebinding.

A browser lets any web page send requests to this machine. If another site's page sends one, the
browser names the page's origin, or marks the request as cross-site. With DNS rebinding (a name that
points here after its page was loaded) the browser sends that name as the Host.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

from api.server.refusals import Refusal
from models.settings import Settings

SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
OTHER_SITES = (b"cross-site", b"same-site")
"""Values of Sec-Fetch-Site for pages of other sites."""

PORTS = {"http": 80, "https": 443}
REMEMBERED = 1024

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?", re.ASCII)
_ABSOLUTE = re.compile(rb"[^/?#]*://[^/?#]*")


class Origins:
    """The hosts and origins that the settings allow.

    An IP address is always allowed as Host: a request without a name cannot come by DNS rebinding.

    Parameters
    ----------
    of_keys
        Gives the origins that public API keys are bound to, in lower case.
    """

    def __init__(
        self, settings: Settings, of_keys: Callable[[], Collection[bytes]] = frozenset
    ) -> None:
        self._of_keys = of_keys
        own = [settings.host, socket.gethostname(), "localhost"]
        names = [name.lower().rstrip(".") for name in (*own, *settings.allowed_hosts)]
        self._names = frozenset(name for name in names if "*" not in name)
        self._endings = (
            ".localhost",
            *(name.removeprefix("*") for name in names if name.startswith("*.")),
        )
        self._is_any_host = "*" in names
        self._origins = frozenset(origin.lower().encode() for origin in settings.cors_origins)
        self._is_any_origin = b"*" in self._origins
        self._allows_host = lru_cache(REMEMBERED)(self._check_host)

    def refusal(self, method: str, headers: Mapping[bytes, bytes]) -> Refusal | None:
        """The refusal of a request; None if it is allowed."""
        host = headers.get(b"host")
        if host is not None and not self._allows_host(host):
            name = host.decode("latin-1")
            text = f"host {name!r} is not allowed: RECOMMENDER_ALLOWED_HOSTS lists allowed names"
            return Refusal(403, "host_not_allowed", text)
        origin = headers.get(b"origin")
        if origin is not None:
            is_foreign = not self._allows_origin(origin, host)
        else:
            # A navigation is a person following a link; the linking page cannot read the answer.
            is_foreign = (
                headers.get(b"sec-fetch-site") in OTHER_SITES
                and not self._is_any_origin
                and not (method in SAFE and headers.get(b"sec-fetch-mode") == b"navigate")
            )
        if not is_foreign:
            return None
        whose = "of another site" if origin is None else f"of {origin.decode('latin-1')!r}"
        text = f"pages {whose} may not send this: RECOMMENDER_CORS_ORIGINS lists allowed origins"
        return Refusal(403, "origin_not_allowed", text)

    def allows_cross_origin(self, origin: bytes) -> bool:
        """True if pages of an origin may call, by the settings or by a public API key."""
        origin = origin.lower()
        return self._is_any_origin or origin in self._origins or origin in self._of_keys()

    def _check_host(self, host: bytes) -> bool:
        found = authority(host, 0)
        if found is None:
            return False
        if self._is_any_host:
            return True
        name = found[0]
        return name in self._names or name.endswith(self._endings) or _is_address(name)

    def _allows_origin(self, origin: bytes, host: bytes | None) -> bool:
        return self.allows_cross_origin(origin) or is_same_origin(origin, host)


def is_same_origin(origin: bytes, host: bytes | None) -> bool:
    """True if an origin has the host and port of a Host header.

    Not the scheme: behind a TLS proxy it differs.
    """
    scheme, _, rest = origin.lower().partition(b"://")
    port = PORTS.get(scheme.decode("latin-1"))
    return (
        port is not None
        and host is not None
        and (asked := authority(rest, port)) is not None
        and asked == authority(host, port)
    )


def names_same_host(target: bytes, host: bytes | None) -> bool:
    """True if a request's target names no host, or that of its Host header.

    A proxy goes by the target's, and what it lets through must not be another's here.

    >>> names_same_host(b"/a", None), names_same_host(b"http://a.example/", b"b.example")
    (True, False)
    """
    origin = _ABSOLUTE.match(target)
    return origin is None or is_same_origin(origin[0], host)


def is_own_page(headers: Mapping[bytes, bytes]) -> bool:
    """True if a page of this very site sent a request, or no page did, as browsers tell it."""
    origin = headers.get(b"origin")
    if origin is not None:
        return is_same_origin(origin, headers.get(b"host"))
    return headers.get(b"sec-fetch-site", b"none") in {b"same-origin", b"none"}


def authority(text: bytes, port: int) -> tuple[str, int] | None:
    """Host name and port of a Host header, or of an origin after its scheme; None if malformed.

    >>> authority(b"Shop.Example.:8080", 80)
    ('shop.example', 8080)
    >>> authority(b"[::1]", 80)
    ('[::1]', 80)
    >>> authority(b"user@shop.example", 80)
    """
    matched = _AUTHORITY.fullmatch(text.decode("latin-1").lower())
    if matched is None:
        return None
    return matched[1].rstrip("."), int(matched[2] or port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
