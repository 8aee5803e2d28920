"""TCP ports of this machine: which are free, and who holds those that are not."""

from __future__ import annotations

import contextlib
import socket

import psutil

HOST = "127.0.0.1"
ANSWER_S = 1.0


def free_port(preferred: int = 0) -> int:
    """A port of the loopback interface on which nobody listens: the preferred one if it is free."""
    if preferred and is_free_port(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free_port(port: int, host: str = HOST) -> bool:
    """Whether a server may listen on this port of an interface.

    A host that is none of this machine's is for the server to report.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loopback = "::1" if ":" in host else HOST
    try:
        with socket.socket(family) as probe:
            probe.settimeout(ANSWER_S)
            # macOS lets one bind a loopback port beside a listener on all interfaces.
            if probe.connect_ex((loopback, port)) == 0:
                return False
        with socket.socket(family) as probe:
            # The servers set it too: connections that have just been closed are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror:
        return True
    except OSError:
        return False
    return True


def port_holder(port: int) -> str:
    """Who listens on this port, for people.

    >>> holder(1)
    'another process'
    """
    # macOS shows them to root only.
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            own = getattr(connection.laddr, "port", None)
            if connection.pid and connection.status == psutil.CONN_LISTEN and own == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
