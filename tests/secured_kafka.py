"""A real Apache Kafka with a listener for each way in which clients may show who they are."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from ops.drill.servers import LOG4J
from ops.ports import ReservedPort
from tests.servers import (
    INHERITED,
    SHORT_LIVED,
    Server,
    kafka_jars,
    require_java,
    running,
    unavailable,
)

PASSWORD = "Pl4nted-in-Kafka"
CLIENT_SECRET = "Pl4nted-at-the-endpoint"
REAUTHENTICATE_MS = 3000
"""A connection with a token ends unless it shows a new one within this time."""


@dataclass
class TokenEndpoint:
    """An OAuth 2.0 token endpoint with TLS, which gives tokens that Kafka does not verify.

    Attributes
    ----------
    requests
        Forms that were accepted.
    """

    url: str
    life_s: float = 3600.0
    requests: list[dict[str, list[str]]] = field(default_factory=list)
    status: int = 200

    def answer(self, authorization: str, form: str) -> tuple[int, dict[str, object]]:
        """Status and JSON of an answer."""
        expected = base64.b64encode(f"app:{CLIENT_SECRET}".encode()).decode()
        if self.status != 200:
            return self.status, {"error": "server_error"}
        if authorization != f"Basic {expected}":
            return 401, {"error": "invalid_client"}
        self.requests.append(urllib.parse.parse_qs(form))
        now_s = time.time()
        claims = {"sub": "app", "iat": now_s, "exp": now_s + self.life_s}
        token = f"{_segment({'alg': 'none'})}.{_segment(claims)}."
        return 200, {"access_token": token, "expires_in": self.life_s, "token_type": "bearer"}


def _segment(content: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@contextlib.contextmanager
def token_endpoint(authority: trustme.CA) -> Iterator[TokenEndpoint]:
    """A running endpoint, whose certificate is signed by this authority."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            status, content = endpoint.answer(self.headers["authorization"] or "", form)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        endpoint = TokenEndpoint(f"https://127.0.0.1:{server.server_address[1]}/token")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield endpoint
        server.shutdown()


@dataclass(frozen=True)
class SecuredKafka:
    """Addresses of the listeners, and the files of its clients.

    Attributes
    ----------
    plain, tls, mutual_tls, sasl_tls, sasl_plain
        host:port of the listener without security, with TLS, with client certificates, and with
        SASL with and without TLS.
    ca_file, certificate_file, key_file
        Authority of all certificates; a client's certificate and key.
    other_ca_file
        An authority that has signed none of them.
    """

    plain: str
    tls: str
    mutual_tls: str
    sasl_tls: str
    sasl_plain: str
    ca_file: str
    certificate_file: str
    key_file: str
    other_ca_file: str
    endpoint: TokenEndpoint


@contextlib.contextmanager
def secured_kafka(directory: Path) -> Iterator[SecuredKafka]:
    """A running Apache Kafka with its data in `directory`, and a token endpoint beside it."""
    require_java()
    jars = kafka_jars()
    directory.mkdir(parents=True, exist_ok=True)
    names = ("plain", "tls", "mutual_tls", "sasl_tls", "sasl_plain")
    ports = {name: ReservedPort() for name in (*names, "controller")}
    authority, other = trustme.CA(), trustme.CA()
    server_cert, client_cert = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    files = {name: directory / f"{name}.pem" for name in ("ca", "other", "cert", "key", "keystore")}
    authority.cert_pem.write_to_path(files["ca"])
    other.cert_pem.write_to_path(files["other"])
    files["cert"].write_bytes(b"".join(pem.bytes() for pem in client_cert.cert_chain_pems))
    client_cert.private_key_pem.write_to_path(files["key"])
    # Kafka reads keys in PKCS 8 only.
    key = serialization.load_pem_private_key(server_cert.private_key_pem.bytes(), None)
    files["keystore"].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + b"".join(pem.bytes() for pem in server_cert.cert_chain_pems)
    )
    properties = directory / "server.properties"
    properties.write_text(_properties(directory, ports, files))
    (directory / "log4j2.yaml").write_text(LOG4J)
    java = [
        *("java", "-Xms256m", "-Xmx512m", *SHORT_LIVED),
        f"-Dlog4j2.configurationFile={directory / 'log4j2.yaml'}",
        *("-cp", f"{jars}/*"),
    ]
    users = [
        f"SCRAM-SHA-{bits}=[name=app,password={PASSWORD},iterations=4096]" for bits in (256, 512)
    ]
    formatted = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", "c3RyZWFtLXJlY29tbWVuZA",
         "-c", properties, "--add-scram", users[0], "--add-scram", users[1]],
        env=INHERITED, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    if formatted.returncode != 0:
        unavailable(f"Apache Kafka could not be set up:\n{formatted.stdout}{formatted.stderr}")
    at = {name: f"127.0.0.1:{port.number}" for name, port in ports.items()}
    probe = f"exec 3<>/dev/tcp/127.0.0.1/{ports['sasl_tls'].number}"
    server = Server(
        address=at["plain"],
        command=[*java, "kafka.Kafka", str(properties)],
        environment=INHERITED,
        health=["bash", "-c", probe],
        directory=directory,
    )
    with token_endpoint(authority) as endpoint, running(server, *ports.values()):
        yield SecuredKafka(
            **{name: at[name] for name in names},
            ca_file=str(files["ca"]),
            certificate_file=str(files["cert"]),
            key_file=str(files["key"]),
            other_ca_file=str(files["other"]),
            endpoint=endpoint,
        )


def _properties(directory: Path, ports: dict[str, ReservedPort], files: dict[str, Path]) -> str:
    """The broker's configuration, KRaft in one process."""
    names = {name: name.upper() for name in ports}
    protocols = {
        "tls": "SSL",
        "mutual_tls": "SSL",
        "sasl_tls": "SASL_SSL",
        "sasl_plain": "SASL_PLAINTEXT",
    }
    listeners = {name: f"{names[name]}://127.0.0.1:{port.number}" for name, port in ports.items()}
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = (
        f'org.apache.kafka.common.security.plain.PlainLoginModule required user_app="{PASSWORD}";'
    )
    token = (
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";'
    )
    lines = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "controller.quorum.voters": f"1@127.0.0.1:{ports['controller'].number}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": ",".join(listeners.values()),
        "advertised.listeners": ",".join(
            address for name, address in listeners.items() if name != "controller"
        ),
        "listener.security.protocol.map": ",".join(
            f"{named}:{protocols.get(name, 'PLAINTEXT')}" for name, named in names.items()
        ),
        "log.dirs": str(directory / "data"),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files["keystore"]),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files["ca"]),
        "listener.name.mutual_tls.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.sasl_plain.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_plain.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.sasl_tls.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.sasl_tls.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.sasl_tls.plain.sasl.jaas.config": plain,
        "listener.name.sasl_tls.oauthbearer.sasl.jaas.config": token,
        "listener.name.sasl_tls.oauthbearer.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())
