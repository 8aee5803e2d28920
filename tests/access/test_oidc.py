"""Login with a provider of OpenID Connect: its end, and everything that must not lead to it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import RSAKey

from api.access import oidc_provider
from api.access.oidc_flow import LoginSecret
from models.errors import InvalidSetting, Unavailable
from models.settings import Settings
from tests.access.api_key_fixtures import EVENT, KeyedApi, keyed_api
from tests.access.oidc_server import CLIENT_ID, CLIENT_SECRET, OidcServer, oidc_server
from tests.api_server import Reply, wait_for

HTML = "Accept: text/html,*/*"
OWN = "Origin: http://localhost"
BACK = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", HTML)
"""Headers with which a browser comes back from the provider."""

REDIRECT = "http://localhost/login/oidc/callback"
ROLES = {"admins": "send+read+manage+operate", "analysts": "read@shop"}


class Login(NamedTuple):
    """An API with a provider."""

    api: KeyedApi
    provider: OidcServer

    def begin(self, path: str = "/login/oidc") -> tuple[str, str]:
        """Address at the provider, and the cookie as a header."""
        reply = self.api.ask("GET", path, HTML)
        assert reply.status == 303
        return reply.headers["location"], cookie_of(reply)

    def end(self, query: str, *headers: str) -> Reply:
        """The answer to what a browser brings back."""
        return self.api.ask("GET", f"/login/oidc/callback?{query}", *BACK, *headers)

    def whole(self, path: str = "/login/oidc") -> Reply:
        """The answer at the end of a login."""
        url, cookie = self.begin(path)
        return self.end(self.provider.log_in(url), cookie)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    """An API that logs people in with a provider."""
    with (
        oidc_server() as provider,
        keyed_api(
            tmp_path_factory.mktemp("oidc"),
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret=CLIENT_SECRET,
            oidc_redirect_url=REDIRECT,
            oidc_roles=ROLES,
        ) as api,
    ):
        yield Login(api, provider)


@pytest.fixture
def one(running: Login) -> Login:
    """The API, with a provider that says what is right."""
    provider = running.provider
    provider.claims = {"groups": ["staff", "admins"]}
    provider.alter, provider.sign = lambda _: None, provider.signed
    provider.answers.clear()
    return running


def cookie_of(reply: Reply) -> str:
    """The cookie that an answer sets, as a header; of several the first."""
    return "Cookie: " + reply.headers["set-cookie"].partition(";")[0]


def session_of(one: Login) -> str:
    """The cookie of a session."""
    url, cookie = one.begin()
    raw = raw_reply(one, one.provider.log_in(url), cookie)
    found = re.search(r"set-cookie: (recommender=srk_[^;]+);([^\r]*)", raw)
    assert found is not None, raw
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in found[2].split(";")}
    return f"Cookie: {found[1]}"


def raw_reply(one: Login, query: str, cookie: str) -> str:
    """An answer with every one of its headers."""
    with one.api.api.client() as client:
        lines = [f"GET /login/oidc/callback?{query} HTTP/1.1", "Host: localhost", *BACK, cookie]
        client.send("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        return client.rest().decode()


def test_a_person_logs_in(one: Login) -> None:
    """By the provider's page; with the roles of its groups, until logging out."""
    assert b'href="login/oidc?next=%2Fdocs"' in one.api.ask("GET", "/login?next=%2Fdocs", HTML).body
    url, cookie = one.begin("/login/oidc?next=%2Fconsole")
    assert url.startswith(f"{one.provider.issuer}/authorize?")
    assert cookie.removeprefix("Cookie: recommender-login=") not in url
    ended = one.end(one.provider.log_in(url), cookie)
    assert ended.status == 200
    assert b"url=../../console" in ended.body

    session = session_of(one)
    assert one.api.status("GET", "/docs", HTML, session) == 200
    assert one.api.status("POST", "/events", session, OWN, body=EVENT) == 202
    assert one.api.status("POST", "/events", session, body=EVENT) == 401
    assert one.api.status("GET", "/live", session, "Origin: https://evil.example") == 403

    out = one.api.ask("POST", "/logout", session, OWN)
    assert (out.status, out.headers["location"]) == (303, "login/oidc/logout")
    assert one.api.status("GET", "/docs", session) == 401
    there = one.api.ask("GET", "/login/oidc/logout", HTML)
    assert f"{one.provider.issuer}/logout?client_id=recommender".encode() in there.body


def test_roles_follow_the_claim(one: Login) -> None:
    """The settings' first value counts; without one of them nobody is let in."""
    one.provider.claims = {"groups": "analysts"}
    session = session_of(one)
    assert one.api.status("GET", "/recommend", session, "Sec-Fetch-Site: same-origin") == 200
    assert one.api.status("DELETE", "/users/u", session, OWN) == 403
    for groups in ([], ["staff"], "ADMINS", {"admins": 1}, [["admins"]], None):
        one.provider.claims = {"groups": groups}
        reply = one.whole()
        assert (reply.status, b"has no role here" in reply.body) == (403, True)
        assert "recommender=srk_" not in reply.headers["set-cookie"]


