"""API keys over HTTP: created, listed and revoked by who may; never more than that one may."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from models.audit_entries import AuditEntry
from models.errors import Unavailable
from tests.access.api_key_fixtures import EVENT, KeyedApi, keyed_api
from tests.api_server import Reply, accepting_publisher, run_api

ALL = ("send", "read", "manage", "operate")
OWN = "Origin: http://localhost"


class Kafka:
    """An audit log in memory."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.is_away = False

    async def write(self, entry: AuditEntry) -> None:
        """Keep an entry."""
        if self.is_away:
            raise Unavailable("Kafka does not answer")
        self.entries.append(entry)

    async def read(self, n: int) -> list[AuditEntry]:
        """The newest entries."""
        return self.entries[-n:]


class Keys(NamedTuple):
    """An API with its audit log."""

    api: KeyedApi
    kafka: Kafka

    def ask(self, key: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer of a request with a key."""
        sent = b"" if body is None else json.dumps(body).encode()
        reply = self.api.ask(method, path, f"X-Api-Key: {key}", body=sent)
        return reply.status, json.loads(reply.body)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    """An API that asks for keys."""
    kafka = Kafka()
    publisher = accepting_publisher(audit=kafka.write, audit_entries=kafka.read)
    with keyed_api(tmp_path_factory.mktemp("keys"), kafka=publisher) as made:
        yield Keys(made, kafka)


def test_a_key_is_created_listed_and_revoked(one: Keys) -> None:
    """It works at once, its secret is in no other answer, and the log says who made it."""
    made, admin = one.api.made(*ALL)
    asked = {"name": "shop pages", "roles": ["send", "read"], "origins": ["https://shop.example"],
             "days": 2, "perSecond": 5.5, "perDay": 100}  # fmt: skip
    status, created = one.ask(admin, "POST", "/keys", asked)
    assert status == 200
    key, secret = created["key"], created["secret"]
    assert secret.startswith(f"srk_{key['id']}_")
    assert (key["groups"], key["madeBy"], key["perSecond"]) == (["shop"], made.id, 5.5)
    assert abs(key["expiresAt"] - time.time() - 2 * 86400) < 60
    headers = (f"X-Api-Key: {secret}", "Origin: https://shop.example")
    assert one.api.status("POST", "/events", *headers, body=EVENT) == 202
    assert one.api.status("POST", "/events", headers[0], body=EVENT) == 403

    _, listed = one.ask(admin, "GET", "/keys")
    assert next(each for each in listed["keys"] if each["id"] == key["id"]) == key
    assert secret[17:] not in json.dumps(listed)
    assert one.ask(admin, "DELETE", f"/keys/{key['id']}") == (200, {"revoked": 1})
    assert one.ask(admin, "DELETE", f"/keys/{key['id']}") == (200, {"revoked": 0})
    assert one.api.status("POST", "/events", *headers, body=EVENT) in {401, 403}
    _, audit = one.ask(admin, "GET", "/audit")
    newest = [(each["actor"], each["action"], each["targets"][0]) for each in audit["entries"][:2]]
    assert newest == [(made.id, "revoke_key", key["id"]), (made.id, "create_key", key["id"])]
    assert secret[17:] not in json.dumps(audit)


@pytest.mark.parametrize(
    ("roles", "groups", "asked"),
    [
        (("operate",), ("shop",), {"roles": ["manage"]}),
        (("operate",), ("shop",), {"roles": ["operate", "read"]}),
        (ALL, ("shop",), {"roles": ["read"], "groups": ["*"]}),
        (ALL, ("shop",), {"roles": ["read"], "groups": ["shop", "films"]}),
        (ALL, ("shop", "films"), {"roles": ["read"], "groups": ["*"]}),
    ],
)
def test_nobody_gives_more_than_they_have(
    one: Keys, roles: tuple[str, ...], groups: tuple[str, ...], asked: dict[str, Any]
) -> None:
    """No role, and no dataset group."""
    key = one.api.key(*roles, groups=groups)
    n = len(one.kafka.entries)
    status, answer = one.ask(key, "POST", "/keys", {"name": "more", **asked})
    assert (status, answer["error"]["type"]) == (403, "forbidden")
    assert len(one.kafka.entries) == n


def test_a_key_that_ends_makes_none_that_stays(one: Keys) -> None:
    """Nor one that ends later, by its session either."""
    ends_s = time.time() + 3600
    key = one.api.key(*ALL, expires_s=ends_s)
    form = "Content-Type: application/x-www-form-urlencoded"
    login = one.api.ask("POST", "/login", form, OWN, body=f"key={key}&next=/".encode())
    cookie = "Cookie: " + login.headers["set-cookie"].partition(";")[0]
    body = {"name": "longer", "roles": ["read"], "days": 30}
    by_session = one.api.ask("POST", "/keys", cookie, OWN, body=json.dumps(body).encode())
    for created in (one.ask(key, "POST", "/keys", body)[1], json.loads(by_session.body)):
        assert created["key"]["expiresAt"] == pytest.approx(ends_s, abs=1)
    del body["days"]
    assert one.ask(key, "POST", "/keys", body)[1]["key"]["expiresAt"] == pytest.approx(ends_s)


def test_other_groups_are_not_seen(one: Keys) -> None:
    """Neither their keys, nor what the audit log says of them, nor whether a key exists."""
    everywhere, all_groups = one.api.made(*ALL, groups=("*",))
    foreign = one.api.made("read", groups=("films",))[0]
    key = one.api.key(*ALL)
    one.ask(all_groups, "POST", "/keys", {"name": "f", "roles": ["read"], "groups": ["films"]})
    one.ask(all_groups, "POST", "/keys", {"name": "both", "roles": ["read"], "groups": ["*"]})

    listed = {each["id"] for each in one.ask(key, "GET", "/keys")[1]["keys"]}
    assert not listed & {everywhere.id, foreign.id}
    assert {everywhere.id, foreign.id} <= {
        each["id"] for each in one.ask(all_groups, "GET", "/keys")[1]["keys"]
    }
    for key_id in (everywhere.id, foreign.id, "0" * 12):
        assert one.ask(key, "DELETE", f"/keys/{key_id}") == (200, {"revoked": 0})
    assert {each["group"] for each in one.ask(key, "GET", "/audit")[1]["entries"]} <= {"shop"}
    groups = {each["group"] for each in one.ask(all_groups, "GET", "/audit")[1]["entries"]}
    assert {"", "films"} <= groups


def test_a_page_of_another_site_makes_no_key(one: Keys) -> None:
    """The login counts for own pages; a form of another site is refused."""
    key = one.api.key(*ALL)
    form = "Content-Type: application/x-www-form-urlencoded"
    login = one.api.ask("POST", "/login", form, OWN, body=f"key={key}&next=/".encode())
    cookie = "Cookie: " + login.headers["set-cookie"].partition(";")[0]
    body = json.dumps({"name": "forged", "roles": ["read"]}).encode()
    text = "Content-Type: text/plain"

    def made(*headers: str) -> Reply:
        return one.api.ask("POST", "/keys", cookie, text, *headers, body=body)

    for header in ("Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
        assert made(header).status in {401, 403}
    assert made().status == 401
    assert made(OWN).status == 200


def test_nothing_is_done_that_is_not_in_the_log(one: Keys) -> None:
    """Without Kafka no key is made; and wrong ones are refused with a reason."""
    admin = one.api.key(*ALL)
    one.kafka.is_away = True
    try:
        before = len(one.ask(admin, "GET", "/keys")[1]["keys"])
        assert one.ask(admin, "POST", "/keys", {"name": "a", "roles": ["read"]})[0] == 503
        assert len(one.ask(admin, "GET", "/keys")[1]["keys"]) == before
    finally:
        one.kafka.is_away = False
    refused: list[dict[str, Any]] = [
        {"roles": ["root"]},
        {"roles": []},
        {"name": "a\nb"},
        {"name": ""},
        {"origins": ["https://shop.example/path"]},
        {"origins": ["https://shop.example"], "roles": ["manage"]},
        {"days": 0},
        {"perSecond": -1},
        {"groups": ["a b"]},
        {"groups": ["shop\n"]},
        {"secret": "mine"},
    ]
    for wrong in refused:
        status, answer = one.ask(admin, "POST", "/keys", {"name": "a", "roles": ["read"], **wrong})
        assert (status, answer["error"]["type"]) == (400, "invalid_request"), wrong


def test_an_open_api_makes_keys_and_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As it does everything for everybody; but a key outlives that, so the log has it."""
    kafka = Kafka()
    publisher = accepting_publisher(audit=kafka.write, audit_entries=kafka.read)
    with run_api(tmp_path_factory.mktemp("open"), kafka=publisher) as api:
        one = KeyedApi(api, None)  # type: ignore[arg-type]
        made = one.ask("POST", "/keys", body=b'{"name": "first", "roles": ["manage"]}')
        assert made.status == 200
    assert [(each.actor, each.name, each.action) for each in kafka.entries] == [
        ("", "everybody", "create_key")
    ]
