"""Detection of what listens at an address, by the first bytes of its answer.

Client libraries report most mistakes as time-outs; these questions end in bounded time.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

MAX_ANSWER_BYTES, MAX_MECHANISMS = 1 << 16, 20

ASK_S = 1.2
"""Longest wait for one answer of a server; a step waits for up to three."""

STEP_S = 5.0
"""Longest step of a check, with the resolving of a name; there are two at most."""

KAFKA_PORT = 9092

API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Kafka's first request: its size, its key and version, a correlation id of 1, no client id."""

_NO_TOPICS = struct.pack(">i", 0)
"""Body of a question for no topics, which a listener that asks for SASL does not answer."""

PING = b"PING\r\n"

_MUTE = "a server listens there but does not answer"
_CLOSED = "the connection is closed without an answer"
_SILENT = {_MUTE, _CLOSED}

_NOT_KAFKA = {
    "TLS": "it speaks TLS: set RECOMMENDER_KAFKA_SECURITY_PROTOCOL to ssl or sasl_ssl",
    "Redis": "that is Redis",
    "a web server": "that is a web server",
    "another protocol": "that is no Kafka server",
}


class Trouble(NamedTuple):
    """Reason for which a server cannot be used; an empty text if it can.

    Attributes
    ----------
    may_heal
        True if waiting may help.
    """

    text: str
    may_heal: bool = True


NO_TROUBLE = Trouble("")


class _Wrong(Exception):
    """A listener is not what the settings say."""


class _Absent(OSError):
    """Nothing accepts a connection."""


def host_and_port(server: str, default: int) -> tuple[str, int]:
    """A bootstrap server's host and port.

    >>> host_and_port("[::1]:9093", 9092), host_and_port("kafka", 9092)
    (('::1', 9093), ('kafka', 9092))
    """
    parts = urlsplit(f"//{server}")
    return parts.hostname or "", parts.port or default


def kafka_listener(
    host: str,
    port: int,
    *,
    context: ssl.SSLContext | None = None,
    mechanism: str = "",
    shows_certificate: bool = False,
) -> Trouble:
    """The reason for which no Kafka can be used at a port, as far as it shows without credentials.

    Parameters
    ----------
    context
        TLS context; None for a plain connection.
    mechanism
        SASL mechanism that will be asked for; empty for none.
    shows_certificate
        True if the context has a client certificate.
    """
    try:
        _ask_kafka(
            functools.partial(kafka_connection, host, port, context),
            mechanism,
            is_tls=context is not None,
        )
    except (OSError, struct.error, _Wrong) as error:
        told = _told(error, shows_certificate=shows_certificate)
        return told or _found(protocol_at(host, port, API_VERSIONS), is_tls=context is not None)
    return NO_TROUBLE


