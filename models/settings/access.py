"""Settings of who may call the HTTP API, and of TLS."""

from __future__ import annotations

import ipaddress
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

MIN_RECEIPT_KEY = 16
"""Characters of a key that receipts are signed with, at least."""


class AccessSettings(BaseSettings):
    """API keys, TLS and proxies."""

    access: Literal["auto", "keys", "open"] = Field(
        "auto",
        description="Who may call the HTTP API: keys (who has an API key with the role), open "
        "(everybody who reaches it may do everything), or auto: open on loopback, else keys. "
        "docs/security.md.",
    )
    tls_certificate_file: str = Field(
        "",
        description="Certificate of the HTTP API with its chain, as PEM; empty: no TLS.",
    )
    tls_key_file: str = Field(
        "", description="Its private key, as PEM without a password; empty: in the certificate's."
    )
    trusted_proxies: list[str] = Field(
        [],
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto count, such "
        "as 10.0.0.0/8; from all others they do not.",
    )
    receipt_key: SecretStr = Field(
        SecretStr(""),
        description="Key with which receipts of erasures are signed (HMAC-SHA256), 16 characters "
        "at least; empty: they are not signed.",
    )
    session_s: int = Field(
        8 * 3600, ge=60, le=30 * 86400, description="A login in a browser ends after this long."
    )

    @field_validator("receipt_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr) -> SecretStr:
        if 0 < len(key.get_secret_value()) < MIN_RECEIPT_KEY:
            raise ValueError(f"a key has {MIN_RECEIPT_KEY} characters at least")
        return key


def is_loopback(host: str) -> bool:
    """True if an address to listen on is reachable from this machine only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "shop.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
