"""A local server of Amazon Personalize's PutEvents over HTTP, with faults on demand."""

from __future__ import annotations

import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal, NamedTuple

from tests.streams.forwarding.stub_server import StubServer

Behaviour = Literal["answer", "throttle", "limit", "fail", "unavailable", "deny", "hang", "reset",
                    "lose"]  # fmt: skip
"""`lose` takes the events, and drops the answer."""

ERRORS: dict[str, tuple[int, str, str]] = {
    "throttle": (429, "ThrottlingException", "Rate exceeded"),
    "limit": (400, "LimitExceededException", "The limit has been exceeded"),
    "fail": (500, "InternalServerException", "An internal error occurred"),
    "unavailable": (503, "ServiceUnavailableException", "Try later"),
    "deny": (403, "InvalidSignatureException", "expected x-amz-security-token:SECRET-TOKEN"),
}


class Taken(NamedTuple):
    """One event that the server took."""

    session_id: str
    user_id: str | None
    event: dict[str, Any]


class PersonalizeStub(StubServer):
    """The server; a context manager that listens at `url`.

    Attributes
    ----------
    behaviour
        Answer to calls once `script` has run out.
    script
        Answers to the next calls, one each.
    away
        Tracking ids whose calls fail, however others are met.
    refuse
        Gives the reason why an event is invalid, or `None`.
    requests
        The body of every call.
    taken
        Every event taken, in order, repetitions included.
    n_hanging
        Calls that got no answer.
    """

    def __init__(self) -> None:
        self.behaviour: Behaviour = "answer"
        self.script: deque[Behaviour] = deque()
        self.away: set[str] = set()
        self.refuse: Callable[[dict[str, Any]], str | None] = lambda _: None
        self.requests: list[dict[str, Any]] = []
        self.taken: list[Taken] = []
        self.n_hanging = 0
        super().__init__()

    def taken_ids(self) -> list[str]:
        """EventIds taken, each once, in the order of their first arrival."""
        return list(dict.fromkeys(taken.event["eventId"] for taken in list(self.taken)))

    def taken_by_session(self) -> dict[str, list[str]]:
        """EventIds of each session, each once, in the order of their first arrival."""
        sessions: dict[str, dict[str, None]] = {}
        for taken in list(self.taken):
            sessions.setdefault(taken.session_id, {})[taken.event["eventId"]] = None
        return {session: list(ids) for session, ids in sessions.items()}

    def _meet(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            behaviour = self.script.popleft() if self.script else self.behaviour
            body = json.loads(raw, parse_constant=lambda _: "not JSON")
            self.requests.append(body)
            if body.get("trackingId") in self.away:
                behaviour = "unavailable"
            invalid = _invalid(handler.path, body) or next(filter(None, map(self.refuse,
                                                           body["eventList"])), None)  # fmt: skip
            if behaviour in {"answer", "lose"} and invalid is None:
                self.taken += [
                    Taken(body["sessionId"], body.get("userId"), event)
                    for event in body["eventList"]
                ]
        if behaviour == "hang":
            self.n_hanging += 1
            self._closed.wait()
        if behaviour in {"hang", "reset", "lose"}:
            break_off(handler)
        elif behaviour in ERRORS:
            _respond(handler, *ERRORS[behaviour])
        elif invalid is not None:
            _respond(handler, 400, "InvalidInputException", invalid)
        else:
            _respond(handler, 200)


def _invalid(path: str, body: dict[str, Any]) -> str | None:
    """Constraint of the API that the call violates; None if it is valid."""
    if path != "/events" or not {"trackingId", "sessionId", "eventList"} <= body.keys():
        return "not a PutEvents call"
    if not 1 <= len(body["eventList"]) <= 10:
        return "Member must have length less than or equal to 10"
    return next(filter(None, map(_invalid_event, body["eventList"])), None)


def _invalid_event(event: dict[str, Any]) -> str | None:
    if not {"eventType", "sentAt"} <= event.keys():
        return "eventType and sentAt are required"
    if not isinstance(event["sentAt"], int | float):
        return "sentAt is no timestamp"
    if not isinstance(event.get("eventValue", 0.0), int | float):
        return "eventValue is no number"
    if not isinstance(json.loads(event.get("properties", "{}")), dict):
        return "properties is no JSON object"
    return None


def _respond(
    handler: BaseHTTPRequestHandler, status: int, code: str = "", message: str = ""
) -> None:
    text = json.dumps({"__type": code, "message": message}).encode() if code else b""
    handler.send_response(status)
    handler.send_header("x-amzn-RequestId", "stub")
    if code:
        handler.send_header("x-amzn-ErrorType", code)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection, as a dying server or a firewall does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True
