"""A provider of OpenID Connect in this process, whose answers a test can alter."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "recommender", "s3cret"


@dataclass
class OidcServer:
    """A provider that logs everybody in as `claims` say.

    Attributes
    ----------
    alter
        Changes the claims of the next ID token.
    sign
        Makes an ID token of claims.
    answers
        Bodies by path that are sent instead of the provider's own.
    asked
        Paths of all requests.
    """

    issuer: str
    key: RSAKey
    claims: dict[str, Any] = field(default_factory=dict)
    alter: Callable[[dict[str, Any]], None] = lambda _: None
    sign: Callable[[dict[str, Any]], str] = lambda _: ""
    answers: dict[str, bytes] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def signed(self, claims: dict[str, Any], key: RSAKey | None = None, alg: str = "RS256") -> str:
        """An ID token."""
        key = key or self.key
        return jwt.encode({"alg": alg, "kid": key.kid}, claims, key, algorithms=[alg])

    def with_public_key_as_secret(self, claims: dict[str, Any]) -> str:
        """A token by HS256, with the public key, which everybody has, as the secret."""
        parts = ({"alg": "HS256", "kid": self.key.kid}, claims)
        text = ".".join(_packed(json.dumps(one).encode()) for one in parts)
        signature = hmac.digest(self.key.as_pem(private=False), text.encode(), "sha256")
        return f"{text}.{_packed(signature)}"

    def unsigned(self, claims: dict[str, Any]) -> str:
        """A token by the algorithm `none`."""
        parts = ({"alg": "none", "kid": self.key.kid}, claims)
        return ".".join([*(_packed(json.dumps(one).encode()) for one in parts), ""])

    def log_in(self, url: str) -> str:
        """Query of the answer that a browser brings back from the address of a login."""
        asked = {name: value[0] for name, value in parse_qs(urlsplit(url).query).items()}
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_hex(8)
        self.codes[code] = asked
        return f"code={code}&state={asked['state']}"

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/logout",
        }

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The token endpoint's answer; a code counts once."""
        if b64decode(authorization.partition(" ")[2]) != f"{CLIENT_ID}:{CLIENT_SECRET}".encode():
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or asked["code_challenge"] != _packed(verifier)
            or asked["redirect_uri"] != form.get("redirect_uri")
        ):
            return 400, {"error": "invalid_grant"}
        now_s = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT_ID, "sub": "ada", "iat": now_s, "exp": now_s + 300,
            "nonce": asked["nonce"], **self.claims,
        }  # fmt: skip
        self.alter(claims)
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": self.sign(claims)}

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        self.asked.append(path)
        if self.hangs.is_set():
            self.ended.wait(60)
        if path in self.answers:
            return 200, self.answers[path]
        if path == "/token":
            status, found = self.exchange(form, authorization)
        elif path == "/keys":
            status, found = 200, {"keys": [{"kty": "?"}, self.key.as_dict(private=False)]}
        else:
            status, found = 200, self.discovery()
        return status, json.dumps(found).encode()


@contextlib.contextmanager
def oidc_server() -> Iterator[OidcServer]:
    """A running provider."""
    served: list[OidcServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["content-length"])))

        def _answer(self, body: bytes) -> None:
            form = {name: value[0] for name, value in parse_qs(body.decode()).items()}
            authorization = self.headers.get("authorization", "")
            status, answer = served[0].answer(self.path, form, authorization)
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        key = RSAKey.generate_key(2048, auto_kid=True)
        one = OidcServer(f"http://127.0.0.1:{server.server_port}", key)
        one.sign = one.signed
        served.append(one)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield one
        finally:
            one.ended.set()
            server.shutdown()
            thread.join()


def _packed(text: bytes) -> str:
    return urlsafe_b64encode(text).rstrip(b"=").decode()
