"""The topics: names, configuration, creation and incarnations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
    for_code,
)

from models.errors import TopicMismatch
from models.settings import Settings
from models.state.shards.shard_names import mark_field, record_field
from models.tokens import TopicKind
from streams.kafka.connections.connection import connect, missing_topics, unavailable

_RETENTION = "retention.ms"


@dataclass(frozen=True)
class Topics:
    """The topics' names under one prefix; those of deltas are of one layout of shards.

    >>> Topics("eu.").clicks, Topics(generation=2).item_deltas
    ('eu.events.clicks', 'deltas.items.2')
    """

    prefix: str = ""
    generation: int = 0
    has_shards: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Topics:
        """Names under the settings' prefix, and of their group's layout of shards."""
        return cls(settings.topic_prefix, settings.generation, settings.shards > 1)

    @property
    def clicks(self) -> str:
        """Every event that is not a purchase, keyed by session."""
        return f"{self.prefix}events.clicks"

    @property
    def purchases(self) -> str:
        """Purchases, keyed by session; which types count is a setting."""
        return f"{self.prefix}events.purchases"

    @property
    def read(self) -> tuple[str, ...]:
        """Topics that a worker applies or learns from."""
        return (
            self.clicks, self.purchases, self.items, self.users, self.examples, self.served,
        )  # fmt: skip

    @property
    def session_deltas(self) -> str:
        """Deltas that session shards of a group of several send to others; a partition a shard."""
        return self._of_layout(f"{self.prefix}deltas.sessions")

    @property
    def item_deltas(self) -> str:
        """The same for item shards."""
        return self._of_layout(f"{self.prefix}deltas.items")

    def _of_layout(self, name: str) -> str:
        return f"{name}.{self.generation}" if self.generation else name

    @property
    def dead_letters(self) -> str:
        """Messages that could not be decoded, validated or applied."""
        return f"{self.prefix}events.dead-letters"

    @property
    def audit(self) -> str:
        """Entries of the audit log; one partition, so that they are in order."""
        return f"{self.prefix}audit"

    @property
    def examples(self) -> str:
        """Training examples for the ranker; one partition, so one worker learns."""
        return f"{self.prefix}ranking.examples"

    @property
    def served(self) -> str:
        """Served lists, keyed so that a user's or session's are in order."""
        return f"{self.prefix}recommendations.served"

    @property
    def items(self) -> str:
        """Item metadata upserts, compacted."""
        return f"{self.prefix}items"

    @property
    def users(self) -> str:
        """User metadata upserts, compacted."""
        return f"{self.prefix}users"

    def deltas(self, shards: int) -> tuple[str, ...]:
        """Those of deltas, which only a group of several shards has."""
        return (self.session_deltas, self.item_deltas) if shards > 1 else ()

    def field(self, topic: str, incarnation: str, number: int) -> str:
        """Names the watermark of a topic's partition in the state."""
        if topic == self.session_deltas:
            return mark_field("u", incarnation, number)
        if topic == self.item_deltas:
            return mark_field("i", incarnation, number)
        if self.has_shards and topic in {self.items, self.users}:
            return record_field("i" if topic == self.items else "u", incarnation, number)
        return f"{incarnation}/{number}"

    @property
    def of_tokens(self) -> dict[TopicKind, str]:
        """The topics that a token may name, by kind."""
        return {
            "clicks": self.clicks,
            "purchases": self.purchases,
            "items": self.items,
            "users": self.users,
        }


def ensure_topics(settings: Settings) -> list[str]:
    """Create missing topics; returns the names of those created.

    Safe to run at any time and by several processes at once.

    Raises
    ------
    Unavailable
        When Kafka does not answer in time.
    TopicMismatch
        When an event topic has another number of partitions than the settings, which would put
        a session's clicks and purchases on different workers; or when Kafka refuses to create one.
    """
    topics = Topics.of(settings)
    wanted = _wanted(topics, settings)
    with _admin(settings) as admin:
        existing = _partitions(admin, wanted)
        _check(existing, topics, settings)
        created = _create(admin, {name: wanted[name] for name in wanted if name not in existing})
        # Another process may have been first, with other settings.
        _check(_partitions(admin, wanted), topics, settings)
    return created


class Retention(NamedTuple):
    """For how long a topic keeps messages, in seconds: by the settings, and until now."""

    topic: str
    wanted_s: int
    before_s: float


def apply_retention(settings: Settings) -> list[Retention]:
    """Have existing topics keep messages for as long as the settings say; returns what changed.

    The embedded broker, whose topics are made at each start, has nothing to change.

    Raises
    ------
    Unavailable
        When Kafka does not answer in time.
    TopicMismatch
        When Kafka does not permit it.
    """
    wanted = {
        name: of_topic["configs"]
        for name, of_topic in _wanted(Topics.of(settings), settings).items()
        if _RETENTION in of_topic["configs"]
    }
    with _admin(settings) as admin:
        try:
            described = admin.describe_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, name, {_RETENTION: None})
                    for name in wanted
                ],
                config_filter="all",
            )
            found: dict[str, Any] = next(iter(described.values()), {})
            changed = []
            for name, configs in wanted.items():
                before_ms = float(found[name][_RETENTION]["value"])
                if before_ms != float(configs[_RETENTION]):
                    wanted_s = int(configs[_RETENTION]) // 1000
                    changed.append(Retention(name, wanted_s, before_ms / 1000))
            if changed:
                admin.alter_configs(
                    [
                        ConfigResource(ConfigResourceType.TOPIC, one.topic, wanted[one.topic])
                        for one in changed
                    ]
                )
        except (IncompatibleBrokerVersion, UnsupportedVersionError):
            return []
        except (ClusterAuthorizationFailedError, TopicAuthorizationFailedError) as error:
            raise TopicMismatch(
                f"Kafka does not permit to set for how long topics keep messages ({error}): set it "
                "as docs/operations.md#retention has it"
            ) from error
    return changed


