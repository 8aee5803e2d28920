"""TCP ports of this machine: free ports, and the process that holds a port."""

from __future__ import annotations

import contextlib
import socket
import sys
from dataclasses import dataclass, field
from typing import Self

import psutil

HOST = "127.0.0.1"
ANSWER_S = 1.0


@dataclass
class ReservedPort:
    """A loopback port reserved for one server from its first start to its last stop.

    It is a free one unless its number is given; `OSError` if that is taken. As a context manager
    it gives the port back at the end.
    """

    number: int = 0
    _held: socket.socket | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        with contextlib.ExitStack() as given_up:
            held = given_up.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((HOST, self.number))
            self.number = held.getsockname()[1]
            # On Linux a socket that is bound but does not listen keeps the port from being given to
            # others, and from a client's connection to itself, while the server is down.
            if sys.platform == "linux":
                self._held = held
                given_up.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the port back."""
        if self._held is not None:
            self._held.close()


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
