"""Login through an OpenID Connect provider: a login's secret, and the identity it ends with."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple


class LoginSecret(NamedTuple):
    """The one random text of a login under way; a cookie holds it, and the provider never sees it.

    What the provider gets follows from it by a one-way function, so that nothing has to be stored
    here for logins that strangers begin.

    >>> login = LoginSecret("a")
    >>> login.state != login.nonce != login.verifier
    True
    """

    text: str

    @classmethod
    def new(cls) -> LoginSecret:
        """A random one."""
        return cls(secrets.token_urlsafe(32))

    @property
    def state(self) -> str:
        """The `state` parameter, which the provider's answer must repeat."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """The `nonce` that the ID token must hold."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """The code verifier of PKCE."""
        return self._derived("verifier")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.text.encode(), purpose.encode(), hashlib.sha256).hexdigest()


class Person(NamedTuple):
    """Someone whom the provider knows.

    Attributes
    ----------
    id
        Pseudonym, by issuer and subject.
    name
        The e-mail address, if the provider has verified it; else the subject.
    groups
        Values of the claim that roles go by.
    """

    id: str
    name: str
    groups: tuple[str, ...]


def claim_values(claims: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """Texts of a claim; of `a.b` also those of the member b of the claim a.

    >>> claim_values({"realm_access": {"roles": ["admins", 3]}}, "realm_access.roles")
    ('admins',)
    >>> claim_values({"https://a.example/group": "staff"}, "https://a.example/group")
    ('staff',)
    """
    found: object = claims.get(claim)
    if found is None:
        found = claims
        for name in claim.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    values = found if isinstance(found, list) else [found]
    return tuple(value for value in values if isinstance(value, str))