def remove_topics(settings: Settings, names: Sequence[str]) -> None:
    """Delete topics, those that exist.

    Raises
    ------
    Unavailable
        When Kafka does not answer in time.
    TopicMismatch
        When Kafka does not permit it.
    """
    with _admin(settings) as admin:
        existing = list(_partitions(admin, names))
        try:
            if existing:
                admin.delete_topics(existing)
        except UnknownTopicOrPartitionError:
            return  # somebody else was first
        except (ClusterAuthorizationFailedError, TopicAuthorizationFailedError) as error:
            raise TopicMismatch(
                f"Kafka does not permit to delete {', '.join(existing)} ({error}): nobody reads "
                "them any more, delete them"
            ) from error


def topic_ids(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    """Incarnation of each topic, `<cluster id>/<topic id>`: new when a topic is made again.

    Raises
    ------
    Unavailable
        When Kafka does not answer in time, or has no such topic.
    """
    with _admin(settings) as admin:
        cluster = admin.describe_cluster()["cluster_id"]
        described = {topic["name"]: topic for topic in admin.describe_topics(list(names))}
    missing = sorted(name for name, topic in described.items() if topic["topic_id"] is None)
    if missing:
        raise missing_topics(settings, missing)
    return {name: f"{cluster}/{described[name]['topic_id']}" for name in names}


def _wanted(topics: Topics, settings: Settings) -> dict[str, dict[str, Any]]:
    """Configuration of each topic, by name."""
    replicas = {"replication_factor": settings.replication_factor}
    numbered = {"num_partitions": settings.partitions, **replicas}
    events = _kept_for(settings.event_retention_s)
    plain = {**numbered, "configs": events}
    compacted = {**numbered, "configs": {"cleanup.policy": "compact"}}
    of_shards = {"num_partitions": settings.shards, **replicas, "configs": events}
    return {
        **dict.fromkeys(topics.deltas(settings.shards), of_shards),
        topics.clicks: plain,
        topics.purchases: plain,
        topics.dead_letters: {
            **numbered,
            "configs": _kept_for(settings.dead_letter_retention_s),
        },
        topics.examples: {"num_partitions": 1, **replicas, "configs": events},
        topics.audit: {
            "num_partitions": 1,
            **replicas,
            "configs": _kept_for(settings.audit_retention_s),
        },
        topics.served: {**numbered, "configs": _kept_for(settings.served_retention_s)},
        topics.items: compacted,
        topics.users: compacted,
    }


def _kept_for(retention_s: int) -> dict[str, str]:
    """Configuration of retention and segments of a topic that keeps messages for so long.

    Kafka removes whole segments, never the one that is written: a busy one is rolled in time.
    """
    segment_s = max(60, min(86400, retention_s // 7))
    return {_RETENTION: str(1000 * retention_s), "segment.ms": str(1000 * segment_s)}


@contextmanager
def _admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    timeout_ms = round(1000 * settings.publish_timeout_s)
    admin = connect(KafkaAdminClient, settings, request_timeout_ms=timeout_ms)
    try:
        yield admin
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        admin.close()


def _partitions(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    """Number of partitions of each existing topic among these."""
    counts: dict[str, int] = {}
    for topic in admin.describe_topics(list(names)):
        error = for_code(topic["error_code"])
        if topic["partitions"]:
            counts[topic["name"]] = len(topic["partitions"])
        elif error not in {NoError, UnknownTopicOrPartitionError}:
            raise error(topic["name"])
    return counts


def _check(existing: dict[str, int], topics: Topics, settings: Settings) -> None:
    for name in (topics.session_deltas, topics.item_deltas):
        if existing.get(name, settings.shards) != settings.shards:
            raise TopicMismatch(
                f"topic {name} has {existing[name]} partitions, and group {settings.group} has "
                f"{settings.shards} shards: `recommender reshard` changes their number"
            )
    for name in (topics.clicks, topics.purchases):
        found = existing.get(name, settings.partitions)
        if found != settings.partitions:
            raise TopicMismatch(
                f"topic {name} has {found} partitions but RECOMMENDER_PARTITIONS says "
                f"{settings.partitions}: set RECOMMENDER_PARTITIONS={found}, or use another "
                "RECOMMENDER_TOPIC_PREFIX"
            )


def _create(admin: KafkaAdminClient, missing: dict[str, dict[str, Any]]) -> list[str]:
    """Create these topics and wait until they can be used; returns the names of the new ones."""
    if not missing:
        return []
    created = []
    for answer in admin.create_topics(missing, raise_errors=False)["topics"]:
        error = for_code(answer["error_code"])
        if error is NoError:
            created.append(answer["name"])
        elif error is not TopicAlreadyExistsError:
            reason = answer["error_message"] or error.__name__
            raise TopicMismatch(f"Kafka refuses to create topic {answer['name']}: {reason}")
    admin.wait_for_topics(list(missing))
    return created
