"""The API in this process, and unmodified AWS clients that call it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import boto3.session
import uvicorn
from botocore.config import Config
from botocore.model import OperationModel
from botocore.parsers import create_parser

from api.app import create_app
from api.personalize.service_model import service_operations
from api.server.server_options import server_options
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from streams.kafka.producing.publisher import Publisher

ACCOUNT = "arn:aws:personalize:us-east-1:000000000000"
CREDENTIALS = {"aws_access_key_id": "an-id", "aws_secret_access_key": "a-secret"}


def campaign(name: str) -> str:
    """The ARN of a campaign."""
    return f"{ACCOUNT}:campaign/{name}"


def client(service: str, url: str, **options: Any) -> Any:
    """A boto3 client without retries, which fails if an answer does not fit its shape."""
    config = Config(retries={"total_max_attempts": 1}).merge(options.pop("config", Config()))
    made = _session().client(
        service,  # type: ignore[call-overload]
        endpoint_url=url,
        region_name="us-east-1",
        config=config,
        **(CREDENTIALS | options),
    )
    made.meta.events.register("before-parse.*.*", _check)
    return made


@functools.cache
def _session() -> boto3.session.Session:
    """One session for all: to make it takes longer than four clients."""
    return boto3.session.Session()


def _check(operation_model: OperationModel, response_dict: dict[str, Any], **_: object) -> None:
    if response_dict["status_code"] < 300:
        check_answer(operation_model.name, response_dict["body"])


def check_answer(operation: str, body: bytes) -> None:
    """Fail if the body of a successful answer does not fit the operation's output shape."""
    one = service_operations()[operation]
    if one.model.output_shape is None:
        assert body == b""
    else:
        one.check_output(json.loads(body))


@contextlib.contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[str]:
    """Address of an API in this process, on a port of its own."""
    store = Store(connect(settings.redis), settings)
    app = create_app(settings, store, Publisher(settings), **options)
    config = uvicorn.Config(app, **server_options(settings))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline, "the API has not started within 60 s"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{settings.port}/personalize"
    finally:
        server.should_exit = True
        thread.join()


class HttpAnswer(NamedTuple):
    """An answer as it came over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error code; header and body must agree."""
        code = str(json.loads(self.body)["__type"])
        assert self.headers["x-amzn-errortype"] == code
        return code

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(json.loads(self.body)["message"])


class Caller:
    """Sends documents as AWS clients do, unsigned and unchecked, over one connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def call(self, operation: str, document: object) -> HttpAnswer:
        """The answer of an operation to a document."""
        one = service_operations()[operation]
        headers = {"content-type": "application/json"}
        if not one.path:
            headers = {
                "content-type": "application/x-amz-json-1.1",
                "x-amz-target": f"AmazonPersonalize.{operation}",
            }
        return self.send("POST", one.path, json.dumps(document).encode(), headers)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to any request below the address."""
        self._connection.request(method, self._prefix + path, body, dict(headers or {}))
        response = self._connection.getresponse()
        return HttpAnswer(response.status, _lower(response.getheaders()), response.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _lower(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def parsed(operation: str, answer: HttpAnswer) -> dict[str, Any]:
    """The answer as botocore parses it."""
    one = service_operations()[operation]
    parser = create_parser("json" if not one.path else "rest-json")
    response = {"status_code": answer.status, "headers": answer.headers, "body": answer.body}
    shape: Any = one.model.output_shape  # an operation without output has none
    found: dict[str, Any] = parser.parse(response, shape)
    return found
