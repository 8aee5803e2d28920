"""Library members used below the public interface: fails for a release that moves one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.cluster
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from api.routes.recommendations import FAST_ROUTES
from tests.api_server import Api, Reply, request, run_api

UVICORN = (
    "uvicorn has moved {0}, which api/server/uvicorn_protocol.py uses: adapt it, then "
    "raise the bound in pyproject.toml (docs/decisions/0020-uvicorn-protocol.md)"
)
REDIS = (
    "redis-py has moved {0}, by which models/state/clients/batched_reads.py takes a connection "
    "over: adapt it, then raise the bound in pyproject.toml "
    "(docs/decisions/0022-mget-connection.md)"
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
    missing = moved(connection, "_writer", "_parser", "disconnect", "protocol")
    assert not missing, REDIS.format(missing)
    missing = moved(connection._parser, "parse_error")
    assert not missing, REDIS.format(missing)
    missing = moved(
        redis.asyncio.ConnectionPool(),
        *("get_available_connection", "ensure_connection", "connection_kwargs"),
    )
    assert not missing, REDIS.format(missing)
    missing = moved(redis.ConnectionPool().make_connection(), "_sock", "connect", "disconnect")
    assert not missing, REDIS.format(missing)


def test_redis_has_the_members_by_which_a_cluster_is_read() -> None:
    """Cluster, its nodes and their manager have their names."""
    node = redis.asyncio.cluster.ClusterNode("127.0.0.1", 1)
    cluster: Any = redis.asyncio.cluster.RedisCluster(startup_nodes=[node])
    missing = moved(cluster, "connection_kwargs", "keyslot", "get_node_from_key", "initialize")
    missing += moved(cluster, "commands_parser")
    parser: Any = redis._parsers.AsyncCommandsParser()
    missing += moved(parser, "initialize", "commands")
    missing += moved(
        cluster.nodes_manager, "initialize", "slots_cache", "nodes_cache", "startup_nodes"
    )
    missing += moved(node, "connection_kwargs", "name", "host", "port")
    assert not missing, REDIS.format(missing)


def test_multiprocessing_has_the_members_that_wait_for_its_servers() -> None:
    """Those of the fork server and of its tracker, by which `ops.forked_processes` ends them.

    And by which the processes of the tests share one (`tests/forked_workers.py`).
    """
    missing = moved(forkserver._forkserver, "_stop", "ensure_running", "_forkserver_pid")
    missing += moved(resource_tracker._resource_tracker, "_stop", "_fd", "_pid")
    assert not missing, f"multiprocessing has moved {missing}: adapt ops/forked_processes.py"


CLICK = b"""{"sessionId": "s", "eventList": [
    {"eventId": "e", "eventType": "click", "itemId": "i", "sentAt": 1700000000}
]}"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that allows another origin, whose requests go through FastAPI."""
    directory: Path = tmp_path_factory.mktemp("api")
    with run_api(directory, cors_origins=["http://shop.example"]) as one:
        yield one


OTHER_ORIGIN = "Origin: http://shop.example"
MOVED = "FastAPI answers otherwise than api/fast_path.py (docs/decisions/0021-fast-path.md)"


def comparable(reply: Reply) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer, without those of other origins."""
    return reply.status, {
        name: value
        for name, value in reply.headers.items()
        if not name.startswith("access-control-") and name not in {"date", "vary"}
    }


@pytest.mark.parametrize("path", sorted(FAST_ROUTES))
@pytest.mark.parametrize("query", ["num_results=3", "num_results=0", "unknown=1", "after=x"])
def test_the_fast_path_answers_as_fastapi_does(api: Api, path: str, query: str) -> None:
    """Status, headers and body are the same in front of FastAPI as behind it."""
    fast = api.get(f"{path}?{query}")
    behind = api.get(f"{path}?{query}", OTHER_ORIGIN)

    assert comparable(fast) == comparable(behind), MOVED
    if fast.status >= 400:
        assert fast.body == behind.body, MOVED
    else:
        # An id of its own is all that differs.
        assert fast.body[60:] == behind.body[60:], MOVED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (CLICK, 202),
        (b"", 400),
        (b"[", 400),
        (CLICK.replace(b"click", b""), 400),
        (CLICK.replace(b"{", b'{"trackingId": "unheard-of", ', 1), 400),
        (b" " * 2_000_000, 413),
    ],
    ids=["taken", "empty", "no JSON", "no type", "unknown tracking id", "too long"],
)
def test_events_are_answered_as_fastapi_does(api: Api, body: bytes, status: int) -> None:
    """Status, headers and body are the same in front of FastAPI as behind it, and both count."""
    counted = [
        api.metric("recommender_requests_total", route="/events", status=str(status)),
    ]
    replies = []
    for headers in ((), (OTHER_ORIGIN,)):
        sent = request("/events", *headers, method="POST", body=body)
        replies.append(api.ask(sent, method="POST"))
        counted.append(
            api.metric("recommender_requests_total", route="/events", status=str(status))
        )
    fast, behind = replies

    assert fast.status == status
    assert comparable(fast) == comparable(behind), MOVED
    assert fast.body == behind.body, MOVED
    assert [after - before for before, after in itertools.pairwise(counted)] == [1, 1]
