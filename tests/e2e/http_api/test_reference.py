"""The API reference matches accepted requests and sent answers.

`Stack.ask` holds every answer of every end-to-end test against it; here each operation is asked for
at the limits that it describes, and beyond them.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from api.routes.recommendations import FAST_ROUTES
from tests.openapi_document import application, document, operations, resolved
from tests.stack import Stack

Schema = dict[str, Any]

RULES = {
    "filter",
    "filter_values",
    "filterValues",
    "exclude",
    "hide",
    "boost",
    "pin",
    "cap",
    "properties",
    "context",
}
"""Rules: texts with a language of their own; `test_api` has their limits."""

MADE_ELSEWHERE = {
    "after",
    "arms",
    "trackingId",
    "placement",
    "version",
    "at",
    "from",
    "until",
    "segment",
    "ranker",
    "rule",
    "affinity_item",
    "affinity_query",
    "origins",
    *RULES,
}
"""Values that the service must know, or that must differ, which no schema can say."""

ENDLESS = {"/live", "/live/events"}
"""Their answers go on until the client leaves: `test_shown_state.py`."""

pytestmark = pytest.mark.any_broker


def test_document_is_valid() -> None:
    """The document is valid OpenAPI 3.1, and all its references resolve."""
    validate(document(), cls=OpenAPIV31SpecValidator)

    referred = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document())))
    shown = {f"#/components/schemas/{name}" for name in document()["components"]["schemas"]}
    assert referred == shown


def test_document_is_served(running: Stack) -> None:
    """The served document is the one that tests check answers against."""
    status, served = running.ask("GET", "/openapi.json")

    assert (status, served) == (200, document())


def test_every_route_is_described() -> None:
    """Every route of the native API, the fast path included."""
    described = {(method, path) for method, path, _ in operations()}
    routes = [one for one in application().routes if isinstance(one, APIRoute)]

    for route in routes:
        is_page = route.path in {"/", "/console"} or route.path.startswith("/docs")
        methods = set(route.methods or ()) - {"HEAD"}
        assert is_page or {(method, route.path) for method in methods} <= described
    assert {("GET", path) for path in FAST_ROUTES} <= described
    assert {"400", "default"} <= set(document()["paths"]["/recommend"]["get"]["responses"])


def test_every_operation_answers_as_described(running: Stack) -> None:
    """Each operation succeeds with its required parameters only."""
    running.click("lamp", user="ada")
    running.ask("PUT", "/filters/lamp", {"filter": "brand:acme"})
    running.ask("PUT", "/segments/lamp", {"rule": 'INCLUDE UserID WHERE Users.A = "b"'})
    _, saved = running.ask("PUT", "/placements/lamp", {"caption": "before"})
    start = document()["paths"]["/experiments/{name}/start"]["post"]
    running.ask("PUT", "/placements/home", {"caption": "before"})
    assert ask(running, "POST", "/experiments/lamp/start", example(start))[0] == 200
    assert {path for _, path, _ in operations()} >= ENDLESS
    for method, path, operation in operations():
        if path not in ENDLESS:
            body = example(operation)
            if isinstance(body, dict) and "version" in body:
                body["version"] = saved["version"]
            status, _ = ask(running, method, address(path, operation), body)
            assert status < 300, (method, path)


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [pytest.param(*one, id=" ".join(one[:2])) for one in operations()],
)
def test_limits_are_those_described(
    running: Stack, method: str, path: str, operation: dict[str, Any]
) -> None:
    """Values at a described limit are accepted, values beyond it get 400."""
    body = example(operation)
    running.ask("PUT", "/placements/home", {"caption": "before"})
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        for value, is_taken in () if name in MADE_ELSEWHERE else at_limits(schema):
            # Without its last part a path is another.
            if (value or parameter["in"] == "query") and not (is_taken and path in ENDLESS):
                asked = address(path, operation, **{name: value})
                status, answer = ask(running, method, asked, body)
                assert status in ({200, 202, 404} if is_taken else {400}), (name, value, answer)
    for changed, is_taken in variants_of(operation, body):
        status, answer = ask(running, method, address(path, operation), changed)
        assert status in ({200, 202} if is_taken else {400}), (str(changed)[:300], answer)


def test_unknown_parameters_are_refused(running: Stack) -> None:
    """Operations with parameters accept no others."""
    for method, path, operation in operations():
        if any(one["in"] == "query" for one in operation.get("parameters", ())):
            asked = address(path, operation)
            more = "&" if "?" in asked else "?"
            status, _ = running.ask(method, f"{asked}{more}colour=red", example(operation))
            assert status == 400, path


def ask(running: Stack, method: str, asked: str, body: Any) -> tuple[int, Any]:
    """Status and answer of a request; an experiment that it started is stopped for the next one."""
    found = running.ask(method, asked, body)
    if asked.endswith("/start"):
        running.ask("POST", f"{asked.removesuffix('start')}stop")
    return found


def address(path: str, operation: dict[str, Any], **values: object) -> str:
    """The path with its parameters, the given query parameters, and those it cannot be without."""
    parameters = operation.get("parameters", ())
    places = {one["name"]: one["in"] for one in parameters}
    needed = {one["name"]: "lamp" for one in parameters if one["required"]}
    for name, place in places.items():
        if place == "path":
            known = "c0-0" if name == "after" else "lamp"
            path = path.replace(f"{{{name}}}", quote(str(values.get(name, known)), safe=""))
    given = (needed | values).items()
    asked = [f"{name}={quote(str(v))}" for name, v in given if places[name] == "query"]
    return "?".join([path, *asked])


def variants_of(operation: dict[str, Any], body: Any) -> Iterable[tuple[Any, bool]]:
    """Bodies at the limits of an operation's schema, and beyond them; none of lines of text."""
    return variants(body_schema(operation), body) if isinstance(body, dict) else ()


