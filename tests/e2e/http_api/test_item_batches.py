"""Many items in one request, a line each: all in effect, bad lines reported, and bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.routes.item_batches import MAX_ERRORS, MAX_LINE_BYTES
from models.errors import MessageRefused, Unavailable
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.tokens import TopicKind
from tests.api_server import FakePublisher
from tests.stack import Stack

PATH = "/items/batch"


def lines(*records: tuple[str, Any]) -> bytes:
    """Records, a line each."""
    return b"".join(
        json.dumps({"itemId": name, "properties": found}).encode() + b"\n"
        for name, found in records
    )


def test_ten_thousand_items_take_effect(running: Stack) -> None:
    """All of one request, once the token says so."""
    records = [(f"bulk-{n}", {"PRICE": n, "TITLE": "x" * 200}) for n in range(10_000)]

    status, answer = running.ask("POST", PATH, lines(*records))

    assert (status, answer["accepted"], answer["refused"]) == (202, 10_000, 0)
    running.wait(
        lambda: running.ask("GET", f"/items/bulk-9999?after={answer['after']}")[0] == 200,
        "the last item is in effect",
    )
    found = [running.ask("GET", f"/items/bulk-{n}")[1]["properties"]["PRICE"] for n in (0, 9999)]
    assert found == [0, 9999]


def test_bad_lines_are_refused_alone(running: Stack) -> None:
    """Each with its number and the reason; blank lines count as lines, and as nothing else."""
    good = lines(("line-a", {"PRICE": 1}))
    body = b"\n".join(
        [good.strip(), b"", b"{bad", b'{"itemId": "", "properties": {}}', b'{"itemId": "x"}',
         lines(("line-b", {"EXPIRES_AT": "soon"})).strip(), b"\xff", b"x" * (MAX_LINE_BYTES + 1),
         b'{"itemId": "line-c", "properties": {"A": [1]}}', lines(("line-d", {})).strip()]
    )  # fmt: skip

    status, answer = running.ask("POST", PATH, body)

    assert (status, answer["accepted"], answer["refused"]) == (207, 2, 7)
    assert [one["line"] for one in answer["errors"]] == [3, 4, 5, 6, 7, 8, 9]
    assert "EXPIRES_AT" in answer["errors"][3]["message"]
    assert running.ask("GET", f"/items/line-a?after={answer['after']}")[0] == 200


@pytest.mark.parametrize("body", [b"", b"\n \n", b"{bad\n", b"[]"])
def test_nothing_good_is_an_error(running: Stack, body: bytes) -> None:
    """Of the kind that a bad record of PUT /items is."""
    status, answer = running.ask("POST", PATH, body)

    assert (status, answer["error"]["type"]) == (400, "invalid_record")


class Api:
    """The route in front of a publisher that a test provides."""

    def __init__(self, put: Any) -> None:
        async def nothing(*_: object) -> str:
            raise AssertionError

        async def empty() -> dict[TopicKind, str]:
            return {}

        async def none() -> list[str]:
            return []

        settings = Settings(redis="redis://127.0.0.1:1", max_batch_body_bytes=2_000_000)
        store = Store(connect(settings.redis), settings)
        app = create_app(settings, store, FakePublisher(nothing, put, empty, none))
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")

    async def post(self, content: bytes | AsyncIterator[bytes]) -> SimpleNamespace:
        """Status and body of an answer."""
        answer = await self.client.post(PATH, content=content)
        return SimpleNamespace(status=answer.status_code, body=answer.json())


async def test_lines_are_sent_while_others_still_come() -> None:
    """However they are cut into parts; no more is held than a few hundred."""
    sent: list[tuple[str, Any]] = []
    came = 0

    async def put(_kind: str, _group: str, records: Sequence[tuple[str, Any]]) -> str:
        assert came - len(sent) <= 400
        sent.extend(records)
        return f"i0-{len(sent)}"

    async def body() -> AsyncIterator[bytes]:
        nonlocal came
        text = lines(*((f"i{n}", {"N": n}) for n in range(3000)))
        for at in range(0, len(text), 997):
            yield text[at : at + 997]
            came = text[: at + 997].count(b"\n")

    answer = await Api(put).post(body())

    assert (answer.status, answer.body["accepted"]) == (202, 3000)
    assert sent == [(f"i{n}", {"N": n}) for n in range(3000)]
    assert answer.body["after"] == "i0-3000"


async def test_more_than_ten_thousand_items_are_refused_line_by_line() -> None:
    """What came before is accepted; the report is bounded, its numbers are not."""

    async def put(*_: object) -> str:
        return "i0-1"

    answer = await Api(put).post(lines(*((f"i{n}", {}) for n in range(12_000))))

    assert (answer.status, answer.body["accepted"], answer.body["refused"]) == (207, 10_000, 2000)
    assert len(answer.body["errors"]) == MAX_ERRORS
    assert answer.body["errors"][0]["line"] == 10_001


async def test_a_failure_in_between_says_where_to_go_on() -> None:
    """The lines before are accepted, and those from one on are not."""
    calls = 0

    async def put(_kind: str, _group: str, _records: Sequence[object]) -> str:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise Unavailable("Kafka does not answer")
        return "i0-1"

    answer = await Api(put).post(lines(*((f"i{n}", {}) for n in range(1000))))

    assert answer.status == 503
    assert "500 items are accepted; from line 501 on" in answer.body["error"]["message"]


async def test_a_record_that_the_topic_refuses_is_refused_alone() -> None:
    """The topic may take shorter messages than the API."""

    async def put(_kind: str, _group: str, records: Sequence[tuple[str, Any]]) -> str:
        if any(name == "long" for name, _ in records):
            raise MessageRefused("the topic takes shorter messages")
        return "i0-1"

    answer = await Api(put).post(lines(("a", {}), ("long", {}), ("b", {})))

    assert (answer.status, answer.body["accepted"]) == (207, 2)
    assert answer.body["errors"] == [{"line": 2, "message": "the topic takes shorter messages"}]


async def test_a_body_beyond_its_bound_is_refused() -> None:
    """However many good lines it has."""

    async def put(*_: object) -> str:
        return "i0-1"

    answer = await Api(put).post(lines(*((f"i{n}", {"A": "x" * 1000}) for n in range(3000))))

    assert (answer.status, answer.body["error"]["type"]) == (413, "too_large")
