"""Options of redis-py's clients, asynchronous or not, from the settings."""

from __future__ import annotations

from typing import Any

from models.servers.tls import client_context
from models.settings import Settings
from models.settings.redis_urls import speaks_tls


def redis_options(settings: Settings, url: str = "") -> dict[str, Any]:
    """Options of redis-py beside a URL, by default that of the settings: password and certificates.

    Raises
    ------
    InvalidSetting
        A file of the settings cannot be used.
    """
    password = settings.redis_password.get_secret_value()
    options: dict[str, Any] = {"password": password} if password else {}
    return options | _tls_options(settings, url or settings.redis)


def sentinel_options(settings: Settings) -> dict[str, Any]:
    """The same, for connections to Sentinels: they speak TLS where Redis does."""
    options: dict[str, Any] = {"ssl": True} if speaks_tls(settings.redis) else {}
    if settings.redis_sentinel_username:
        options["username"] = settings.redis_sentinel_username
    password = settings.redis_sentinel_password.get_secret_value()
    if password:
        options["password"] = password
    return options | _tls_options(settings, settings.redis)


def _tls_options(settings: Settings, url: str) -> dict[str, Any]:
    if not speaks_tls(url):
        return {}
    files = settings.redis_ca_file, settings.redis_certificate_file, settings.redis_key_file
    key_password = settings.redis_key_password.get_secret_value()
    # redis-py makes its contexts itself; a file that it cannot use would count as an outage.
    client_context("RECOMMENDER_REDIS", *files, key_password)
    options: dict[str, Any] = {"ssl_check_hostname": True}
    if settings.redis_ca_file:
        options["ssl_ca_certs"] = settings.redis_ca_file
    if settings.redis_certificate_file:
        options["ssl_certfile"] = settings.redis_certificate_file
        options["ssl_keyfile"] = settings.redis_key_file or settings.redis_certificate_file
        options["ssl_password"] = key_password
    return options
