"""Options of the HTTP server: its protocol, limits, certificate and headers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from api.server.admission import Gate
from api.server.connections import Connections
from api.server.uvicorn_protocol import BoundedProtocol
from models.servers.tls import server_context
from models.settings import Settings

SECURITY_HEADERS = [("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin")]
"""Headers of every answer; pages have a content security policy of their own."""

HSTS = ("strict-transport-security", "max-age=31536000")
"""Header of every answer over TLS."""


NO_GATES: Mapping[tuple[str, str], Gate] = MappingProxyType({})


def server_options(
    settings: Settings, gates: Mapping[tuple[str, str], Gate] = NO_GATES
) -> dict[str, Any]:
    """Options of uvicorn, with the limits of the settings.

    Requests of a method and path in `gates` are refused by the protocol while its gate is full,
    before any work.

    Raises
    ------
    InvalidSetting
        The certificate cannot be used.
    """
    tls: dict[str, Any] = {}
    headers = list(SECURITY_HEADERS)
    if settings.tls_certificate_file:
        # Checked here, where the error names the setting.
        server_context(settings.tls_certificate_file, settings.tls_key_file)
        tls["ssl_certfile"] = settings.tls_certificate_file
        tls["ssl_keyfile"] = settings.tls_key_file or None
        headers.append(HSTS)
    return {
        **tls,
        "headers": headers,
        "server_header": False,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": ",".join(settings.trusted_proxies),
        "host": settings.host,
        "port": settings.port,
        "access_log": False,
        "log_config": None,
        "timeout_graceful_shutdown": 5,
        "timeout_keep_alive": settings.keep_alive_s,
        "http": partial(BoundedProtocol, Connections(settings), gates),
        "ws": "none",
    }
