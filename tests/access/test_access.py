"""Who may call what: roles, groups, public keys, and the tricks of those who may not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.access.roles import NATIVE
from models.api_keys import Role
from models.state.tenants import Tenants
from tests.access.api_key_fixtures import EVENT, KeyedApi, keyed_api
from tests.api_server import request, wait_for

SHOP = "https://shop.example"

BODIES = {
    ("POST", "/events"): EVENT,
    ("POST", "/rank"): b'{"itemIds": ["a", "b"]}',
    ("PUT", "/items"): b'{"items": [{"itemId": "i", "properties": {}}]}',
    ("PUT", "/users"): b'{"users": [{"userId": "u", "properties": {}}]}',
}

NEEDS_KAFKA = {"/dead-letters", "/live/events", "/status"}
"""Routes that read Kafka, which this API has not."""

FILES = {"/docs/assets": "/docs/assets/swagger-ui.css", "/static": "/static/shop.js"}
"""A file of each folder."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedApi]:
    """An API that asks for keys; each test makes its own."""
    with keyed_api(tmp_path_factory.mktemp("keys")) as made:
        yield made


@pytest.fixture(scope="module")
def keys(one: KeyedApi) -> dict[Role, str]:
    """A key with each role."""
    return {role: one.key(role) for role in Role}


def kind(reply: Any) -> str:
    """The type of an error."""
    found: str = json.loads(reply.body)["error"]["type"]
    return found


# The login answers 401 by itself: test_login.py.
@pytest.mark.parametrize(("method", "path"), sorted(NATIVE.keys() - {("POST", "/login")}))
def test_each_route_asks_for_its_role(
    one: KeyedApi, keys: dict[Role, str], method: str, path: str
) -> None:
    """A key with the role passes, all other keys and callers without a key do not."""
    needed = NATIVE[method, path]
    path = path.replace("{item_id}", "x").replace("{user_id}", "x")
    path = path.replace("{after}", "c0-1")
    path = FILES.get(path, path)
    body = BODIES.get((method, path), b"")

    statuses = {
        role: one.status(method, path, f"X-Api-Key: {text}", body=body)
        for role, text in keys.items()
    }
    nobody = one.status(method, path, body=body)

    passed = {role for role, status in statuses.items() if status not in {401, 403}}
    assert passed == ({needed} if needed else set(Role))
    if path in NEEDS_KAFKA:
        statuses = {role: status for role, status in statuses.items() if status != 503}
    assert all(status < 500 for status in statuses.values())
    assert (nobody == 401) is (needed is not None)


@pytest.mark.parametrize(
    "header", ["X-Api-Key: {}", "Authorization: Bearer {}", "authorization: bearer  {}"]
)
def test_a_key_comes_in_either_header(one: KeyedApi, keys: dict[Role, str], header: str) -> None:
    """Both headers do, with any other scheme of authorization beside X-Api-Key."""
    sent = header.format(keys[Role.READ])
    assert one.status("GET", "/recommend", sent) == 200
    if sent.startswith("X-"):
        assert one.status("GET", "/recommend", sent, "Authorization: Basic YTpi") == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "//recommend"), ("GET", "/recommend/"), ("GET", "/Recommend"),
        ("GET", "/%72ecommend"), ("GET", "/./recommend"), ("GET", "/x/../recommend"),
        ("GET", "/recommend%00"), ("GET", "/recommend%2f"), ("GET", "/recommend;x"),
        ("GET", "/recommend%20"), ("GET", "/recommend%3fuser_id=u"),
        ("GET", "/recommend?user_id=u#x"),
        ("GET", "http://localhost/recommend"), ("GET", "http://localhost//recommend"),
        ("HEAD", "/recommend"), ("PATCH", "/recommend"), ("TRACE", "/recommend"),
        ("POST", "/recommend"), ("POST", "//events"), ("POST", "/events/"), ("POST", "/EVENTS"),
        ("POST", "/%65vents"), ("POST", "/e%76ents"), ("POST", "/%2e/events"),
        ("GET", "/events"), ("PUT", "/events"), ("GET", "/metrics/"), ("HEAD", "/metrics"),
        ("GET", "/%6detrics"), ("GET", "/docs/assets/../../metrics"),
        ("GET", "/docs/assets/%2e%2e/%2e%2e/metrics"), ("DELETE", "/users/"),
        ("DELETE", "/users/u/"), ("DELETE", "//users/u"), ("DELETE", "/users/u%2f.."),
        ("GET", "/personalize/../recommend"), ("GET", "/personalize%2f..%2frecommend"),
        ("GET", "/openapi.json"), ("GET", "/no-such-route"),
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_around_the_check(one: KeyedApi, method: str, path: str) -> None:
    """Without a key nothing is answered, however its path or method is written."""
    reply = one.ask(method, path, body=EVENT if method in {"POST", "PUT"} else b"")

    # 307: the same path without its slash. 400: no HTTP. Under /personalize it is AWS's error.
    assert reply.status in {400, 401, 403, 404}
    if reply.status == 404:
        assert path.startswith("/docs/assets/") or b"__type" in reply.body