def _told(error: Exception, *, shows_certificate: bool) -> Trouble | None:
    """The trouble with a listener that an error shows; None if it shows none."""
    if isinstance(error, _Absent):
        return Trouble(str(error))
    if isinstance(error, _Wrong):
        return Trouble(str(error), may_heal=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        return Trouble(
            f"its certificate is not trusted ({error.verify_message}): see "
            "RECOMMENDER_KAFKA_CA_FILE and that RECOMMENDER_KAFKA has the name in the certificate",
            may_heal=False,
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        wrong = (
            "it refuses the client certificate: see RECOMMENDER_KAFKA_CERTIFICATE_FILE"
            if shows_certificate
            else "it refuses a TLS connection without a client certificate: set "
            "RECOMMENDER_KAFKA_CERTIFICATE_FILE"
        )
        return Trouble(f"{wrong} ({error.reason})", may_heal=False)
    return None


def _found(protocol: str, *, is_tls: bool) -> Trouble:
    """The trouble with a listener of a protocol that does not answer as it should."""
    if protocol == "Kafka" and is_tls:
        return Trouble(
            "it speaks no TLS there: set RECOMMENDER_KAFKA_SECURITY_PROTOCOL to plaintext or "
            "sasl_plaintext, or name its TLS port",
            may_heal=False,
        )
    if protocol == "Kafka" or (protocol == "TLS" and is_tls):
        return Trouble("it does not answer as Kafka does")
    return Trouble(_NOT_KAFKA.get(protocol, protocol), may_heal=protocol not in _NOT_KAFKA)


def _ask_kafka(
    connect: Callable[[], contextlib.AbstractContextManager[socket.socket]],
    mechanism: str,
    *,
    is_tls: bool,
) -> None:
    """Return if Kafka answers; `_Wrong` if it wants another mechanism, `OSError` if it is mute."""
    with connect() as connection:
        if mechanism:
            code, offered = _shake_hands(connection, mechanism)
            if offered and mechanism not in offered:
                raise _Wrong(
                    f"it offers {', '.join(sorted(offered))}, not {mechanism}: see "
                    "RECOMMENDER_KAFKA_SASL_MECHANISM"
                )
            if code:
                raise _Wrong(
                    "it asks nobody who is calling: set RECOMMENDER_KAFKA_SECURITY_PROTOCOL to "
                    "plaintext or ssl, or name its SASL port"
                )
            return
        try:
            kafka_request(connection, 3, 1, _NO_TOPICS)
        except OSError:
            with connect() as again:
                _, offered = _shake_hands(again, "PLAIN")
            if not offered:
                raise
            protocol = "sasl_ssl" if is_tls else "sasl_plaintext"
            raise _Wrong(
                "it asks who is calling: set RECOMMENDER_KAFKA_SECURITY_PROTOCOL to "
                f"{protocol} and RECOMMENDER_KAFKA_SASL_MECHANISM to one of "
                f"{', '.join(sorted(offered))}"
            ) from None


@contextlib.contextmanager
def kafka_connection(
    host: str, port: int, context: ssl.SSLContext | None
) -> Iterator[socket.socket]:
    """A connection to a Kafka that has said what it speaks; without TLS if there is no context.

    Raises
    ------
    OSError
        It cannot be made, or something else answers; `ssl.SSLError` of TLS.
    """
    try:
        connection = socket.create_connection((host, port), timeout=ASK_S)
    except OSError as error:
        raise _Absent(_no_connection(host, error)) from error
    with (
        connection,
        context.wrap_socket(connection, server_hostname=host)
        if context
        else contextlib.nullcontext(connection) as opened,
    ):
        opened.sendall(API_VERSIONS)
        _answer(opened)
        yield opened


def kafka_request(connection: socket.socket, key: int, version: int, body: bytes) -> bytes:
    """Answer to a request, both without their headers; `OSError` without one."""
    request = struct.pack(">hhih", key, version, 1, -1) + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    return _answer(connection)


def _shake_hands(connection: socket.socket, mechanism: str) -> tuple[int, set[str]]:
    """Error code and offered mechanisms of an answer to SaslHandshake."""
    name = mechanism.encode()
    answer = kafka_request(connection, 17, 1, struct.pack(">h", len(name)) + name)
    code, n = struct.unpack_from(">hi", answer)
    offered, at = set(), 6
    for _ in range(max(0, min(n, MAX_MECHANISMS))):
        (length,) = struct.unpack_from(">h", answer, at)
        offered.add(answer[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return code, offered


def _answer(connection: socket.socket) -> bytes:
    """An answer to a request with the correlation id 1, without its header."""
    size, correlation = struct.unpack(">ii", _received(connection, 8))
    if correlation != 1 or not 4 <= size <= MAX_ANSWER_BYTES:
        raise OSError("no Kafka")
    return _received(connection, size - 4)


def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise OSError(_CLOSED)
        data += part
    return data


def protocol_at(host: str, port: int, request: bytes) -> str:
    """Protocol of a listener: `Kafka`, `Redis`, `TLS`, another; or the cause of no answer."""
    found = _plain(host, port, request)
    # Some servers do not answer an unknown request, others close the connection.
    for other in (PING, b"GET / HTTP/1.0\r\n\r\n"):
        if found not in _SILENT:
            return found
        if other is PING and _speaks_tls(host, port):
            return "TLS"
        answer = _plain(host, port, other) if other is not request else found
        found = found if answer in _SILENT else answer
    return found


def _plain(host: str, port: int, request: bytes) -> str:
    """Protocol in the answer to a plain request, or the cause of no answer."""
    try:
        connection = socket.create_connection((host, port), timeout=ASK_S)
    except OSError as error:
        return _no_connection(host, error)
    with connection:
        try:
            connection.sendall(request)
            answer = connection.recv(64)
        except TimeoutError:
            return _MUTE
        except OSError:
            return _CLOSED
    return _protocol(request, answer) if answer else _CLOSED


def _no_connection(host: str, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {host} is not known"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)


def _protocol(request: bytes, answer: bytes) -> str:
    if answer[:2] == b"\x15\x03":
        return "TLS"
    if b"HTTP/" in answer or answer.lower().startswith((b"<!doctype", b"<html")):
        return "a web server"
    if request is API_VERSIONS and answer[4:8] == b"\0\0\0\1":
        return "Kafka"
    return "Redis" if answer.startswith((b"+PONG", b"-")) else "another protocol"


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    # Only a test for TLS: nothing is sent, so the certificate does not matter.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=ASK_S) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def in_time(ask: Callable[[], T], otherwise: T) -> T:
    """Result of `ask`, or `otherwise` after `STEP_S`: resolving a name has no time-out."""
    found: list[T] = []
    asking = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    asking.start()
    asking.join(STEP_S)
    return found[0] if found else otherwise