def test_names_are_those_that_the_provider_has_verified(one: Login) -> None:
    """An address that anybody could have written into a profile does not reach the audit log."""
    for verified, name in ((True, "ada@shop.example"), (False, "ada"), ("true", "ada")):
        one.provider.claims |= {"email": "ada@shop.example", "email_verified": verified}
        shown = one.api.ask("GET", "/login", HTML, session_of(one)).body
        assert f"Logged in as {name}:".encode() in shown
    one.provider.claims |= {"email": "<script>\n", "email_verified": True}
    assert b"<script>" not in one.api.ask("GET", "/login", HTML, session_of(one)).body


def set_claim(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a claim, or removes it by None."""

    def alter(claims: dict[str, Any]) -> None:
        claims.pop(name, None)
        if value is not None:
            claims[name] = value

    return alter


@pytest.mark.parametrize(
    "alter",
    [
        set_claim("nonce", "another"),
        set_claim("nonce", None),
        set_claim("aud", "another"),
        set_claim("aud", []),
        set_claim("aud", None),
        set_claim("aud", [CLIENT_ID, "another"]),
        set_claim("azp", "another"),
        set_claim("iss", "https://evil.example"),
        set_claim("iss", None),
        set_claim("exp", int(time.time()) - 3600),
        set_claim("exp", None),
        set_claim("exp", "never"),
        set_claim("exp", 1e400),
        set_claim("iat", int(time.time()) + 3600),
        set_claim("nbf", int(time.time()) + 3600),
        set_claim("sub", None),
        set_claim("sub", ""),
        set_claim("sub", ["ada"]),
        set_claim("at_hash", "x"),
    ],
)
def test_a_token_for_another_login_is_refused(
    one: Login, alter: Callable[[dict[str, Any]], None]
) -> None:
    """Of another nonce, audience, issuer or time; or without."""
    one.provider.alter = alter
    reply = one.whole()
    assert (reply.status, b"ID token is not valid" in reply.body) == (403, True), reply.body


def test_a_token_that_the_provider_has_not_signed_is_refused(one: Login) -> None:
    """Unsigned, signed with the public key as a secret, by another key, or altered."""
    provider, other = one.provider, RSAKey.generate_key(2048, auto_kid=True)
    named = RSAKey.import_key(other.as_dict(private=True, kid=provider.key.kid))

    def altered(claims: dict[str, Any]) -> str:
        head, _, signature = provider.signed(claims).split(".")
        body = provider.signed({**claims, "sub": "eve"}).split(".")[1]
        return f"{head}.{body}.{signature}"

    for sign in (
        provider.unsigned,
        provider.with_public_key_as_secret,
        lambda claims: provider.signed(claims, named),
        lambda claims: provider.signed(claims, other),
        altered,
        lambda _: "",
        lambda _: "a.b.c",
        lambda _: "é" * 10,
        lambda _: "eyJhbGciOiJSUzI1NiJ9." * 4,
    ):
        provider.sign = sign
        reply = one.whole()
        assert reply.status == 403, sign
        assert b"ID token is not valid" in reply.body


def test_a_login_of_another_browser_is_refused(one: Login) -> None:
    """Without the cookie, with that of another login, or with a code that was used before."""
    url, cookie = one.begin()
    _, other = one.begin()
    query = one.provider.log_in(url)
    for headers in (
        (),
        (other,),
        ("Cookie: recommender-login=",),
        ("Cookie: recommender-login=é",),
    ):
        assert one.end(query, *headers).status == 403
    assert one.end(query.partition("&")[0], cookie).status == 403
    assert one.end(f"{query}0", cookie).status == 403
    assert one.provider.codes, "no code was handed on"

    assert one.end(query, cookie).status == 200
    replayed = one.end(query, cookie)
    assert (replayed.status, b"invalid_grant" in replayed.body) == (403, True)
    stolen, mine = one.provider.log_in(url), one.begin()
    state = parse_qs(urlsplit(mine[0]).query)["state"][0]
    injected = one.end(f"{stolen.partition('&')[0]}&state={state}", mine[1])
    assert (injected.status, b"invalid_grant" in injected.body) == (403, True)
    wrong = one.end(f"{one.provider.log_in(url)}&iss=https%3A%2F%2Fevil.example", cookie)
    assert (wrong.status, b"another provider" in wrong.body) == (403, True)


def test_what_the_provider_says_is_text(one: Login) -> None:
    """An error is shown as text, cut; and a code has a length."""
    url, cookie = one.begin()
    state = parse_qs(urlsplit(url).query)["state"][0]
    for query in (
        "error=%3Cscript%3E" + "x" * 500,
        "error=access_denied",
        f"code={'c' * 5000}",
        "",
    ):
        reply = one.end(f"{query}&state={state}", cookie)
        assert reply.status == 403
        assert b"<script>" not in reply.body
        assert b"x" * 200 not in reply.body


@pytest.mark.parametrize(
    "target", ["https://evil.example", "//evil.example", "/\\evil.example", "/metrics", "%22%3E"]
)
def test_a_login_leads_to_own_pages_only(one: Login, target: str) -> None:
    """Nor can a cookie that another wrote lead elsewhere."""
    assert b'url=../.././"' in one.whole(f"/login/oidc?next={target}").body
    url, cookie = one.begin()
    written = cookie.rpartition(".")[0] + "." + target
    assert b'url=../.././"' in one.end(one.provider.log_in(url), written).body


def test_new_keys_are_read_but_not_for_every_token(
    one: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider may change its keys; tokens of unknown ones do not make it be asked on and on."""
    one.whole()
    one.provider.key = RSAKey.generate_key(2048, auto_kid=True)
    asked = one.provider.asked.count("/keys")
    replies = {one.whole().status for _ in range(3)}
    assert one.provider.asked.count("/keys") - asked <= 1
    assert replies <= {200, 403}
    monkeypatch.setattr(oidc_provider, "AGAIN_S", 0.0)
    assert one.whole().status == 200


def test_a_provider_that_hangs_or_lies_ends_in_time(
    one: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 within the limit, for those who wait beside it as well; nothing else is held up."""
    monkeypatch.setattr(oidc_provider, "TIMEOUT_S", 0.3)
    url, cookie = one.begin()
    query = one.provider.log_in(url)
    one.provider.hangs.set()
    try:
        hung = one.end(query, cookie)
        assert (hung.status, b"in time" in hung.body) == (503, True)
        assert int(hung.headers["retry-after"]) >= 1
    finally:
        one.provider.hangs.clear()
        one.provider.ended.set()
    assert one.whole().status == 200

    for body in (b"[]", b"{}", b"\xff", b"[" * 100000, json.dumps({"id_token": 1}).encode()):
        one.provider.answers["/token"] = body
        assert one.whole().status == 403
    one.provider.answers["/token"] = b" " * (oidc_provider.MAX_ANSWER_BYTES + 1)
    assert one.whole().status == 503


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://evil.example/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
    ],
)
def test_a_discovery_that_is_not_the_issuers_counts_for_nothing(
    one: Login, wrong: dict[str, Any]
) -> None:
    """Nor do endpoints that secrets could be read from on the way."""
    provider = one.provider
    path = "/.well-known/openid-configuration"
    provider.answers[path] = json.dumps(provider.discovery() | wrong).encode()
    settings = one.api.settings

    async def ask() -> str:
        asked = oidc_provider.OidcProvider(settings)
        try:
            with pytest.raises(Unavailable) as refused:
                await asked.authorization_url(LoginSecret("a"))
            return str(refused.value)
        finally:
            await asked.close()

    assert re.search("no safe authorization_endpoint|no discovery document", asyncio.run(ask()))


def test_a_persons_session_is_listed_and_revoked(one: Login) -> None:
    """An operator sees it among the keys, and ends it by its id."""
    from models.state.groups import key_store

    session = session_of(one)
    listed = [key for key in one.api.on_redis(key_store.stored_keys) if key.is_of_person]
    mine = next(key for key in listed if key.id in session)
    assert mine.is_listed
    assert mine.parent.startswith("oidc:")
    one.api.revoke(mine)
    wait_for(lambda: one.api.status("GET", "/docs", session) == 401, "the session ends")


def test_sessions_of_persons_are_bounded(one: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many people log in, the oldest sessions end."""
    from models.state.groups import key_store

    monkeypatch.setattr(key_store, "MAX_PERSONS_SESSIONS", 2)
    for subject in ("a", "b", "c"):
        one.provider.claims["sub"] = subject
        session_of(one)
    assert sum(key.is_of_person for key in one.api.on_redis(key_store.stored_keys)) == 2


def test_without_a_provider_there_is_no_such_login() -> None:
    """Settings that do not go together are refused."""
    whole = {
        "oidc_issuer": "https://login.example",
        "oidc_client_id": "a",
        "oidc_redirect_url": "https://shop.example/login/oidc/callback",
        "oidc_roles": ROLES,
    }
    Settings(**whole)  # type: ignore[arg-type]
    for name, wrong in (
        ("oidc_issuer", "http://login.example"),
        ("oidc_issuer", "https://login.example/?a"),
        ("oidc_redirect_url", ""),
        ("oidc_roles", {"admins": "root"}),
        ("oidc_roles", {}),
        ("oidc_scope", "email"),
    ):
        with pytest.raises(ValueError, match=name):
            Settings(**{**whole, name: wrong})  # type: ignore[arg-type]


def test_an_open_api_has_no_login() -> None:
    """A provider in the settings of an API that asks nobody is refused at the start."""
    from api.app import create_app

    settings = Settings(
        oidc_issuer="https://login.example", oidc_client_id="a", oidc_roles=ROLES,
        oidc_redirect_url="https://shop.example/login/oidc/callback",
    )  # fmt: skip
    with pytest.raises(InvalidSetting, match="RECOMMENDER_ACCESS=keys"):
        create_app(settings, None, None)  # type: ignore[arg-type]
