"""Commands on Apache Kafka with TLS and SASL: what they need, and what they say without it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiokafka
import pytest

from models.errors import Unavailable
from models.settings import Settings
from ops.embedded_servers import start_redis
from streams.kafka.connections.security import aiokafka_options
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import Topics, ensure_topics
from tests.e2e.commands.test_commands import BARE
from tests.forked_processes import command_result
from tests.secured_kafka import CLIENT_SECRET, PASSWORD, SecuredKafka, secured_kafka
from tests.servers import ROOT
from tests.stack import Redis, Servers, Stack, make_stacks

pytestmark = pytest.mark.kafka

USER = {"kafka_username": "app", "kafka_password": PASSWORD}


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    """One broker for all mechanisms."""
    with secured_kafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
def stack(kafka: SecuredKafka, redis: str, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks on the broker's listeners."""

    def nothing() -> None:
        pass

    servers = Servers(kafka.plain, Redis(redis, tmp_path, nothing, nothing, nothing))
    with make_stacks(servers, tmp_path) as make:
        yield make


def secured(kafka: SecuredKafka, name: str) -> dict[str, Any]:
    """Settings of a way to show who one is."""
    tls = {"kafka_ca_file": kafka.ca_file}
    sasl = {"kafka": kafka.sasl_tls, "kafka_security_protocol": "sasl_ssl", **tls}
    ways: dict[str, dict[str, Any]] = {
        "TLS": {"kafka": kafka.tls, "kafka_security_protocol": "ssl", **tls},
        "client certificate": {
            "kafka": kafka.mutual_tls,
            "kafka_security_protocol": "ssl",
            "kafka_certificate_file": kafka.certificate_file,
            "kafka_key_file": kafka.key_file,
            **tls,
        },
        "SCRAM without TLS": {
            "kafka": kafka.sasl_plain,
            "kafka_security_protocol": "sasl_plaintext",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            **USER,
        },
        "OAUTHBEARER": {
            "kafka_sasl_mechanism": "OAUTHBEARER",
            "kafka_token_url": kafka.endpoint.url,
            "kafka_token_client_id": "app",
            "kafka_token_client_secret": CLIENT_SECRET,
            **sasl,
        },
    }
    ways |= {
        mechanism: {"kafka_sasl_mechanism": mechanism, **USER, **sasl}
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    }
    return ways[name]


WAYS = (
    "TLS",
    "client certificate",
    "PLAIN",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "SCRAM without TLS",
    "OAUTHBEARER",
)


@pytest.mark.parametrize("way", WAYS)
async def test_both_client_libraries_connect(kafka: SecuredKafka, way: str) -> None:
    """The administrator and the producer of kafka-python, and aiokafka's consumer."""
    prefix = f"{way.replace(' ', '-')}."
    settings = Settings(topic_prefix=prefix, partitions=2, **secured(kafka, way))
    assert ensure_topics(settings)
    assert ensure_topics(settings) == []
    with Tracker(settings) as tracker:
        tracker.track("ada", "s", "tent", "click").result()
    consumer = aiokafka.AIOKafkaConsumer(
        Topics.of(settings).clicks,
        bootstrap_servers=settings.kafka,
        auto_offset_reset="earliest",
        **aiokafka_options(settings),
    )
    await consumer.start()
    try:
        message = await consumer.getone()
    finally:
        await consumer.stop()
    assert json.loads(message.value)["sessionId"] == "s"


