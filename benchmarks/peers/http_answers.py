"""Single requests and their answers, outside of the measured load."""

from __future__ import annotations

import http.client

from benchmarks.peers.peer import Sent

ANSWER_S = 60.0


def fetched(port: int, request: Sent) -> tuple[int, bytes]:
    """Status and body of the answer on a connection of its own."""
    connection = Asking(port)
    try:
        return connection.fetched(request)
    finally:
        connection.close()


def answers(port: int, path: str) -> bool:
    """True if a server answers at this path without an error of its own."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 500
        finally:
            connection.close()
    except OSError:
        return False


class Asking:
    """A connection that stays open for one request after the other."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        self._connection.connect()

    def fetched(self, request: Sent) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        self._connection.sock.sendall(request.raw)
        answer = http.client.HTTPResponse(self._connection.sock)
        answer.begin()
        return answer.status, answer.read()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
