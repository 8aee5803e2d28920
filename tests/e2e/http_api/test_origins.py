"""Hosts and origins: protection against DNS rebinding and other sites' pages."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api_server import Api, request, run_api

EVENT = b'{"sessionId":"s","eventList":[{"eventType":"click","itemId":"i","sentAt":1700000000.0}]}'


@pytest.fixture(scope="module")
def one(tmp_path_factory: Any) -> Iterator[Api]:
    """An API with a host name, and an allowed origin."""
    with run_api(
        tmp_path_factory.mktemp("api"),
        allowed_hosts=["api.example", "*.inside.example"],
        cors_origins=["https://shop.example"],
        after_timeout_s=0.1,
    ) as made:
        yield made


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost", True),
        ("LocalHost.:8080", True),
        ("app.localhost:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("10.1.2.3", True),
        ("api.example", True),
        ("a.b.inside.example:80", True),
        (socket.gethostname(), True),
        ("inside.example", False),
        ("evilinside.example", False),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example, localhost", False),
        ("[::1", False),
        ("localhost:port", False),
        ("", False),
    ],
)
def test_only_known_names_are_answered(one: Api, host: str, is_allowed: bool) -> None:
    """Another name that points here is refused, for reads too; an address is not."""
    for path in ("/healthz", "/recommend", "/", "/metrics"):
        reply = one.get(path, f"Host: {host}")
        assert reply.status == (200 if is_allowed else 403)
        assert is_allowed or b'"type":"host_not_allowed"' in reply.body


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ([], True),
        (["Origin: http://localhost"], True),
        (["Origin: https://api.example", "Host: api.example"], True),
        (["Origin: http://localhost:8080", "Host: localhost:8080"], True),
        (["Origin: https://shop.example"], True),
        (["Origin: https://shop.example", "Sec-Fetch-Site: cross-site"], True),
        (["Sec-Fetch-Site: same-origin"], True),
        (["Sec-Fetch-Site: none"], True),
        (["Origin: https://evil.example"], False),
        (["Origin: http://shop.example"], False),
        (["Origin: https://shop.example.evil.example"], False),
        (["Origin: http://localhost:3000", "Host: localhost:8080"], False),
        (["Origin: null"], False),
        (["Origin: file://"], False),
        (["Origin: "], False),
        (["Sec-Fetch-Site: cross-site"], False),
        (["Sec-Fetch-Site: same-site"], False),
        (["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], False),
    ],
)
def test_only_own_and_listed_pages_may_write(
    one: Api, headers: list[str], is_allowed: bool
) -> None:
    """Pages of other sites are refused before any work, with every content type."""
    plain = "Content-Type: text/plain"
    for path, body in (("/events", EVENT), ("/personalize/events", b"{}")):
        reply = one.ask(request(path, plain, *headers, method="POST", body=body))
        if path == "/events":
            assert reply.status == (202 if is_allowed else 403)
            assert is_allowed or b'"type":"origin_not_allowed"' in reply.body
        else:
            is_refused = reply.headers["x-amzn-errortype"] == "AccessDeniedException"
            assert is_refused is not is_allowed
    erased = one.get("/users/u", *headers, method="DELETE")
    assert erased.status == (202 if is_allowed else 403)


def test_other_sites_cannot_cause_answers(one: Api) -> None:
    """Answers leave impressions: images of other sites get none; links may be followed."""
    for path in ("/recommend", "/similar/x"):
        assert one.get(path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors").status == 403
        assert one.get(path, "Origin: https://evil.example").status == 403
        assert one.get(path, "Origin: https://shop.example").status == 200
        assert one.get(path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate").status == 200


def test_everything_can_be_allowed(tmp_path_factory: Any) -> None:
    """An asterisk allows every name and every origin."""
    folder = tmp_path_factory.mktemp("api")
    with run_api(folder, allowed_hosts=["*"], cors_origins=["*"]) as one:
        reply = one.get("/recommend", "Host: any.example", "Origin: https://evil.example")
        assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, "*")
        assert one.get("/recommend", "Sec-Fetch-Site: cross-site").status == 200
