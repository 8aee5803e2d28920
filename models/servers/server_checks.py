"""Checks of the servers in the settings before any work, with the cause of a failure.

Where a client library has failed, `models.servers.listeners` looks at what listens there.
"""

from __future__ import annotations

import ssl
import threading
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.connection
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from models.errors import InvalidSetting, Unavailable
from models.secrets import redacted
from models.servers.listeners import (
    ASK_S,
    KAFKA_PORT,
    NO_TROUBLE,
    PING,
    Trouble,
    host_and_port,
    in_time,
    kafka_listener,
    protocol_at,
)
from models.servers.redis_options import redis_options, sentinel_options
from models.settings import Settings
from models.settings.redis_urls import (
    SENTINEL_PORT,
    redis_hosts,
    speaks_tls,
    with_first_host,
)

PING_S = 4.0
"""Longest wait for Redis to answer a PING: a busy server is not away."""


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
    # Here and not in its thread: a file that cannot be used is told as such.
    clients = blocking_clients(settings, timeout_s=PING_S)
    failure = in_time(lambda: _failure(clients, is_cluster=settings.redis_cluster), away)
    if failure is None:
        return
    answered = _answered(where, url, failure)
    if answered is not None:
        raise answered from failure
    parts = urlsplit(url)
    if settings.redis_sentinel_master:
        raise _sentinel_trouble(settings, failure) from failure
    if parts.scheme == "unix":
        raise Unavailable(f"{where} cannot be reached: {failure}") from failure
    at = redis_hosts(url)[0]
    found = in_time(lambda: protocol_at(*at, PING), "no answer")
    is_tls = parts.scheme == "rediss"
    if found == "TLS" and not is_tls:
        wrong = "speaks TLS there: write rediss:// instead of redis:// in RECOMMENDER_REDIS"
    elif found == "Redis" and is_tls:
        wrong = (
            "speaks no TLS there: write redis:// instead of rediss:// in RECOMMENDER_REDIS, or "
            "name its TLS port"
        )
    elif found == "TLS" and _is_tls_failure(failure, settings):
        wrong = (
            f"lets no TLS connection be made ({failure}): see RECOMMENDER_REDIS_CA_FILE and "
            "RECOMMENDER_REDIS_CERTIFICATE_FILE"
        )
    elif found in {"a web server", "another protocol"}:
        wrong = f"is no Redis ({found}): see that RECOMMENDER_REDIS names Redis' own port"
    else:
        why = str(failure) if found in {"Redis", "TLS"} else found
        raise Unavailable(
            f"{where} cannot be used ({why}): see that it runs and that RECOMMENDER_REDIS names it"
        ) from failure
    raise InvalidSetting(f"{where} {wrong}") from failure


def kafka_trouble(
    servers: list[str],
    *,
    context: ssl.SSLContext | None = None,
    mechanism: str = "",
    shows_certificate: bool = False,
) -> Trouble:
    """Trouble with all bootstrap servers; parameters as of `listeners.kafka_listener`.

    Nothing if one of them can be used. They are asked at the same time; ends in 5 s.
    """
    found: dict[str, Trouble] = {}

    def ask(server: str) -> None:
        try:
            host, port = host_and_port(server, KAFKA_PORT)
        except ValueError:
            found[server] = Trouble("not host:port", may_heal=False)
            return
        found[server] = in_time(
            lambda: kafka_listener(
                host,
                port,
                context=context,
                mechanism=mechanism,
                shows_certificate=shows_certificate,
            ),
            Trouble("no answer"),
        )

    asking = [threading.Thread(target=ask, args=(server,), daemon=True) for server in servers]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    if NO_TROUBLE in found.values():
        return NO_TROUBLE
    texts = [
        found[server].text if len(servers) == 1 else f"{server}: {found[server].text}"
        for server in servers
    ]
    return Trouble("; ".join(texts), any(trouble.may_heal for trouble in found.values()))


def _is_tls_failure(failure: Exception, settings: Settings) -> bool:
    """True if a TLS connection failed for good."""
    text = f"{failure}{failure.__cause__!r}"
    # A server that wants a certificate may close before its reason is read; so does one that ends.
    is_closed = "EOF" in text
    return "ssl" in text.lower() and not (is_closed and settings.redis_certificate_file)


