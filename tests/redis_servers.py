"""Real Redis servers as operators run them: with TLS and users, watched by Sentinels, a cluster."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.servers import INHERITED, own_port, own_ports, require, wait_until

PASSWORD = "Pl4nted-in-Redis"

DOWN_MS = 1000
"""Time after which a Sentinel takes a silent primary for dead."""


@dataclass(eq=False)
class Node:
    """A process of `redis-server` with a configuration of its own, which may be started again.

    Attributes
    ----------
    announced
        The port that a cluster's node names to others and to clients, where it is a proxy's.
    """

    port: int
    directory: Path
    lines: list[str]
    arguments: tuple[str, ...] = ()
    announced: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns once it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "redis.conf"
        if not file.exists():  # Sentinels write theirs anew
            file.write_text("\n".join([*self.lines, f"dir {self.directory}", ""]))
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", str(file), *self.arguments],
                env=INHERITED,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self.listens, within_s=60, what=f"Redis listens at {self.port}")

    def listens(self) -> bool:
        """True if something accepts connections at its port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.contextmanager
def running(nodes: list[Node]) -> Iterator[None]:
    """The nodes, started; ended afterwards."""
    require("redis-server", "redis-cli")
    try:
        for node in nodes:
            node.start()
        yield
    finally:
        for node in nodes:
            node.kill()


@dataclass(frozen=True)
class SecuredRedis:
    """A Redis that speaks TLS only, asks for a client certificate, and has one user, `app`."""

    url: str
    ca_file: str
    certificate_file: str
    key_file: str
    other_ca_file: str