def test_other_requests_show_nothing(one: KeyedApi) -> None:
    """OPTIONS tells methods only, an upgrade to websockets is refused, CONNECT is no route."""
    options = one.ask("OPTIONS", "/recommend")
    assert (options.status, options.body) == (204, b"")
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip
    assert one.status("GET", "/recommend", *upgrade) == 401
    assert one.status("CONNECT", "localhost:80") in {400, 401, 403, 404}


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "srk_", "x" * 60, "srk_" + "0" * 12 + "_" + "a" * 43,
        "{}x", "{:.59}", "x{}", "{}\x00", "Bearer {}", '"{}"', "{},{}", "é",
    ],
)  # fmt: skip
def test_wrong_keys_are_refused(one: KeyedApi, keys: dict[Role, str], text: str) -> None:
    """Empty, cut, longer, quoted and doubled keys are none."""
    key = keys[Role.READ]
    sent = text.replace("{:.59}", key[:-1]).replace("{}", key)

    assert one.status("GET", "/recommend", f"X-Api-Key: {sent}") in {400, 401}
    assert one.status("GET", "/recommend", f"Authorization: Bearer {sent}") in {400, 401}


def test_the_secret_of_one_key_does_not_fit_the_id_of_another(
    one: KeyedApi, keys: dict[Role, str]
) -> None:
    """A key is checked as a whole."""
    read, operate = keys[Role.READ], keys[Role.OPERATE]

    assert one.status("GET", "/metrics", f"X-Api-Key: {operate[:17]}{read[17:]}") == 401
    assert one.status("GET", "/metrics", f"X-Api-Key: {read[:17]}{operate[17:]}") == 401


def test_doubled_headers_are_refused(one: KeyedApi, keys: dict[Role, str]) -> None:
    """Two keys, two origins, or two different headers with keys are no request."""
    read, operate = keys[Role.READ], keys[Role.OPERATE]
    for headers in (
        (f"X-Api-Key: {read}", f"X-Api-Key: {operate}"),
        (f"X-Api-Key: {read}", f"X-Api-Key: {read}"),
        (f"Authorization: Bearer {read}", f"Authorization: Bearer {operate}"),
        (f"X-Api-Key: {read}", f"Authorization: Bearer {operate}"),
        (f"X-Api-Key: {read}", "Origin: http://localhost", "Origin: http://localhost"),
        (f"X-Api-Key: {read}", "Cookie: a=b", "Cookie: c=d"),
    ):
        assert one.status("GET", "/recommend", *headers) == 400
    both = (f"X-Api-Key: {read}", f"Authorization: Bearer {read}")
    assert one.status("GET", "/recommend", *both) == 200


@pytest.mark.parametrize(
    "header",
    ["X-Api-Key:{0}\r\n X-Other: a", "X-Api-Key : {0}", " X-Api-Key: {0}",
     "X-Api-Key: a\rX-Api-Key: {0}",
     "X-Other: a\nX-Api-Key: {0}", "X-Other: a\0X-Api-Key: {0}"],
)  # fmt: skip
def test_split_headers_hold_no_key(one: KeyedApi, keys: dict[Role, str], header: str) -> None:
    """A header that other software could read otherwise is not taken for a key."""
    sent = request("/metrics").replace(
        b"\r\n\r\n", b"\r\n" + header.format(keys[Role.OPERATE]).encode() + b"\r\n\r\n"
    )

    assert one.api.ask(sent).status in {400, 401}