def blocking_clients(
    settings: Settings, *, timeout_s: float, protocol: int | None = None
) -> list[redis.Redis]:
    """A client of the settings' Redis, or of each node of a cluster that is named; it tries once.

    `protocol` is the version of Redis' protocol; that of redis-py by default.

    Raises
    ------
    InvalidSetting
        A file of the settings cannot be used.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        **({} if protocol is None else {"protocol": protocol}),
    }
    own = options | redis_options(settings)
    if not settings.redis_sentinel_master and not settings.redis_cluster:
        return [redis.Redis.from_url(settings.redis, **own)]
    parse_url: Any = redis.connection.parse_url
    in_url = parse_url(with_first_host(settings.redis))
    own |= {name: in_url[name] for name in ("db", "username", "password") if name in in_url}
    own["ssl"] = speaks_tls(settings.redis)
    if settings.redis_cluster:
        return [redis.Redis(host, port, **own) for host, port in redis_hosts(settings.redis)]
    return [_sentinels(settings).master_for(settings.redis_sentinel_master, **own)]


def _sentinels(settings: Settings) -> Any:  # noqa: ANN401  not typed there
    make: Any = redis.sentinel.Sentinel
    return make(
        redis_hosts(settings.redis, SENTINEL_PORT),
        sentinel_kwargs={
            "socket_timeout": ASK_S,
            "socket_connect_timeout": ASK_S,
            "retry": Retry(NoBackoff(), 0),
            **sentinel_options(settings),
        },
    )


def _sentinel_trouble(settings: Settings, failure: Exception) -> Unavailable | InvalidSetting:
    """The error after no primary could be used: its name, the Sentinels, or the primary."""
    where = f"the Sentinels at {redacted(settings.redis)}"
    reasons = []
    for sentinel in _sentinels(settings).sentinels:
        try:
            with sentinel:
                watched: dict[str, Any] = sentinel.sentinel_masters()
        except (redis.AuthenticationError, redis.ResponseError) as error:
            return InvalidSetting(
                f"{where} refuse ({error}): see RECOMMENDER_REDIS_SENTINEL_USERNAME and "
                "RECOMMENDER_REDIS_SENTINEL_PASSWORD"
            )
        except redis.RedisError as error:
            reasons.append(str(error))
            continue
        if settings.redis_sentinel_master not in watched:
            return InvalidSetting(
                f"{where} watch {', '.join(sorted(watched)) or 'nothing'}: see "
                "RECOMMENDER_REDIS_SENTINEL_MASTER"
            )
        return Unavailable(f"{where} name a primary that cannot be used ({failure})")
    return Unavailable(f"{where} do not answer ({reasons[0] if reasons else failure})")


def _failure(clients: list[redis.Redis], *, is_cluster: bool) -> Exception | None:
    """The last error of the clients; None if one of them can be used."""
    failure: Exception | None = None
    for client in clients:
        try:
            with client:
                client.ping()
                return _cluster_failure(client, is_cluster=is_cluster)
        except redis.AuthenticationError as error:
            return error
        except (redis.RedisError, OSError) as error:
            failure = error
        finally:
            _close_sentinels(client)
    return failure


def _close_sentinels(client: redis.Redis) -> None:
    """Close the connections to Sentinels, which a client of a primary leaves open."""
    if isinstance(client.connection_pool, redis.sentinel.SentinelConnectionPool):
        for sentinel in client.connection_pool.sentinel_manager.sentinels:
            sentinel.close()


def _cluster_failure(client: redis.Redis, *, is_cluster: bool) -> Exception | None:
    """The failure of a server that is, or is not, one of a cluster in order."""
    ask: Any = client.execute_command
    try:
        state = ask("CLUSTER INFO", NEVER_DECODE=True)
    except redis.ResponseError:
        # It is no node of a cluster, or does not permit the question.
        return _Misplaced("is no Redis Cluster: leave it out") if is_cluster else None
    if not is_cluster:
        return _Misplaced("is a Redis Cluster: set it to true")
    text = str(state)
    return None if "ok" in text else redis.ConnectionError(f"the cluster does not serve ({text})")


class _Misplaced(Exception):
    """A server is a cluster's, or is not, unlike the settings say."""


def _answered(where: str, url: str, failure: Exception) -> Exception | None:
    """The error after a server has answered, but not as it should."""
    if isinstance(failure, _Misplaced):
        return InvalidSetting(f"RECOMMENDER_REDIS_CLUSTER: {where} {failure}")
    if isinstance(failure, redis.BusyLoadingError):
        return Unavailable(f"{where} still loads its data")
    if isinstance(failure, redis.AuthenticationError | redis.ResponseError):
        return InvalidSetting(_refusal(where, url, str(failure)))
    return None


def _refusal(where: str, url: str, said: str) -> str:
    parts = urlsplit(url)
    if "NOAUTH" in said or "already authenticated" in said or "required" in said:
        return (
            f"{where} wants a password: put it into RECOMMENDER_REDIS, as "
            f"{parts.scheme}://:password@{parts.netloc.rpartition('@')[2]}{parts.path}"
        )
    if "WRONGPASS" in said or ("invalid" in said and "password" in said):
        return f"{where} refuses the user or password of RECOMMENDER_REDIS"
    if "without any password configured" in said:
        return f"{where} has no password, but RECOMMENDER_REDIS names one: leave it out"
    return f"{where} refuses: {said}"
