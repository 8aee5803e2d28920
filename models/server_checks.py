"""Checks of the servers in the settings before any work, with the cause of a failure.

Client libraries report most mistakes as time-outs. A server's protocol shows in its first bytes, so
a plain request follows where a client has failed.
"""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.errors import InvalidSetting, Unavailable
from models.secrets import redacted
from models.settings import Settings

T = TypeVar("T")

ASK_S = 1.2
"""Longest wait for one answer of a server; a step waits for up to three."""

PING_S = 4.0
"""Longest wait for Redis to answer a PING: a busy server is not away."""

STEP_S = 5.0
"""Longest step of a check, with the resolving of a name; there are two at most."""

KAFKA_PORT, REDIS_PORT = 9092, 6379

_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Kafka's first request: its size, its key and version, a correlation id of 1, no client id."""

_PING = b"PING\r\n"

_MUTE = "a server listens there but does not answer"
_CLOSED = "the connection is closed without an answer"
_SILENT = {_MUTE, _CLOSED}


def check_redis(settings: Settings) -> None:
    """Return when Redis answers a PING with the settings' password and TLS.

    Raises
    ------
    Unavailable
        It is away, or still loads its data: waiting may help.
    InvalidSetting
        It refuses the user or password, or another protocol is spoken at the port.
    """
    url = settings.redis
    where = f"Redis at {redacted(url)}"
    away: Exception | None = OSError("no answer")
    failure = _in_time(lambda: _ping(url), away)
    if failure is None:
        return
    if isinstance(failure, redis.BusyLoadingError):
        raise Unavailable(f"{where} still loads its data") from failure
    if isinstance(failure, redis.AuthenticationError | redis.ResponseError):
        raise InvalidSetting(_refusal(where, url, str(failure))) from failure
    parts = urlsplit(url)
    if parts.scheme == "unix":
        raise Unavailable(f"{where} cannot be reached: {failure}") from failure
    at = (parts.hostname or "", parts.port or REDIS_PORT)
    found = _in_time(lambda: _listener(*at, _PING), "no answer")
    is_tls = parts.scheme == "rediss"
    if found == "TLS" and not is_tls:
        wrong = "speaks TLS there: write rediss:// instead of redis:// in RECOMMENDER_REDIS"
    elif found == "Redis" and is_tls:
        wrong = (
            "speaks no TLS there: write redis:// instead of rediss:// in RECOMMENDER_REDIS, or "
            "name its TLS port"
        )
    elif found == "TLS" and "SSL" in f"{failure}{failure.__cause__!r}":
        wrong = f"lets no TLS connection be made: {failure}"
    elif found in {"a web server", "another protocol"}:
        wrong = f"is no Redis ({found}): see that RECOMMENDER_REDIS names Redis' own port"
    else:
        why = str(failure) if found in {"Redis", "TLS"} else found
        raise Unavailable(
            f"{where} cannot be used ({why}): see that it runs and that RECOMMENDER_REDIS names it"
        ) from failure
    raise InvalidSetting(f"{where} {wrong}") from failure


def kafka_trouble(servers: list[str]) -> tuple[str, bool]:
    """Cause that no bootstrap server can be used, and True if waiting may help.

    An empty text if one of them speaks Kafka.
    """
    reasons: dict[str, bool] = {}
    for server in servers:
        try:
            host, port = host_and_port(server, KAFKA_PORT)
        except ValueError:
            reasons[f"{server}: not host:port"] = False
            continue
        found = _in_time(functools.partial(_listener, host, port, _API_VERSIONS), "no answer")
        if found == "Kafka":
            return "", True
        others = {
            "TLS": "it speaks TLS",
            "Redis": "that is Redis",
            "a web server": "that is a web server",
            "another protocol": "that is no Kafka server",
        }
        told = (others[found], False) if found in others else (found, True)
        reasons[told[0] if len(servers) == 1 else f"{server}: {told[0]}"] = told[1]
    return "; ".join(reasons), any(reasons.values())


def host_and_port(server: str, default: int) -> tuple[str, int]:
    """A bootstrap server's host and port.

    >>> host_and_port("[::1]:9093", 9092), host_and_port("kafka", 9092)
    (('::1', 9093), ('kafka', 9092))
    """
    parts = urlsplit(f"//{server}")
    return parts.hostname or "", parts.port or default


def _ping(url: str) -> Exception | None:
    try:
        with redis.Redis.from_url(
            url, socket_timeout=PING_S, socket_connect_timeout=PING_S, retry=Retry(NoBackoff(), 0)
        ) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return error
    return None


def _refusal(where: str, url: str, said: str) -> str:
    parts = urlsplit(url)
    if "NOAUTH" in said or "already authenticated" in said or "required" in said:
        return (
            f"{where} wants a password: put it into RECOMMENDER_REDIS, as "
            f"{parts.scheme}://:password@{parts.hostname}:{parts.port or REDIS_PORT}{parts.path}"
        )
    if "WRONGPASS" in said or ("invalid" in said and "password" in said):
        return f"{where} refuses the user or password of RECOMMENDER_REDIS"
    if "without any password configured" in said:
        return f"{where} has no password, but RECOMMENDER_REDIS names one: leave it out"
    return f"{where} refuses: {said}"


def _listener(host: str, port: int, request: bytes) -> str:
    """Protocol of a listener: `Kafka`, `Redis`, `TLS`, another; or the cause of no answer."""
    found = _plain(host, port, request)
    # Some servers do not answer an unknown request, others close the connection.
    for other in (_PING, b"GET / HTTP/1.0\r\n\r\n"):
        if found not in _SILENT:
            return found
        if other is _PING and _speaks_tls(host, port):
            return "TLS"
        answer = _plain(host, port, other) if other is not request else found
        found = found if answer in _SILENT else answer
    return found


def _plain(host: str, port: int, request: bytes) -> str:
    """Protocol in the answer to a plain request, or the cause of no answer."""
    try:
        connection = socket.create_connection((host, port), timeout=ASK_S)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            return f"the name {host} is not known"
        if isinstance(error, ConnectionRefusedError):
            return "nothing listens there"
        return "no answer" if isinstance(error, TimeoutError) else str(error.strerror or error)
    with connection:
        try:
            connection.sendall(request)
            answer = connection.recv(64)
        except TimeoutError:
            return _MUTE
        except OSError:
            return _CLOSED
    return _protocol(request, answer) if answer else _CLOSED


def _protocol(request: bytes, answer: bytes) -> str:
    if answer[:2] == b"\x15\x03":
        return "TLS"
    if b"HTTP/" in answer or answer.lower().startswith((b"<!doctype", b"<html")):
        return "a web server"
    if request is _API_VERSIONS and answer[4:8] == b"\0\0\0\1":
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


def _in_time(ask: Callable[[], T], otherwise: T) -> T:
    """Result of `ask`, or `otherwise` after `STEP_S`: resolving a name has no time-out."""
    found: list[T] = []
    asking = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    asking.start()
    asking.join(STEP_S)
    return found[0] if found else otherwise
