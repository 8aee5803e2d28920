"""Settings of people's login by a provider of OpenID Connect."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from models.api_keys import parse_access


class OidcSettings(BaseSettings):
    """The provider, this service as its client, and the roles of those it knows."""

    oidc_issuer: str = Field(
        "",
        description="OpenID Connect provider that people log in with, as it names itself, such as "
        "https://login.example/realms/shop (extra `oidc`); empty: API keys only. docs/security.md.",
    )
    oidc_client_id: str = Field("", description="Id of this service at the provider.")
    oidc_client_secret: SecretStr = Field(
        SecretStr(""), description="Its secret there; empty for a client without one."
    )
    oidc_redirect_url: str = Field(
        "",
        description="Address of this service's /login/oidc/callback as browsers see it, and as it "
        "is registered at the provider.",
    )
    oidc_scope: str = Field(
        "openid email profile",
        pattern=r"^(?:\S+ )*openid(?: \S+)*$",
        description="What the provider is asked for, words with spaces between; openid among them.",
    )
    oidc_claim: str = Field(
        "groups",
        min_length=1,
        description="Claim of the ID token that `oidc_roles` goes by: a text or a list of texts; "
        "a.b is the member b of the claim a.",
    )
    oidc_roles: dict[str, str] = Field(
        {},
        description="Roles, and dataset groups if not all, by value of the claim: "
        "`admins=send+read+manage+operate,analysts=read@shop`. The first that a person has "
        "counts; who has none is refused.",
    )

    @field_validator("oidc_issuer", "oidc_redirect_url")
    @classmethod
    def _safe_oidc_url(cls, url: str) -> str:
        if url and not is_safe_url(url):
            raise ValueError("no https://host/path (http on loopback only), without ? and #")
        return url

    @field_validator("oidc_roles")
    @classmethod
    def _known_oidc_roles(cls, roles: dict[str, str]) -> dict[str, str]:
        for text in roles.values():
            parse_access(text)
        return roles

    @model_validator(mode="after")
    def _oidc_is_complete(self) -> Self:
        if self.oidc_issuer:
            for name in ("oidc_client_id", "oidc_redirect_url", "oidc_roles"):
                if not getattr(self, name):
                    raise ValueError(f"oidc_issuer needs {name}")
        return self


def is_safe_url(url: str) -> bool:
    """True for a URL that secrets may be sent to: https, or http to loopback.

    >>> is_safe_url("https://login.example/a"), is_safe_url("http://127.0.0.1:8000")
    (True, True)
    >>> is_safe_url("http://login.example"), is_safe_url("https://user@login.example")
    (False, False)
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    is_plain = parts.scheme == "http" and host in {"localhost", "127.0.0.1", "::1"}
    return (
        url.isprintable()
        and " " not in url
        and (parts.scheme == "https" or is_plain)
        and bool(host)
        and not (parts.query or parts.fragment or "@" in parts.netloc)
    )