def test_a_key_is_for_one_request(one: KeyedApi, keys: dict[Role, str]) -> None:
    """The next one on the connection needs its own; a key in the address is none."""
    text = keys[Role.READ]
    with one.api.client() as client:
        client.send(request("/recommend", f"X-Api-Key: {text}") + request("/recommend"))
        assert [client.reply().status, client.reply().status] == [200, 401]
    for name in ("api_key", "x-api-key", "access_token", "key"):
        assert one.status("GET", f"/recommend?{name}={text}") == 401


def test_a_key_that_is_too_long_is_a_head_that_is_too_long(one: KeyedApi) -> None:
    """Neither header of a key is unbounded."""
    assert one.status("GET", "/recommend", f"X-Api-Key: {'k' * 40_000}") == 431
    assert one.status("GET", "/recommend", f"X-Api-Key: {'k' * 20_000}") == 401


def test_a_key_is_for_its_groups(one: KeyedApi) -> None:
    """A key of another group neither reads nor sends here; by tracking id it sends there."""
    one.on_redis(lambda client: Tenants(client, one.settings).register("garden-id", "garden"))
    other = f"X-Api-Key: {one.key('send', 'read', 'manage', 'operate', groups=('garden',))}"
    own = f"X-Api-Key: {one.key('send', 'read')}"
    everywhere = f"X-Api-Key: {one.key('send', groups=('*',))}"
    there = EVENT.replace(b"{", b'{"trackingId": "garden-id", ', 1)
    unknown = EVENT.replace(b"{", b'{"trackingId": "no-such-id", ', 1)

    for method, path in (("GET", "/recommend"), ("GET", "/metrics"), ("DELETE", "/users/u")):
        assert one.status(method, path, other) == 403
    assert one.status("POST", "/events", other, body=EVENT) == 403
    assert one.status("POST", "/events", other, body=there) == 202
    assert one.status("POST", "/events", own, body=EVENT) == 202
    assert one.status("POST", "/events", everywhere, body=there) == 202
    # What may not be sent to is not told from what does not exist.
    refused = [one.ask("POST", "/events", own, body=body) for body in (there, unknown)]
    assert [reply.status for reply in refused] == [400, 400]
    assert refused[0].body.replace(b"garden-id", b"no-such-id") == refused[1].body


def test_a_revoked_key_is_refused_within_seconds(one: KeyedApi) -> None:
    """Also by a process that has just accepted it."""
    key, text = one.made("read")
    assert one.status("GET", "/recommend", f"X-Api-Key: {text}") == 200

    one.revoke(key)
    one.wait_until_refused(text)


def test_a_key_ends_at_its_time(one: KeyedApi) -> None:
    """An expired key is refused."""
    text = one.key("read", expires_s=time.time() - 1)

    assert one.status("GET", "/recommend", f"X-Api-Key: {text}") == 401


def test_a_public_key_is_for_pages_of_its_origins(one: KeyedApi) -> None:
    """It sends and reads from them, and from nowhere else; CORS lets these pages read answers."""
    text = one.key("send", "read", origins=[SHOP, "http://localhost:3000"])
    key = f"X-Api-Key: {text}"
    preflight = (f"Origin: {SHOP}", "Access-Control-Request-Method: POST",
                 "Access-Control-Request-Headers: content-type,x-api-key")  # fmt: skip

    # A preflight has no key: it is answered once the keys have been read again.
    wait_for(lambda: one.status("OPTIONS", "/events", *preflight) == 200, "the origin is known")
    allowed = one.ask("OPTIONS", "/events", *preflight)
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, SHOP)
    assert "x-api-key" in allowed.headers["access-control-allow-headers"]
    read = one.ask("GET", "/recommend", key, f"Origin: {SHOP}")
    assert (read.status, read.headers["access-control-allow-origin"]) == (200, SHOP)
    assert one.status("POST", "/events", key, f"Origin: {SHOP.upper()}", body=EVENT) == 202
    # A page's reads from its own origin name none.
    own = ("Host: localhost:3000", "Sec-Fetch-Site: same-origin")
    assert one.status("GET", "/recommend", key, *own) == 200

    for headers in (
        (),
        ("Origin: http://localhost",),
        ("Origin: https://evil.example",),
        ("Origin: http://shop.example",),
        ("Origin: https://shop.example:444",),
        ("Origin: null",),
        ("Origin: ",),
        ("Sec-Fetch-Site: same-origin",),
        ("Host: localhost:3001", "Sec-Fetch-Site: same-origin"),
        ("Host: localhost:3000",),
        (f"Referer: {SHOP}/",),
        (f"X-Forwarded-Origin: {SHOP}",),
    ):
        assert one.status("GET", "/recommend", key, *headers) == 403, headers
        assert one.status("POST", "/events", key, *headers, body=EVENT) == 403, headers
    assert one.status("DELETE", "/users/u", key, f"Origin: {SHOP}") == 403
    refused = one.ask("OPTIONS", "/events", *preflight[1:], "Origin: https://evil.example")
    assert (refused.status, kind(refused)) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers


