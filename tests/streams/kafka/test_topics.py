"""Topics on a real broker: created once, by the settings, with an id for each incarnation."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from models.errors import NotConfigured, TopicMismatch, Unavailable
from models.settings import Settings
from streams.kafka.topics import Retention, Topics, apply_retention, ensure_topics, topic_ids
from tests.servers import own_port, wait_until
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Servers

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def _no_sockets_left(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Collect the sockets of refused connections, which kafka-python does not close.

    Its log is silenced because a record keeps the error, and so the socket, past the test's end.
    """
    caplog.set_level(logging.CRITICAL, logger="kafka")
    yield
    gc.collect()


def described(address: str, names: list[str]) -> dict[str, int]:
    """Number of partitions of each topic, from the broker."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(names)}
    finally:
        admin.close()


def test_topics_are_created_by_the_settings(broker: str) -> None:
    """Each topic has the settings' partitions, the examples and the audit log a single one."""
    settings = Settings(kafka=broker, topic_prefix="made.", partitions=3)
    topics = Topics.of(settings)
    created = ensure_topics(settings)
    expected = {
        topics.clicks: 3,
        topics.purchases: 3,
        topics.dead_letters: 3,
        topics.examples: 1,
        topics.audit: 1,
        topics.items: 3,
        topics.users: 3,
        topics.served: 3,
    }
    assert sorted(created) == sorted(expected)
    assert described(broker, list(expected)) == expected


def test_creating_again_creates_nothing(broker: str) -> None:
    """A later run creates missing topics only."""
    settings = Settings(kafka=broker, topic_prefix="twice.", partitions=2)
    ensure_topics(settings)
    assert ensure_topics(settings) == []
    admin = KafkaAdminClient(bootstrap_servers=broker)
    try:
        admin.delete_topics([Topics.of(settings).items])
    finally:
        admin.close()
    assert ensure_topics(settings) == [Topics.of(settings).items]


def test_other_partitions_of_an_event_topic_are_refused(broker: str) -> None:
    """Clicks and purchases of a session must meet in one worker, so their counts must agree."""
    ensure_topics(Settings(kafka=broker, topic_prefix="other.", partitions=2))
    with pytest.raises(TopicMismatch, match=r"other\.events\.clicks has 2 partitions .* says 4"):
        ensure_topics(Settings(kafka=broker, topic_prefix="other.", partitions=4))


def test_a_topic_that_was_made_again_has_another_id(broker: str) -> None:
    """The id stays while the topic does, and changes when it is deleted and created again."""
    settings = Settings(kafka=broker, topic_prefix="again.", partitions=1)
    ensure_topics(settings)
    clicks, purchases = Topics.of(settings).clicks, Topics.of(settings).purchases
    first = topic_ids(settings, [clicks, purchases])
    assert first == topic_ids(settings, [clicks, purchases])
    assert first[clicks] != first[purchases]
    assert len({incarnation.partition("/")[0] for incarnation in first.values()}) == 1
    admin = KafkaAdminClient(bootstrap_servers=broker)
    try:
        admin.delete_topics([clicks])
    finally:
        admin.close()
    ensure_topics(settings)
    second = topic_ids(settings, [clicks, purchases])
    assert second[clicks] != first[clicks]
    assert second[purchases] == first[purchases]


def test_asking_for_a_missing_topic_does_not_create_it(broker: str) -> None:
    """The error names the command that creates it."""
    settings = Settings(kafka=broker, topic_prefix="missing.", publish_timeout_s=2)
    with pytest.raises(Unavailable, match="run `recommender topics`"):
        topic_ids(settings, ["missing.events.clicks"])
    assert described(broker, ["missing.events.clicks"]) == {"missing.events.clicks": 0}


@pytest.mark.parametrize("kafka", ["", " , "])
def test_a_missing_address_is_an_error(kafka: str) -> None:
    """The error names the variable."""
    with pytest.raises(NotConfigured, match="RECOMMENDER_KAFKA"):
        ensure_topics(Settings(kafka=kafka))


@pytest.mark.parametrize("kafka", ["127.0.0.1:notaport", "no.such.host.invalid:9092"])
def test_a_wrong_address_is_an_error(kafka: str) -> None:
    """The error names the variable RECOMMENDER_KAFKA."""
    with pytest.raises(Unavailable, match="RECOMMENDER_KAFKA"):
        ensure_topics(Settings(kafka=kafka, publish_timeout_s=0.3))


def test_an_outage_is_an_error() -> None:
    """The error names the address."""
    address = f"127.0.0.1:{own_port()}"
    with pytest.raises(Unavailable, match=address):
        topic_ids(Settings(kafka=address, publish_timeout_s=0.3), ["any"])


def test_a_server_that_never_answers_is_an_error() -> None:
    """A server that accepts connections and stays silent is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Unavailable, match=address):
            ensure_topics(Settings(kafka=address, publish_timeout_s=0.3))


def test_retention_is_that_of_the_settings(servers: Servers) -> None:
    """Also of topics that exist; the embedded broker, which keeps nothing, has nothing to set."""
    is_apache = servers.session_timeout_s > EMBEDDED_SESSION_TIMEOUT_S
    # Apache Kafka, shared by all tests, may take longer than usual for each answer.
    settings = Settings(
        kafka=servers.kafka, topic_prefix="kept.", partitions=1, publish_timeout_s=60
    )
    ensure_topics(settings)
    assert apply_retention(settings) == []
    longer = settings.model_copy(update={"event_retention_s": 9 * 86400})

    changed = apply_retention(longer)

    topics = Topics.of(settings)
    days = [(one, 9 * 86400, 7 * 86400.0) for one in (topics.clicks, topics.purchases)]
    expected = [*days, (topics.examples, 9 * 86400, 7 * 86400.0)] if is_apache else []
    assert sorted(changed) == sorted(Retention(*one) for one in expected)
    # Apache Kafka tells of a change a moment after it has taken it.
    wait_until(lambda: apply_retention(longer) == [], within_s=60, what="nothing left to change")
    assert len(apply_retention(settings)) == len(changed)
