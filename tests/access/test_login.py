"""Login of people in a browser: the cookie, what it counts for, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.access.api_key_fixtures import EVENT, KeyedApi, keyed_api
from tests.api_server import Reply, wait_for

HTML = "Accept: text/html,*/*"
FORM = "Content-Type: application/x-www-form-urlencoded"
OWN = "Origin: http://localhost"
OTHER = "Origin: https://sibling.localhost.example"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedApi]:
    """An API that asks for keys, and lets pages of another origin call."""
    with keyed_api(
        tmp_path_factory.mktemp("login"), cors_origins=["https://sibling.localhost.example"]
    ) as made:
        yield made


def log_in(one: KeyedApi, key: str, *headers: str, target: str = "/docs") -> Reply:
    """The answer to the form."""
    body = f"key={quote(key)}&next={quote(target, safe='')}".encode()
    return one.ask("POST", "/login", FORM, *(headers or (OWN,)), body=body)


def cookie_of(reply: Reply) -> str:
    """The cookie of a login, as a header."""
    return "Cookie: " + reply.headers["set-cookie"].partition(";")[0]


def test_pages_ask_for_a_login(one: KeyedApi) -> None:
    """A browser is led to the form and back to the page; programs get 401."""
    for path, target in (("/", "%2F"), ("/docs", "%2Fdocs")):
        led = one.ask("GET", path, HTML)
        assert (led.status, led.headers["location"]) == (303, f"login?next={target}")
        assert one.status("GET", path) == 401
    assert one.status("GET", "/recommend", HTML) == 401
    form = one.ask("GET", "/login?next=%2Fdocs", HTML)
    assert form.status == 200
    assert b'value="/docs"' in form.body
    assert "'unsafe-inline'" not in form.headers["content-security-policy"]

    reply = log_in(one, one.key("read", "send"))
    assert (reply.status, reply.headers["location"]) == (303, "docs")
    cookie = cookie_of(reply)
    assert one.status("GET", "/docs", HTML, cookie) == 200
    assert one.status("GET", "/recommend", cookie, "Sec-Fetch-Site: same-origin") == 200
    assert one.status("POST", "/events", cookie, OWN, body=EVENT) == 202
    assert one.status("DELETE", "/users/u", cookie, OWN) == 403
    assert b"Log out" in one.ask("GET", "/login", HTML, cookie).body


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/metrics", "", "/a\r\nb"],
)
def test_a_login_leads_to_own_pages_only(one: KeyedApi, target: str) -> None:
    """No link can lead from the form to another site."""
    assert log_in(one, one.key("read"), target=target).headers["location"] == "./"
    shown = one.ask("GET", f"/login?next={quote(target, safe='')}", HTML)
    assert b'value="/"' in shown.body


def test_the_cookie_is_out_of_reach(one: KeyedApi) -> None:
    """HttpOnly and SameSite always; over TLS, also a proxy's, Secure and bound to the host."""
    key = one.key("read")
    plain = log_in(one, key).headers["set-cookie"]
    secure = log_in(one, key, "Origin: https://localhost:443", "Host: localhost:443")
    safe = secure.headers["set-cookie"]

    assert plain.startswith("recommender=srk_")
    assert safe.startswith("__Host-recommender=srk_")
    for text in (plain, safe):
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(text.split("; "))
        assert key not in text
    assert "Secure" in safe.split("; ")
    assert one.status("GET", "/docs", cookie_of(secure)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Sec-Fetch-Site: none",),
        (OTHER,),
        (OTHER, "Sec-Fetch-Site: same-site"),
        ("Origin: http://localhost:9",),
        ("Origin: null",),
        ("Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate"),
    ],
)
def test_a_cookie_counts_for_own_pages_only(one: KeyedApi, headers: tuple[str, ...]) -> None:
    """What changes something needs a browser's word that this site's page sent it."""
    cookie = cookie_of(log_in(one, one.key("send", "read", "manage")))

    assert one.status("POST", "/events", cookie, *headers, body=EVENT) in {401, 403}
    assert one.status("DELETE", "/users/u", cookie, *headers) in {401, 403}
    assert one.status("DELETE", "/users/u", cookie, OWN) in {200, 202}


def test_wrong_and_public_keys_do_not_log_in(one: KeyedApi) -> None:
    """Nor does a session, nor a form of another site."""
    key = one.key("read")
    session = cookie_of(log_in(one, key)).partition("=")[2]
    public = one.key("read", origins=["http://localhost"])

    assert log_in(one, key[:-1] + "é").status == 401
    assert log_in(one, "").status == 401
    assert log_in(one, public).status == 403
    assert log_in(one, session).status == 403
    assert log_in(one, key, OTHER).status == 403
    assert log_in(one, key, "Origin: https://evil.example").status == 403
    assert one.status("GET", "/recommend", f"X-Api-Key: {session}") == 401
    assert one.status("GET", "/recommend", f"Cookie: recommender={key}") == 401


def test_a_session_ends(one: KeyedApi) -> None:
    """By logging out, and with its key."""
    key, text = one.made("read")
    cookie = cookie_of(log_in(one, text))
    assert one.status("POST", "/logout", cookie) == 303  # not of an own page: it stays
    assert one.status("GET", "/docs", cookie) == 200
    out = one.ask("POST", "/logout", cookie, OWN)
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert one.status("GET", "/docs", cookie) == 401

    second = cookie_of(log_in(one, text))
    assert one.status("GET", "/docs", second) == 200
    one.revoke(key)
    wait_for(lambda: one.status("GET", "/docs", second) == 401, "the session ends with its key")
    assert one.status("GET", "/login", second) == 200