@pytest.mark.parametrize("way", ["client certificate", "SCRAM-SHA-512", "OAUTHBEARER"])
def test_every_process_works(
    kafka: SecuredKafka, stack: Callable[..., Stack], way: str, tmp_path: Path
) -> None:
    """Worker, API, jobs, status, replay and dead letters; each event counts once.

    A connection with a token ends every three seconds unless it shows a new one.
    """
    one = stack(**secured(kafka, way))
    for name in ("worker", "jobs", "api"):
        one.start(name)
    one.wait_ready()
    n_before = one.counts().get("events", 0)
    until_s, n_sent = time.monotonic() + (8 if way == "OAUTHBEARER" else 0.5), 0
    while time.monotonic() < until_s:
        after = one.click("tent", user="ada", session=f"s{n_sent}")
        n_sent += 1
        time.sleep(0.2)
    one.wait(
        lambda: bool(one.recommend(f"after={after}")["freshness"]["afterReached"]), "in effect"
    )
    recorded = tmp_path / "events.csv"
    recorded.write_text("session_id,item_id,event_type,timestamp\n1,stove,click,1790000000\n")
    for arguments in (("replay", str(recorded)), ("topics",), ("dead-letters", "list")):
        ended = one.run(*arguments)
        assert ended.returncode == 0, ended.stderr
    n_all = n_before + n_sent + 1
    one.wait(lambda: one.counts()["events"] >= n_all, "all have taken effect")
    shown = json.loads(one.run("status", "--json").stdout)
    assert shown["lag"] == 0
    assert one.counts()["events"] == n_all
    log = one.log()
    assert PASSWORD not in log
    assert CLIENT_SECRET not in log


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("PLAIN", {"KAFKA_PASSWORD": "Pl4nted"}, "refuses the user app or the password"),
    ("SCRAM-SHA-512", {"KAFKA_PASSWORD": "Pl4nted"}, "refuses the user app or the password"),
    ("SCRAM-SHA-256", {"KAFKA_USERNAME": "eve"}, "refuses the user eve or the password"),
    ("OAUTHBEARER", {"KAFKA_TOKEN_CLIENT_SECRET": "Pl4nted"}, "refuses the client (401"),
    ("TLS", {"KAFKA_CA_FILE": "other"}, "its certificate is not trusted"),
    ("TLS", {"KAFKA": "plain"}, "it speaks no TLS there"),
    ("TLS", {"KAFKA": "mutual_tls"}, "without a client certificate"),
    ("TLS", {"KAFKA": "sasl_tls"}, "it asks who is calling: set RECOMMENDER_KAFKA_SECURITY"),
    ("SCRAM-SHA-512", {"KAFKA": "tls"}, "it asks nobody who is calling"),
    ("SCRAM without TLS", {"KAFKA_SASL_MECHANISM": "PLAIN"}, "it offers SCRAM-SHA-512, not PLAIN"),
]


def _wrong(kafka: SecuredKafka, way: str, changed: dict[str, str]) -> dict[str, str]:
    variables = {f"RECOMMENDER_{k.upper()}": str(v) for k, v in secured(kafka, way).items()}
    for name, value in changed.items():
        listener = getattr(kafka, value, value) if name == "KAFKA" else value
        variables[f"RECOMMENDER_{name}"] = kafka.other_ca_file if value == "other" else listener
    return variables


@pytest.mark.parametrize(("way", "changed", "said"), WRONG)
def test_what_kafka_refuses_is_one_sentence(
    kafka: SecuredKafka, redis: str, tmp_path: Path, way: str, changed: dict[str, str], said: str
) -> None:
    """A worker waits for a server that is away, not for one that refuses it."""
    environment = BARE | {"RECOMMENDER_REDIS": redis} | _wrong(kafka, way, changed)
    ended = command_result(("worker",), environment=environment, directory=tmp_path, within_s=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert said in line
    assert "Pl4nted" not in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("api",),
        ("up", "--port", "0"),
        ("jobs",),
        ("forward",),
        ("topics",),
        ("status",),
        ("dead-letters", "list"),
        ("dead-letters", "replay"),
        ("skip", "events.clicks", "0", "0", "--yes"),
        ("replay", str(ROOT / "README.md")),
        ("items", "import", str(ROOT / "ops" / "shop_catalogue.csv")),
        ("audit",),
        ("rebuild",),
        ("rebuild", "--yes"),
        ("drill", "--configured", "--minutes", "1"),
    ],
)
def test_every_command_says_it(
    kafka: SecuredKafka, redis: str, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """And ends with an exit code of 1."""
    environment = BARE | {"RECOMMENDER_REDIS": redis, "RECOMMENDER_PORT": "0"}
    environment |= _wrong(kafka, "SCRAM-SHA-512", {"KAFKA_PASSWORD": "Pl4nted"})
    ended = command_result(arguments, environment=environment, directory=tmp_path, within_s=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "refuses the user app or the password: see RECOMMENDER_KAFKA_USERNAME" in line


def test_a_tracker_says_it(kafka: SecuredKafka) -> None:
    """At once, not after its time-out; when the password is right again, it connects."""
    chosen = secured(kafka, "SCRAM-SHA-512") | {"topic_prefix": "tracker."}
    ensure_topics(Settings(partitions=1, **chosen))
    with pytest.raises(Unavailable, match="refuses the user app or the password"):
        Tracker(Settings(**chosen | {"kafka_password": "Pl4nted"}))
    Tracker(Settings(**chosen)).close()