def test_pages_learn_why_they_are_refused(one: KeyedApi) -> None:
    """A refusal to a page that may call has the headers of CORS; to another page it has none."""
    page = f"Origin: {SHOP}"
    one.key("send", "read", origins=[SHOP])
    wait_for(lambda: one.status("GET", "/recommend", page) == 401, "the origin is known")
    reply = one.ask("GET", "/recommend", page)

    assert kind(reply) == "unauthenticated"
    assert reply.headers["access-control-allow-origin"] == SHOP
    assert reply.headers["www-authenticate"] == "Bearer"


def test_a_rate_is_kept(one: KeyedApi) -> None:
    """Beyond its burst a key is told how long to wait, and others go on."""
    slow = f"X-Api-Key: {one.key('read', requests_per_s=0.01)}"
    replies = [one.ask("GET", "/recommend", slow) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 429, 429]
    assert kind(replies[1]) == "rate_limited"
    assert 90 <= int(replies[1].headers["retry-after"]) <= 100
    assert one.status("GET", "/recommend", f"X-Api-Key: {one.key('read')}") == 200


@pytest.mark.parametrize("limit", [{"requests_per_s": 0.001}, {"requests_per_day": 1}])
def test_limits_hold_on_every_route(one: KeyedApi, limit: dict[str, Any]) -> None:
    """Also of questions by POST, bulk writes, streams of events and Amazon Personalize's API."""
    header = f"X-Api-Key: {one.key(*Role, **limit)}"
    assert one.status("GET", "/recommend", header) == 200
    routes = [*NATIVE, ("POST", "/personalize"), ("POST", "/personalize/recommendations")]
    for method, route in routes:
        path = FILES.get(route, re.sub(r"\{\w+\}", "x", route))
        reply = one.ask(method, path, header, body=BODIES.get((method, route), b""))
        assert reply.status == 429, (method, route)
        assert int(reply.headers["retry-after"]) >= 1


def test_a_quota_is_of_all_processes(tmp_path: Any) -> None:
    """What other processes have counted counts, once the keys were read again."""
    from models.state.groups.key_store import count_requests

    with keyed_api(tmp_path) as one:
        key, text = one.made("read", requests_per_day=100)
        header = f"X-Api-Key: {text}"
        assert one.status("GET", "/recommend", header) == 200
        day = int(time.time() // 86400)
        one.on_redis(lambda client: count_requests(client, {key.id: 100}, day=day))
        deadline_s = time.monotonic() + 30
        while (reply := one.ask("GET", "/recommend", header)).status == 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)

        assert (reply.status, kind(reply)) == (429, "rate_limited")
        assert 0 < int(reply.headers["retry-after"]) <= 86400


def test_readiness_shows_its_reasons_to_operators_only(
    one: KeyedApi, keys: dict[Role, str]
) -> None:
    """A probe learns whether it is ready; names of servers and warnings are for operators."""
    probe = json.loads(one.ask("GET", "/readyz").body)
    operator = json.loads(one.ask("GET", "/readyz", f"X-Api-Key: {keys[Role.OPERATE]}").body)

    assert probe == {"status": "ok", "missing": [], "unreadable": [], "warnings": []}
    assert operator["status"] == "ok"


def test_keys_are_hashed_at_rest(one: KeyedApi) -> None:
    """Redis holds no key, in whole or in part."""
    key, text = one.made("read")

    async def dump(client: Any) -> str:
        return repr(await client.hgetall("{recommender}:keys"))

    stored = one.on_redis(dump)
    assert key.id in stored
    assert text[17:] not in stored
    assert text[17:30] not in stored
