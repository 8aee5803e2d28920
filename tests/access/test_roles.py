"""Every route and operation has a role in one table, and is refused to callers without it."""

from __future__ import annotations

import pytest
from starlette.routing import Mount

from api.access.access_check import AccessDenied, native_need
from api.access.roles import NATIVE, OPERATIONS, SHARED, leaf_routes
from api.personalize.service_model import service_operations
from models.api_keys import Role
from tests.openapi_document import application

pytestmark = pytest.mark.unit


def routes() -> set[tuple[str, str]]:
    """Method and path of every route of the application."""
    return {
        (method, route.path)  # type: ignore[attr-defined]
        for route in leaf_routes(application().router)
        for method in (
            ("GET",) if isinstance(route, Mount) else route.methods - {"HEAD"}  # type: ignore[attr-defined]
        )
    }


def test_every_route_has_a_role() -> None:
    """The table names each route of the application, and no other."""
    assert len(routes()) > 15
    assert routes() == set(NATIVE)


def test_every_operation_has_a_role() -> None:
    """The table names each operation of Amazon Personalize's API, implemented or not."""
    assert set(service_operations()) == set(OPERATIONS)
    assert set(OPERATIONS) >= SHARED


def test_what_changes_something_is_open_to_nobody_without_a_role() -> None:
    """What everybody may call only reads."""
    login = {("POST", "/login"), ("POST", "/logout")}
    open_to_all = {route for route, role in NATIVE.items() if role is None}
    assert {method for method, _ in open_to_all - login} == {"GET"}
    reading = ("Describe", "List", "Get")
    for name, role in OPERATIONS.items():
        assert role in {Role.SEND, Role.READ, Role.MANAGE}
        if role is Role.READ:
            assert name.startswith(reading)


def test_a_forgotten_route_is_closed() -> None:
    """A route that the table does not name is refused to everybody."""
    router = application().router
    scope = {"type": "http", "method": "GET", "path": "/forgotten", "root_path": "", "headers": []}
    assert native_need(router, scope) is None

    router.add_route("/forgotten", lambda _: None)  # type: ignore[arg-type, return-value]
    try:
        with pytest.raises(AccessDenied, match="no role opens GET /forgotten"):
            native_need(router, scope)
    finally:
        router.routes.pop()