def body_schema(operation: dict[str, Any]) -> Schema:
    """The schema of an operation's body."""
    content = operation["requestBody"]["content"]["application/json"]
    return resolved(content["schema"])


def example(operation: dict[str, Any]) -> Any:
    """The example of an operation's body, with current times; None without a body."""
    if "requestBody" not in operation:
        return None
    (content,) = operation["requestBody"]["content"].values()
    shown = copy.deepcopy(content["example"])
    if isinstance(shown, str):
        return shown.encode()
    for event in shown.get("eventList", ()):
        event["sentAt"] = time.time()
    return shown


def at_limits(schema: Schema) -> Iterator[tuple[Any, bool]]:
    """Values at the limits of a schema, and beyond them."""
    if "minLength" in schema:
        yield from (("x" * schema["minLength"], True), ("x" * (schema["minLength"] - 1), False))
    if "maxLength" in schema:
        yield from (("x" * schema["maxLength"], True), ("x" * (schema["maxLength"] + 1), False))
    if "enum" in schema:
        yield from ((value, True) for value in schema["enum"])
        yield "neither", False
    if schema.get("type") == "integer":
        yield from ((schema["minimum"], True), (schema["minimum"] - 1, False))
        yield from ((schema["maximum"], True), (schema["maximum"] + 1, False))
        yield "many", False
    if schema.get("type") == "boolean":
        yield from (("true", True), ("false", True), ("perhaps", False))


def variants(schema: Schema, instance: Any) -> Iterator[tuple[Any, bool]]:
    """JSON values of a schema changed in one place, with their validity."""
    schema = resolved(schema)
    if "properties" in schema:
        yield from _objects(schema, instance)
    elif schema.get("type") == "array":
        yield from _lists(schema, instance)
    elif schema.get("type") == "string":
        yield from (*at_limits(schema), (["a list"], False))
        if "pattern" in schema:
            yield from (("grün", False), ("line\n", False))


def _objects(schema: Schema, instance: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    for name in schema.get("required", ()):
        yield {key: value for key, value in instance.items() if key != name}, False
    if schema.get("additionalProperties") is False:
        yield instance | {"another": 1}, False
    for name, member in schema["properties"].items():
        if name in MADE_ELSEWHERE:
            continue
        given = instance.get(name, least(member))
        for changed, is_taken in itertools.chain([(given, True)], variants(member, given)):
            yield instance | {name: changed}, is_taken


def _lists(schema: Schema, instance: list[Any]) -> Iterator[tuple[Any, bool]]:
    first = instance[0] if instance else least(schema["items"])
    for bound, beyond in (("minItems", -1), ("maxItems", 1)):
        if bound == "maxItems" or bound in schema:
            for n, is_taken in ((schema[bound], True), (schema[bound] + beyond, False)):
                yield [copy.deepcopy(first) for _ in range(n)], is_taken
    for changed, is_taken in variants(schema["items"], first):
        yield [changed, *instance[1:]], is_taken


def least(schema: Schema) -> Any:
    """The smallest value of a schema."""
    schema = resolved(schema)
    made: dict[str, Callable[[], Any]] = {
        "object": lambda: {
            name: least(schema["properties"][name]) for name in schema.get("required", ())
        },
        "array": lambda: [least(schema["items"])] * schema.get("minItems", 0),
        "string": lambda: "x" * schema.get("minLength", 1),
        "number": lambda: 1.0,
        "integer": lambda: schema.get("minimum", 1),
        "boolean": lambda: True,
    }
    if "enum" in schema:
        return schema["enum"][0]
    return {} if "anyOf" in schema else made[schema["type"]]()
