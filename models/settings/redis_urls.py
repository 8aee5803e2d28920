"""Redis URLs with several hosts, as Sentinels have them: `redis://user:password@a:1,b:2/0`."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

REDIS_PORT, SENTINEL_PORT = 6379, 26379


def redis_hosts(url: str, default_port: int = REDIS_PORT) -> list[tuple[str, int]]:
    """Hosts and ports in a URL; none of a Unix socket.

    Raises
    ------
    ValueError
        A port is no number.

    Examples
    --------
    >>> redis_hosts("rediss://app:p%40s@one,[::1]:2/0")
    [('one', 6379), ('::1', 2)]
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return []
    found = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{host}")
        if one.hostname:
            found.append((one.hostname, default_port if one.port is None else one.port))
    return found


def with_first_host(url: str) -> str:
    """The URL with the first of its hosts only.

    >>> with_first_host("redis://app:pw@one:1,two:2/3?health_check_interval=5")
    'redis://app:pw@one:1/3?health_check_interval=5'
    """
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{hosts.partition(',')[0]}"))


def speaks_tls(url: str) -> bool:
    """True if a URL asks for TLS.

    >>> speaks_tls("rediss://cache:6380/0")
    True
    """
    return urlsplit(url).scheme == "rediss"


def redis_database(url: str) -> str:
    """Number of the database in a URL; empty for the first.

    >>> redis_database("redis://a:1,b:2/0"), redis_database("redis://a:1/3")
    ('', '3')
    """
    parts = urlsplit(url)
    return "" if parts.scheme == "unix" else parts.path.strip("/").removeprefix("0")
