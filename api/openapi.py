"""The OpenAPI document, made from the structs that decode requests and encode answers.

Each route names its structs with `documented`; `openapi_document` adds their schemas to FastAPI's
document. So the document cannot differ from what is accepted and sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from api.request_params import SPLITS, AfterParams
from api.schemas import Error

JSON = "application/json"
TEMPLATE = "#/components/schemas/{name}"

INVALID_REQUEST_ERROR = {400: "The request is invalid; the message names the rule."}
BODY_ERRORS = {413: "The body is too large."}
AFTER_ERRORS = {429: "Too many requests wait already; repeat it after Retry-After."}
SERVER_ERRORS = {
    429: "Too many requests are under way; repeat it after Retry-After.",
    503: "Kafka or Redis does not answer; try again.",
}
_STRUCTS: dict[str, type[msgspec.Struct]] = {Error.__name__: Error}
"""Request and response structs of all routes, by name; `documented` registers them."""


def documented(
    answer: type[msgspec.Struct],
    summary: str,
    *,
    status: int = 200,
    query: type[AfterParams] | None = None,
    body: type[msgspec.Struct] | None = None,
    example: Mapping[str, Any] | None = None,
    errors: Mapping[int, str] = SERVER_ERRORS,
    other: Mapping[int, tuple[type[msgspec.Struct], str]] | None = None,
    request_body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Arguments of a route's decorator that describe the route in the document.

    Parameters
    ----------
    answer
        Struct of its answer.
    query, body
        Structs that its query string and its body are decoded to.
    example
        Example of a body.
    errors
        Reason of each error status; those that follow from `query` and `body` are added.
    other
        Struct and reason of each other status.
    request_body
        Description of a body that is no JSON document.
    """
    errors = {
        **(INVALID_REQUEST_ERROR | BODY_ERRORS if body else {}),
        **(INVALID_REQUEST_ERROR | AFTER_ERRORS if query else {}),
        **errors,
    }
    responses: dict[int | str, dict[str, Any]] = {
        status: _response(answer, _first_line(answer)),
        **described_errors(errors),
        **{code: _response(*shown) for code, shown in (other or {}).items()},
        **ANY_ERROR,
    }
    extra: dict[str, Any] = {}
    if query is not None:
        extra["parameters"] = parameters(query)
    if body is not None:
        content = {"schema": reference(body)} | ({"example": example} if example else {})
        extra["requestBody"] = {"required": True, "content": {JSON: content}}
    if request_body is not None:
        extra["requestBody"] = request_body
    return {
        "summary": summary,
        "status_code": status,
        "responses": responses,
        "openapi_extra": extra,
    }


def openapi_document(known: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with the schemas of all registered structs."""
    _, schemas = msgspec.json.schema_components(_STRUCTS.values(), ref_template=TEMPLATE)
    shown = {name: _plain(schema) for name, schema in sorted(schemas.items())}
    # Through JSON, because a default may be a tuple, which validators do not take for an array.
    return known | {"components": {"schemas": msgspec.json.decode(msgspec.json.encode(shown))}}


def described_errors(errors: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Responses of a route that answers with errors of these statuses, by reason."""
    return {code: _error(code, text) for code, text in sorted(errors.items())}


def reference(struct: type[msgspec.Struct]) -> dict[str, str]:
    """A reference to the schema of a struct, which the document then has."""
    _STRUCTS[struct.__name__] = struct
    return {"$ref": TEMPLATE.format(name=struct.__name__)}


def _response(struct: type[msgspec.Struct], text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": reference(struct)}}}


def _error(status: int, text: str) -> dict[str, Any]:
    passes = status in {429, 503}
    headers = {"retry-after": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return _response(Error, text) | ({"headers": headers} if passes else {})


def _first_line(struct: type[msgspec.Struct]) -> str:
    return inspect.cleandoc(struct.__doc__ or "").partition("\n")[0]


ANY_ERROR: dict[int | str, dict[str, Any]] = {"default": _response(Error, "Any other error.")}


def parameters(query: type[AfterParams]) -> list[dict[str, Any]]:
    """Query parameters of a route, as the document has them."""
    schema = msgspec.json.schema(query)["$defs"][query.__name__]
    found = []
    for name, member in _plain(schema)["properties"].items():
        text = {"description": member.pop("description")} if "description" in member else {}
        required = name in schema.get("required", ())
        # By GET what a body has as a list is one text.
        kind = {"type": "string"} if name in SPLITS else member
        parameter = {"name": name, "in": "query", "required": required, "schema": kind}
        found.append(parameter | text)
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A struct's schema in which optional members are left out instead of null."""
    required = schema.get("required", ())
    properties = {
        name: member if name in required else _without_null(member)
        for name, member in schema.get("properties", {}).items()
    }
    text = inspect.cleandoc(schema.get("description", ""))
    return schema | {"properties": properties} | ({"description": text} if text else {})


def _without_null(member: dict[str, Any]) -> dict[str, Any]:
    if member.get("default", ...) is not None:
        return member
    rest = {name: value for name, value in member.items() if name not in {"default", "anyOf"}}
    kinds = [kind for kind in member.get("anyOf", ()) if kind != {"type": "null"}]
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
