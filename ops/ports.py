"""TCP ports of this machine: free ports, and the process that holds a port."""

from __future__ import annotations

import contextlib
import socket

import psutil

HOST = "127.0.0.1"
ANSWER_S = 1.0


def free_port(preferred: int = 0) -> int:
    """A free port of the loopback interface: the preferred one if possible."""
    if preferred and is_free_port(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free_port(port: int, host: str = HOST) -> bool:
    """True if a server may listen on this port of an interface.

    True also for a foreign host, which the server reports itself.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loopback = "::1" if ":" in host else HOST
    try:
        with socket.socket(family) as probe:
            probe.settimeout(ANSWER_S)
            # macOS allows to bind a loopback port beside a listener on all interfaces.
            if probe.connect_ex((loopback, port)) == 0:
                return False
        with socket.socket(family) as probe:
            # As the servers do: recently closed connections do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror:
        return True
    except OSError:
        return False
    return True


def port_holder(port: int) -> str:
    """Name of the process that listens on this port.

    >>> port_holder(1)
    'another process'
    """
    # macOS shows connections to root only.
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            own = getattr(connection.laddr, "port", None)
            if connection.pid and connection.status == psutil.CONN_LISTEN and own == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
