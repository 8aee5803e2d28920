"""An API that asks for keys, and keys for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from api.dependencies import EventPublisher
from models.api_keys import ApiKey, new_key
from models.settings import Settings
from models.state.clients.client import RedisClient, connect
from models.state.groups import key_store
from ops.embedded_servers import start_redis
from tests.api_server import Api, Reply, request, serve_api, wait_for
from tests.servers import own_port

Done = TypeVar("Done")

EVENT = b'{"sessionId":"s","eventList":[{"eventType":"click","itemId":"i","sentAt":1700000000.0}]}'


@dataclass(frozen=True)
class KeyedApi:
    """A running API that asks for keys."""

    api: Api
    settings: Settings

    def key(self, *roles: str, groups: tuple[str, ...] = ("shop",), **options: Any) -> str:
        """The text of a new key."""
        return self.made(*roles, groups=groups, **options)[1]

    def made(
        self, *roles: str, groups: tuple[str, ...] = ("shop",), **options: Any
    ) -> tuple[ApiKey, str]:
        """A new key, and its text."""
        now_s = time.time()
        made = new_key("test", roles, groups, now_s=now_s, **options)
        self.on_redis(lambda client: key_store.add_key(client, made.key, now_s=now_s))
        return made

    def revoke(self, key: ApiKey) -> None:
        """Revoke a key."""
        self.on_redis(lambda client: key_store.remove_key(client, key.id))

    def on_redis(self, work: Callable[[RedisClient], Awaitable[Done]]) -> Done:
        """The outcome of some work with a client of its Redis."""

        async def connected() -> Done:
            async with connect(self.settings.redis) as client:
                return await work(client)

        return asyncio.run(connected())

    def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Reply:
        """The answer to a request."""
        return self.api.ask(request(path, *headers, method=method, body=body), method=method)

    def status(self, method: str, path: str, *headers: str, body: bytes = b"") -> int:
        """The status of the answer to a request."""
        return self.ask(method, path, *headers, body=body).status

    def wait_until_refused(self, text: str) -> None:
        """Wait until a key is not accepted any more."""
        wait_for(
            lambda: self.status("GET", "/recommend", f"X-Api-Key: {text}") == 401,
            "the key is refused",
        )


@contextlib.contextmanager
def keyed_api(
    folder: Path, *, kafka: EventPublisher | None = None, **settings: Any
) -> Iterator[KeyedApi]:
    """An API that asks for keys, with a Redis of its own."""
    redis = start_redis(folder)
    chosen = Settings(
        redis=redis.url, port=own_port(), **{"access": "keys", "after_timeout_s": 0.1, **settings}
    )
    try:
        with serve_api(chosen, kafka) as api:
            yield KeyedApi(api, chosen)
    finally:
        redis.stop()
