"""The API reference, and checks of answers against it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from api.app import create_app
from api.fast_path import FastPathApp
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.tokens import TopicKind
from tests.api_server import FakePublisher


@cache
def application() -> FastPathApp:
    """The application, connected to nothing."""

    async def nothing(*_: object) -> str:
        raise AssertionError

    async def empty() -> dict[TopicKind, str]:
        return {}

    async def none() -> list[str]:
        return []

    settings = Settings(redis="redis://127.0.0.1:1")
    store = Store(connect(settings.redis), settings)
    made = create_app(settings, store, FakePublisher(nothing, nothing, empty, none))
    assert isinstance(made, FastPathApp)
    return made


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document as it is served."""
    sent: dict[str, Any] = json.loads(json.dumps(application().openapi()))
    return sent


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@cache
def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The operation of a request, and its path in the document; None if not described."""
    bare = path.partition("?")[0]
    for known, described, operation in operations():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(described))
        if known == method and re.fullmatch(pattern, bare):
            return described, operation
    return None


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, or the schema that it refers to."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document()["components"]["schemas"][schema["$ref"].split("/")[-1]]
    return found


def violations(schema: dict[str, Any], instance: object) -> list[str]:
    """Rules of a schema that a JSON value breaks."""
    # With the components beside it, the references of the schema resolve.
    checks = Draft202012Validator(schema | {"components": document()["components"]})
    return [f"{error.json_path}: {error.message}" for error in checks.iter_errors(instance)]


def check_answer(
    method: str, path: str, *, sent: object, status: int, media_type: str, content: bytes
) -> None:
    """Fail unless the document describes this answer, and the accepted request.

    Other answers are errors of the one shape, or belong to a page.
    """
    found = operation_of(method, path)
    if found is None:
        if status >= 400 and not path.startswith("/personalize"):
            assert violations({"$ref": "#/components/schemas/Error"}, json.loads(content)) == []
        return
    where, operation = found
    responses = operation["responses"]
    assert str(status) in responses or status >= 400, f"{method} {where}: {status} not described"
    response = responses.get(str(status), responses["default"])
    described = response["content"].get(media_type.partition(";")[0])
    assert described is not None, f"{method} {where}: {status} as {media_type} not described"
    answer = json.loads(content) if "json" in media_type else content.decode()
    wrong = violations(described["schema"], answer)
    assert wrong == [], f"{method} {where}: {status} {wrong}"
    if status < 300 and "requestBody" in operation and not isinstance(sent, bytes):
        wrong = violations(operation["requestBody"]["content"]["application/json"]["schema"], sent)
        assert wrong == [], f"{method} {where}: taken, though not as described: {wrong}"
