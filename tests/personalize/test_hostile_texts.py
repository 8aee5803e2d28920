"""Texts within valid requests that are languages of their own: schemas, filters, properties.

Each is built by its grammar, with a hostile part here and there, so that requests reach the end of
their operation and the events and records the worker.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.personalize.calls_fixtures import Caller
from tests.personalize.resource_fixtures import ARN
from tests.personalize.test_random import check
from tests.stack import Servers, Stack, deployment_as_before, make_stacks

WORDS = (
    "a",
    "é",
    "漢",
    "😀",
    "a|b",
    "||",
    "a" * 500,
    "\r\n",
    "'\"\\",
    "\u202e",
    "%s",
    "1e999",
    "\x7f",
)
"""Values that are texts, the second half odd ones."""

NUMBERS = ("0", "-0", "1.5", "1e308", "5e-324", "9223372036854775807", "-1e-7")
NO_NUMBERS = ("1e999", "NaN", "Infinity", "9" * 400, "0x10", "1_0", "+1", "1.")
NOT_FLAT = ("[]", "{}", "[1]", '{"a":1}', "[" * 300, '"\\ud800"', "null", "true", "", "'a'")


class Texts:
    """Random texts; about one in `hostile_every` parts is hostile."""

    def __init__(self, seed: int, *, hostile_every: int) -> None:
        self.chance = random.Random(seed)
        self._every = hostile_every

    def one(self, *good: str, hostile: tuple[str, ...]) -> str:
        """A part: mostly one of the good ones."""
        return self.chance.choice(hostile if self.chance.randrange(self._every) == 0 else good)

    def value(self) -> str:
        """A value as JSON."""
        return self.one(json.dumps(self.word()), *NUMBERS, hostile=(*NO_NUMBERS, *NOT_FLAT))

    def word(self) -> str:
        """A text."""
        return self.chance.choice(WORDS)

    def properties(self) -> str:
        """`properties` of an item or event."""
        names = (
            "GENRES",
            "PRICE",
            "TITLE",
            "CREATION_TIMESTAMP",
            "HIDDEN",
            "CATEGORY",
            "EMBEDDING",
        )
        pairs = (
            f"{json.dumps(self.one(*names, hostile=('', 'é', 'a' * 500, 'GENRES')))}:{self.value()}"
            for _ in range(self.chance.choice((0, 1, 3)))
        )
        return "{" + ",".join(pairs) + "}"

    def schema(self) -> str:
        """`schema` of a dataset of items."""
        types = ('"string"', '["null","string"]', '["float","null"]', '"long"', '"boolean"')
        odd = ("[]", "{}", "null", '["null"]', '{"type":"array","items":"string"}', "1")
        fields = ['{"name":"ITEM_ID","type":"string"}']
        for n in range(self.chance.choice((1, 2, 5))):
            name = self.one(f"C{n}", hostile=("", "é", "ITEM_ID", "A" * 300, "a b"))
            more = self.chance.choice(("", ',"categorical":true'))
            kind = self.one(*types, hostile=odd)
            fields.append(f'{{"name":{json.dumps(name)},"type":{kind}{more}}}')
        space = '"namespace":"com.amazonaws.personalize.schema"'
        version = self.one('"1.0"', hostile=("1", "null", '"2"'))
        text = (
            f'{{"type":"record","name":"Items",{space},"fields":[{",".join(fields)}],'
            f'"version":{version}}}'
        )
        at = self.chance.randrange(len(text))
        return self.one(text, hostile=(text[:at], text[:at] + "\x00" + text[at:], f"[{text}]"))

    def filter(self) -> str:
        """`filterExpression`."""
        parts = (
            self.one(
                'Items.GENRES IN ("a", "é")', "Items.PRICE > 5", "Items.PRICE <= 1.5",
                'Interactions.EVENT_TYPE NOT IN ("click")', "Items.GENRES IN ($P)",
                hostile=("Items.PRICE > 1e999", 'Items.é = "a"', "Items.", "(" * 500, '"',
                         "Foo.A = 1", "Items.GENRES IN (" + ",".join(['"x"'] * 500) + ")", "\x00"),
            )
            for _ in range(self.chance.choice((1, 1, 2)))
        )  # fmt: skip
        joined = self.chance.choice((" AND ", " OR ")).join(parts)
        start = self.one(
            "EXCLUDE ItemID", "INCLUDE ItemID", hostile=("DROP ItemID", "EXCLUDE UserID")
        )
        return f"{start} WHERE {joined}"


@pytest.fixture(scope="module")
def stack(embedded: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running service, whose worker applies what is accepted."""
    quotas = {"filters": 10_000, "schemas": 10_000}
    folder = tmp_path_factory.mktemp("hostile")
    with deployment_as_before(embedded), make_stacks(embedded, folder) as make:
        one = make(personalize_quotas=quotas)
        one.start("worker")
        one.start("api")
        one.wait_ready()
        yield one


N_CALLS = 120


def documents(texts: Texts, own: str, filters: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Operations and their documents."""
    chance = texts.chance
    for n in range(N_CALLS):
        yield "CreateSchema", {"name": f"s{n}", "schema": texts.schema()}
        group = f"{ARN}dataset-group/{own}"
        yield (
            "CreateFilter",
            {"name": f"f{n}", "datasetGroupArn": group, "filterExpression": texts.filter()},
        )
        item = {"itemId": chance.choice(("i1", "é", "a" * 256)), "properties": texts.properties()}
        yield "PutItems", {"datasetArn": f"{ARN}dataset/{own}/ITEMS", "items": [item]}
        event = {
            "eventType": texts.word(),
            "itemId": chance.choice(("i1", "i2", "漢")),
            "sentAt": time.time(),
            "properties": texts.properties(),
            "eventValue": chance.choice((0, 1, -1.5, 1e30)),
        }
        yield (
            "PutEvents",
            {"trackingId": "shop", "userId": "u", "sessionId": "s", "eventList": [event]},
        )
        asked: dict[str, Any] = {"campaignArn": f"{ARN}campaign/default", "userId": "u"}
        if filters:
            asked["filterArn"] = chance.choice(filters)
            quoted = texts.one('"a"', '"a","é"', hostile=('"', "x", "(" * 300, "\x00", "1e999"))
            asked["filterValues"] = {"P": quoted}
        yield "GetRecommendations", asked


def test_hostile_texts(stack: Stack) -> None:
    """Every call has a modelled answer, many succeed, and what was accepted takes effect."""
    caller = Caller(f"{stack.url}/personalize")
    filters: list[str] = []
    n_good: collections.Counter[str] = collections.Counter()
    with contextlib.closing(caller):
        texts = Texts(1, hostile_every=12)
        for operation, document in documents(texts, stack.settings.group, filters):
            answer = caller.call(operation, document)
            check(operation, answer)
            n_good[operation] += answer.status == 200
            if operation == "CreateFilter" and answer.status == 200:
                filters.append(json.loads(answer.body)["filterArn"])
    assert len(n_good) == 5
    assert min(n_good.values()) >= N_CALLS / 8, n_good
    stack.wait(lambda: stack.status().lag == 0, "what was accepted is in effect")
    assert stack.status().dead_letters == 0