@contextlib.contextmanager
def secured_redis(directory: Path, acl: str) -> Iterator[SecuredRedis]:
    """A running one, whose user has these rules (Redis' ACL)."""
    port = own_port()
    authority, other = trustme.CA(), trustme.CA()
    directory.mkdir(parents=True, exist_ok=True)
    files = {name: directory / f"{name}.pem" for name in ("ca", "other", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    other.cert_pem.write_to_path(files["other"])
    cert = authority.issue_cert("127.0.0.1")
    cert.cert_chain_pems[0].write_to_path(files["cert"])
    cert.private_key_pem.write_to_path(files["key"])
    lines = [
        *("port 0", f"tls-port {port}", "bind 127.0.0.1", 'save ""', "appendonly yes"),
        f"tls-cert-file {files['cert']}",
        f"tls-key-file {files['key']}",
        f"tls-ca-cert-file {files['ca']}",
        "tls-auth-clients yes",
        "user default off",
        f"user app on >{PASSWORD} {acl}",
    ]
    with running([Node(port, directory, lines)]):
        yield SecuredRedis(
            f"rediss://app:{PASSWORD}@127.0.0.1:{port}/0",
            *(str(files[name]) for name in ("ca", "cert", "key", "other")),
        )


@dataclass
class WatchedRedis:
    """A primary and a replica that three Sentinels watch, all with passwords.

    Attributes
    ----------
    url
        Names the Sentinels, with the servers' password.
    primary, replica
        The two servers, by their role at the start.
    """

    url: str
    primary: Node
    replica: Node
    sentinels: list[Node] = field(default_factory=list)


@contextlib.contextmanager
def watched_redis(directory: Path) -> Iterator[WatchedRedis]:
    """Running ones."""
    first, second = own_port(), own_port()
    common = [
        *("bind 127.0.0.1", 'save ""', "appendonly yes", "repl-diskless-sync-delay 0"),
        *(f"requirepass {PASSWORD}", f"masterauth {PASSWORD}", "repl-ping-replica-period 1"),
    ]
    primary = Node(first, directory / "primary", [*common, f"port {first}"])
    follows = f"replicaof 127.0.0.1 {first}"
    replica = Node(second, directory / "replica", [*common, f"port {second}", follows])
    start = own_ports(3)
    sentinels = [
        Node(
            port,
            directory / f"sentinel-{port}",
            [
                *("bind 127.0.0.1", f"port {port}", f"requirepass {PASSWORD}"),
                f"sentinel sentinel-pass {PASSWORD}",
                f"sentinel monitor shop-state 127.0.0.1 {first} 2",
                f"sentinel auth-pass shop-state {PASSWORD}",
                f"sentinel down-after-milliseconds shop-state {DOWN_MS}",
                "sentinel failover-timeout shop-state 6000",
            ],
            ("--sentinel",),
        )
        for port in range(start, start + 3)
    ]
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in sentinels)
    watched = WatchedRedis(f"redis://:{PASSWORD}@{hosts}/0", primary, replica, sentinels)
    with running([primary, replica, *sentinels]):
        yield watched


@dataclass
class RedisCluster:
    """Three primaries and three replicas.

    Attributes
    ----------
    url
        Names all of them.
    """

    url: str
    nodes: list[Node]

    def ask(self, *command: str, node: Node | None = None) -> str:
        """Answer of `redis-cli` at a node, the first that runs if none is given."""
        asked = node or next(one for one in self.nodes if one.process is not None)
        return subprocess.run(
            ["redis-cli", "-p", str(asked.port), "-a", PASSWORD, "--no-auth-warning", *command],
            capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL,
        ).stdout.strip()  # fmt: skip

    def primary_of(self, key: str) -> Node:
        """The node that serves a key."""
        slot = int(self.ask("CLUSTER", "KEYSLOT", key))
        for line in self.ask("CLUSTER", "NODES").splitlines():
            words = line.split()
            address, flags = words[1:3]
            for span in words[8:]:
                first, _, last = span.partition("-")
                is_served = "master" in flags and "fail" not in flags and first.isdigit()
                if is_served and int(first) <= slot <= int(last or first):
                    port = int(address.partition("@")[0].rpartition(":")[2])
                    return next(n for n in self.nodes if port in {n.port, n.announced})
        raise LookupError(f"no node serves {key}")

    def moving(self, key: str, *, at_once: int = 1) -> Iterator[Node]:
        """Move the slot of a key to another primary; gives where it goes after each few keys.

        As `redis-cli --cluster reshard` does, but one slot that is chosen.
        """
        slot = self.ask("CLUSTER", "KEYSLOT", key)
        source = self.primary_of(key)
        others = (self.primary_of(str(n)) for n in range(100))
        target = next(node for node in others if node is not source)
        ids = {node: self.ask("CLUSTER", "MYID", node=node) for node in (source, target)}
        self.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source], node=target)
        self.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target], node=source)
        while names := self.ask(
            "CLUSTER", "GETKEYSINSLOT", slot, str(at_once), node=source
        ).split():
            where = ("127.0.0.1", str(target.port), "", "0", "5000", "AUTH", PASSWORD)
            self.ask("MIGRATE", *where, "KEYS", *names, node=source)
            yield target
        for node in (target, source):
            self.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target], node=node)

    def is_well(self) -> bool:
        """True if another primary may be lost.

        All nodes run and know of each other, all slots are served, and a replica follows each
        primary.
        """
        if any(node.process is None for node in self.nodes):
            return False
        return all(self._is_well_at(node) for node in self.nodes)

    def _is_well_at(self, node: Node) -> bool:
        """True if one node sees no other that fails, and follows its primary if it has one."""
        if "cluster_state:ok" not in self.ask("CLUSTER", "INFO", node=node):
            return False
        lines = [line.split() for line in self.ask("CLUSTER", "NODES", node=node).splitlines()]
        if any("fail" in words[2] or words[7] != "connected" for words in lines):
            return False
        followed = {words[3] for words in lines if "slave" in words[2]}
        if followed != {words[0] for words in lines if "master" in words[2]}:
            return False
        replication = self.ask("INFO", "replication", node=node)
        return "role:master" in replication or "master_link_status:up" in replication

    def mend(self) -> None:
        """Start the nodes that were killed; returns once the cluster is well."""
        for node in self.nodes:
            if node.process is None:
                node.start()
        wait_until(self.is_well, within_s=120, what="the cluster is well")


@contextlib.contextmanager
def redis_cluster(
    directory: Path, proxy_of: Callable[[int], int] | None = None
) -> Iterator[RedisCluster]:
    """A running cluster of six processes, with a password.

    Parameters
    ----------
    proxy_of
        Gives the port of a proxy before a node by the node's port: clients and replicas go there.
    """
    start = own_ports(12)
    announced = [proxy_of(start + n) if proxy_of else 0 for n in range(6)]
    nodes = [
        Node(
            start + n,
            directory / f"node-{n}",
            [
                *("bind 127.0.0.1", f"port {start + n}", f"cluster-port {start + 6 + n}"),
                *("cluster-enabled yes", "cluster-node-timeout 2000", "appendonly yes", 'save ""'),
                *(f"requirepass {PASSWORD}", f"masterauth {PASSWORD}"),
                # Others answer while one primary is away, as docs/scaling.md wants it.
                "cluster-require-full-coverage no",
                "repl-diskless-sync-delay 0",
                *([f"cluster-announce-port {announced[n]}"] if proxy_of else ()),
            ],
            announced=announced[n],
        )
        for n in range(6)
    ]
    hosts = [f"127.0.0.1:{node.port}" for node in nodes]
    cluster = RedisCluster(f"redis://:{PASSWORD}@{','.join(hosts)}/0", nodes)
    with running(nodes):
        cluster.ask("--cluster", "create", *hosts, "--cluster-replicas", "1", "--cluster-yes")
        wait_until(cluster.is_well, within_s=60, what="the cluster is well")
        yield cluster
