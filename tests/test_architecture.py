"""docs/architecture.md sends a reader to the files that there are, and that run."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from api.app import create_app
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from tests.api_server import accepting_publisher
from tests.models.serving.test_recommender import Shop

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def _paths(text: str) -> list[str]:
    """The paths of files and folders that a text names, such as `api/{app,schemas}.py`."""
    found = []
    for name in re.findall(r"`((?:api|cli|models|ops|streams|tests)/[\w/{},.]*)`", text):
        before, _, rest = name.partition("{")
        inside, _, after = rest.partition("}")
        found += [f"{before}{each}{after}" for each in inside.split(",")]
    return found


def test_paths_in_the_architecture_exist() -> None:
    """The files that a reader is sent to are there."""
    named = _paths(TEXT)
    assert len(named) > 40
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_ways_through_the_code_are_short() -> None:
    """Files to read until one can say what happens; a way that grows is to be shortened again."""
    parts = TEXT.split("Files to read, in order")[1:]
    event, request, inference, job = (_paths(part.partition("\n\n")[0]) for part in parts)
    # Amazon Personalize's way joins behind the API's own routes and their questions.
    joined = [path for path in request if path not in request[:3] and "questions" not in path]

    lengths = [len(event), len(request), len({*inference, *joined}), len(job)]
    assert all(n <= most for n, most in zip(lengths, (14, 20, 28, 22), strict=True)), lengths
    assert min(lengths) > 10


async def test_what_runs_for_a_request_is_named(redis_url: str) -> None:
    """The life of a request names every file that runs for GET /recommend, or its folder."""
    settings = Settings(redis=redis_url, group="shop-of-a-reader")
    store = Store(connect(settings.redis), settings)
    shop = Shop(store)
    shop.now_s = time.time() - 3600
    for user in ("camper", "hiker", "ada"):
        await shop.send(user, "tent", *(("stove", "lamp") if user != "ada" else ()))
    app = create_app(settings, store, accepting_publisher())
    ran: set[str] = set()
    task = asyncio.current_task()

    def note(frame: FrameType, event: str, _: object) -> None:
        # The application's own tasks go on meanwhile.
        if event == "call" and asyncio.current_task() is task:
            ran.add(frame.f_code.co_filename)

    async with app.router.lifespan_context(app):
        assert await _status(app, "/recommend", b"user_id=ada") == 200
        sys.setprofile(note)
        try:
            assert await _status(app, "/recommend", b"user_id=ada") == 200
        finally:
            sys.setprofile(None)
    section = TEXT.partition("## The life of a request")[2].partition("\n## ")[0]
    named = _paths(section)
    ours = {
        str(path.relative_to(ROOT))
        for path in map(Path, ran)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in {"api", "models"}
    }
    assert {"api/fast_path.py", "models/serving/arranged_lists.py"} <= ours
    unnamed = [one for one in ours if not any(one.startswith(path) for path in named)]
    assert sorted(unnamed) == []


async def _status(app: Any, path: str, query: bytes) -> int:
    """Status of a request that the application answers in this task."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query,
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        raise AssertionError("the question has no body")

    await app(scope, receive, send)
    return int(sent[0]["status"])
