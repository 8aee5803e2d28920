"""Library members used below the public interface: fails for a release that moves one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.routes.recommendations import FAST_ROUTES
from tests.api_server import Api, run_api

UVICORN = (
    "uvicorn has moved {0}, which api/server/uvicorn_protocol.py uses: adapt it, then "
    "raise the bound in pyproject.toml (docs/decisions/0020-uvicorn-protocol.md)"
)
REDIS = (
    "redis-py has moved {0}, by which models/state/batched_reads.py takes a connection over: adapt "
    "it, then raise the bound in pyproject.toml (docs/decisions/0022-mget-connection.md)"
)


def moved(owner: object, *names: str) -> list[str]:
    """The names that an object lacks."""
    return [name for name in names if not hasattr(owner, name)]


async def test_uvicorn_has_the_members_that_are_overridden() -> None:
    """Callbacks and state of uvicorn's protocol have their names."""

    async def app(scope: object, receive: object, send: object) -> None:
        """Serve nothing."""

    config = Config(app)
    config.load()
    loop = asyncio.get_running_loop()
    protocol: Any = HttpToolsProtocol(config, ServerState(), {}, _loop=loop)
    protocol.on_message_begin()
    missing = moved(
        protocol,
        *("connection_made", "connection_lost", "data_received", "pause_writing"),
        *("on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body"),
        *("on_message_complete", "on_response_complete", "_start_asgi_task"),
        *("_unset_keepalive_if_required", "app", "cycle", "expect_100_continue", "flow"),
        *("headers", "loop", "parser", "pipeline", "transport", "url"),
    )
    assert not missing, UVICORN.format(missing)
    missing = moved(FlowControl, "pause_reading", "resume_reading")
    assert not missing, UVICORN.format(missing)
    state = set(RequestResponseCycle.__init__.__code__.co_names)
    missing = sorted(
        {"disconnected", "keep_alive", "message_event", "response_complete", "response_started"}
        - state
    )
    assert not missing, UVICORN.format(missing)


def test_redis_has_the_members_by_which_a_connection_is_taken_over() -> None:
    """Connection, parser and pool of redis-py have their names."""
    connection: Any = redis.asyncio.Connection()
    missing = moved(connection, "_writer", "_parser", "disconnect")
    assert not missing, REDIS.format(missing)
    missing = moved(connection._parser, "parse_error")
    assert not missing, REDIS.format(missing)
    missing = moved(
        redis.asyncio.ConnectionPool(),
        *("get_available_connection", "ensure_connection", "connection_kwargs"),
    )
    assert not missing, REDIS.format(missing)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that allows another origin, whose requests go through FastAPI."""
    directory: Path = tmp_path_factory.mktemp("api")
    with run_api(directory, cors_origins=["http://shop.example"]) as one:
        yield one


@pytest.mark.parametrize("path", sorted(FAST_ROUTES))
@pytest.mark.parametrize("query", ["num_results=3", "num_results=0", "unknown=1", "after=x"])
def test_the_fast_path_answers_as_fastapi_does(api: Api, path: str, query: str) -> None:
    """Status, headers and body are the same in front of FastAPI as behind it."""
    fast = api.get(f"{path}?{query}")
    behind = api.get(f"{path}?{query}", "Origin: http://shop.example")

    def comparable(headers: dict[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in headers.items()
            if not name.startswith("access-control-") and name not in {"date", "vary"}
        }

    moved_text = (
        "FastAPI answers otherwise than api/fast_path.py (docs/decisions/0021-fast-path.md)"
    )
    assert fast.status == behind.status, moved_text
    assert comparable(fast.headers) == comparable(behind.headers), moved_text
    if fast.status >= 400:
        assert fast.body == behind.body, moved_text
    else:
        # An id of its own is all that differs.
        assert fast.body[60:] == behind.body[60:], moved_text
