"""Settings of every process, read once at the edges from `RECOMMENDER_*` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.environment import PREFIX, Environment
from models.metadata_records import MAX_RECORD_BYTES
from models.secrets import redacted

QUOTAS = {
    "schemas": 500,
    "dataset-groups": 5,
    "solutions": 10,
    "campaigns": 5,
    "recommenders": 5,
    "filters": 30,
    "filter-fields": 20,
    "metric-attributions": 1,
    "solution-versions": 1000,
    "tags": 50,
    "pending-dataset-import-jobs": 5,
    "pending-dataset-export-jobs": 5,
    "pending-data-deletion-jobs": 5,
    "pending-batch-inference-jobs": 5,
    "pending-batch-segment-jobs": 5,
    "pending-solution-versions": 20,
}
"""Amazon's documented quotas, and numbers of our own for what it has none for."""


class Settings(BaseSettings):
    """What an operator may change; each field is the variable `RECOMMENDER_<FIELD>`.

    >>> Settings(partitions=8).partitions
    8
    """

    # An input that is wrong may still be a secret: errors do not repeat it.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    kafka: str = Field("", description="Kafka bootstrap servers, host:port[,…]; empty: embedded.")
    redis: str = Field("", description="Redis URL; empty: embedded.")
    data_dir: Path = Field(
        Path(".recommender"), description="Folder of the embedded servers' files and logs."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning",
        description="What goes to the log of every command and of the libraries in it: debug, "
        "info, warning or error.",
    )
    buckets_dir: str = Field(
        "",
        description="Folder that stands for S3, with a folder for each bucket; "
        "empty: S3 as boto3 finds it.",
    )
    prepare_memory_mb: int = Field(
        512,
        ge=256,
        description="Memory that `recommender prepare` may take for data; beyond it, disk.",
    )
    group: str = Field(
        "shop", pattern=r"^[A-Za-z0-9_-]{1,63}$", description="Dataset group: the tenant's name."
    )
    tracking_id: str = Field(
        "shop", min_length=1, max_length=256, description="Tracking id that events must carry."
    )
    topic_prefix: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="Put before every topic's name."
    )
    # More than workers need: the embedded broker looks through a whole partition at each fetch.
    partitions: int = Field(16, ge=1, le=1024, description="Partitions of each event topic.")
    replication_factor: int = Field(1, ge=1, le=9, description="Replicas of each topic.")
    purchase_types: frozenset[str] = Field(
        frozenset({"purchase", "buy", "order", "transaction"}),
        description="Event types that count as purchases, in any case.",
    )
    event_weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        {
            "cart": 2.0,
            "add_to_cart": 2.0,
            "addtocart": 2.0,
            "purchase": 3.0,
            "buy": 3.0,
            "order": 3.0,
            "transaction": 3.0,
        },
        description="Weight of an event type in co-visitation and popularity; others weigh 1.",
    )
    future_limit_s: float = Field(
        300.0, ge=0, description="An event further in the future than this is refused."
    )
    history_events: int = Field(
        200,
        ge=10,
        le=1000,
        description="Events kept of each user or session; also how many of its last events, in "
        "whatever order they came, are recognised when their eventId comes again.",
    )
    recent_events: int = Field(
        100_000,
        ge=1000,
        le=10_000_000,
        description="Newest events of a group among which one is recognised that comes again under "
        "another session, of nobody or of the same user; 14 bytes each.",
    )
    session_ttl_s: int = Field(
        30 * 86400,
        ge=60,
        description="An anonymous session and its link to a user expire "
        "after this long without an event.",
    )
    user_ttl_s: int = Field(
        400 * 86400, ge=60, description="A user's history expires after this long without an event."
    )
    user_sessions: int = Field(
        100,
        ge=1,
        le=1000,
        description="Sessions that are linked to a user at once; the oldest link goes first.",
    )
    tombstone_ttl_s: int = Field(
        60 * 86400,
        ge=60,
        description="For so long an erased user's earlier events are dropped when they come again; "
        "never less than a session lives or Kafka keeps events and dead letters.",
    )
    max_tombstones: int = Field(
        1_000_000,
        ge=1000,
        description="Erased users and sessions a group remembers, at most; about 100 bytes each, "
        "the oldest go first.",
    )
    event_retention_s: int = Field(
        7 * 86400,
        ge=60,
        description="For so long the topics of events and examples keep messages; "
        "set when `recommender topics` makes them.",
    )
    dead_letter_retention_s: int = Field(
        7 * 86400,
        ge=60,
        description="For so long the topic of dead letters keeps them; set likewise.",
    )
    max_unpacked_bytes: int = Field(
        64 * 2**20,
        ge=2**20,
        le=2**31,
        description="Size to which a compressed batch of messages may unpack; a larger one counts "
        "as one that nobody can read, and stops its partition.",
    )
    dead_letter_payload_bytes: int = Field(
        MAX_RECORD_BYTES,
        ge=0,
        le=MAX_RECORD_BYTES,
        description="Bytes of a message that its dead letter keeps; 0: its position alone. A "
        "replay reads what is lacking at its source, while Kafka has it.",
    )
    max_items: int = Field(
        1_000_000,
        ge=1,
        description="Items a group may hold; events on further new items go to the dead letters.",
    )
    max_users: int = Field(
        1_000_000,
        ge=1,
        description="Users with metadata a group may hold; records of more go to the dead letters.",
    )
    batch_events: int = Field(
        500, ge=1, le=5000, description="Messages a worker applies in one atomic step, at most."
    )
    batch_wait_s: float = Field(
        0.01,
        ge=0,
        le=1,
        description="How long a busy worker lets a batch fill; a few events never wait.",
    )
    examples_per_s: float = Field(
        100.0,
        ge=0,
        description="Training examples for the ranker that a worker samples, at most; "
        "fewer where the stream is behind.",
    )
    session_timeout_s: float = Field(
        6.0, ge=2, description="Kafka gives a silent worker's partitions to others after this long."
    )
    exploration_share: float = Field(
        0.04,
        ge=0,
        le=0.5,
        description="Share of an answer given to new items, so that they get their chance; "
        "0 for none.",
    )
    popular_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of an answer that the week's 50 most popular items may take.",
    )
    category_share: float = Field(
        1.0, gt=0, le=1, description="Share of an answer that items of one category may take."
    )
    category_property: str = Field(
        "CATEGORY",
        min_length=1,
        max_length=150,
        description="Property of items that names their categories, separated by |.",
    )
    cache_s: float = Field(
        1.0, ge=0, le=60, description="How old an item's neighbours and counts may be in an answer."
    )
    after_timeout_s: float = Field(
        2.0, ge=0, le=30, description="Longest wait of ?after= for an event to take effect."
    )
    after_max_waiting: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Requests of a process that may wait for ?after= at once; more get 429.",
    )
    publish_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Longest wait for Kafka to acknowledge an event."
    )
    impression_ttl_s: int = Field(
        7200,
        ge=1,
        description="How long a served list is kept for attribution of clicks, within the budget.",
    )
    impression_budget_mb: int = Field(
        64,
        ge=0,
        le=1_000_000,
        description="Memory of Redis that a group's served lists may take; the oldest go first. "
        "0: none are kept.",
    )
    publish_buffer_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1,
        description="Bytes of events and records that a sender holds while Kafka has not "
        "acknowledged them, at most.",
    )
    max_publishing: int = Field(
        256,
        ge=1,
        description="Requests of an API process that wait for Kafka at once, at most; "
        "more are answered 429.",
    )
    max_answering: int = Field(
        128,
        ge=1,
        description="Requests of an API process that read or write Redis at once, at most; "
        "more are answered 429.",
    )
    max_body_bytes: int = Field(65536, ge=1024, description="Largest HTTP request body.")
    max_bodies_bytes: int = Field(
        64 * 1024 * 1024,
        ge=0,
        description="Memory for all request bodies under way, beyond the first 64 KiB of each; "
        "a request that finds none is answered 503.",
    )
    max_target_bytes: int = Field(
        8192, ge=256, description="Longest path and query of an HTTP request; 414 beyond."
    )
    max_head_bytes: int = Field(
        32768,
        ge=1024,
        description="Largest head of an HTTP request, its target and all headers; 431 beyond.",
    )
    max_headers: int = Field(100, ge=8, description="Headers an HTTP request may have; 431 beyond.")
    head_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for the whole head of an HTTP request; 408 beyond."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="Longest wait for the whole body of an HTTP request; 408 beyond."
    )
    write_timeout_s: float = Field(
        30.0,
        gt=0,
        description="A connection whose client does not read an answer is cut after this long.",
    )
    keep_alive_s: int = Field(
        5, ge=1, description="An HTTP connection without a request is closed after this long."
    )
    max_connections: int = Field(
        1000,
        ge=1,
        description="HTTP connections of an API process; beyond them the longest idle one makes "
        "room, and where none is idle the new one is answered 503.",
    )
    allowed_hosts: list[str] = Field(
        [],
        description="Names in the Host header that are answered beside IP addresses, localhost, "
        "this machine's name and RECOMMENDER_HOST; *.example.com: all below a name; *: "
        "all.",
    )
    cors_origins: list[str] = Field([], description="Origins browsers may call from; *: all.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the API listens on; 0: any free.")
    campaigns: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")], str] = (
        Field(
            {
                "default": "aws-user-personalization-v2",
                "similar-items": "aws-similar-items",
                "popularity": "aws-popularity-count",
                "trending": "aws-trending-now",
                "ranking": "aws-personalized-ranking",
            },
            description="Campaigns of the group that are always there, and the recipe of each.",
        )
    )
    personalize_auth: Literal["off", "access-key", "sigv4"] = Field(
        "off",
        description="Who may call /personalize: off (anybody, and only while the API listens on "
        "loopback), access-key (who names a known key; no proof) or sigv4 (who signed with its "
        "secret).",
    )
    personalize_access_keys: dict[str, SecretStr] = Field(
        {}, description="Secret of each access key id that may call /personalize."
    )
    personalize_max_body_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Largest request body of /personalize: PutItems takes 320,000 characters.",
    )
    personalize_region: str = Field(
        "us-east-1",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="Region in the ARNs that are given out; in a request, any is accepted.",
    )
    personalize_account: str = Field(
        "000000000000",
        pattern=r"^[0-9]{12}$",
        description="Account in the ARNs that are given out; in a request, any is accepted.",
    )
    personalize_quotas: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        QUOTAS,
        description="Resources that there may be: of the service (schemas, dataset-groups), of a "
        "solution (solution-versions), of a resource (tags), of a dataset group (the others), and "
        "jobs that are pending or in progress; what is not named keeps its default.",
    )
    job_lease_s: float = Field(
        15.0,
        ge=1,
        le=600,
        description="A job of `recommender jobs` goes on elsewhere when its runner is silent for "
        "this long.",
    )
    import_bad_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of bad rows with which an import still takes the good ones; with more, "
        "nothing is imported.",
    )
    training_min_users: int = Field(
        25, ge=0, description="Users with 2 interactions that a solution version needs."
    )
    training_min_interactions: int = Field(
        1000, ge=0, description="Interactions that a solution version needs."
    )
    training_max_interactions: int = Field(
        20_000,
        ge=100,
        description="Interactions that a solution version is measured on, at most: those of a "
        "sample of users.",
    )
    shadow_campaign_arn: str = Field(
        "",
        pattern=r"^(arn:[a-z0-9-]+:personalize:.{1,200}:(campaign|recommender)/.{1,63})?$",
        description="Amazon Personalize campaign to compare answers of /recommend with; "
        "empty: none.",
    )
    shadow_share: float = Field(
        0.01, ge=0, le=1, description="Share of those answers that are compared."
    )
    drain_s: float = Field(
        10.0,
        ge=0,
        le=600,
        description="Longest wait of `recommender up`, once it is asked to end and takes no more, "
        "for what it has accepted to take effect: its embedded broker keeps nothing.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of a worker's or forwarder's metrics; the next ones for `up`'s further "
        "workers and its jobs; 0: none.",
    )
    forward_tracking_id: str = Field(
        "",
        max_length=256,
        description="Amazon Personalize tracking id that events of RECOMMENDER_TRACKING_ID are "
        "forwarded to; empty: they are not.",
    )
    forward_tracking_ids: dict[
        Annotated[str, Field(min_length=1, max_length=256)],
        Annotated[str, Field(min_length=1, max_length=256)],
    ] = Field(
        {},
        description="Amazon Personalize tracking id of each tracking id here whose events are "
        "forwarded.",
    )
    forward_event_types: frozenset[str] = Field(
        frozenset(),
        description="Event types that are forwarded, in any case; empty: all.",
    )
    forward_sessions: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the sessions that are forwarded, each as a whole.",
    )
    forward_without_properties: list[str] = Field(
        [],
        description="Keys of `properties` that are not forwarded; *: no properties at all.",
    )
    forward_calls_per_s: float = Field(
        1000.0,
        gt=0,
        description="PutEvents calls a second to each tracker of Amazon Personalize, at most.",
    )
    forward_parallel: int = Field(
        16, ge=1, le=256, description="PutEvents calls under way at once for each tracker."
    )
    forward_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for one PutEvents answer."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment."""
        return init_settings, Environment(settings_cls)

    def __repr__(self) -> str:
        # As a whole, for a list or a mapping may hold one as well.
        return redacted(super().__repr__())

    def __str__(self) -> str:
        return redacted(super().__str__())

    @field_validator("kafka")
    @classmethod
    def _only_servers(cls, servers: str) -> str:
        if "@" in servers or "://" in servers:
            raise ValueError("write host:port[,host:port], without a scheme, user or password")
        return servers

    @field_validator("redis")
    @classmethod
    def _redis_url(cls, url: str) -> str:
        # What a URL's parser says of a wrong one may repeat the password.
        hint = "; in a user or password write / ? # @ as %2F %3F %23 %40"
        try:
            parts = urlsplit(url)
            is_url = parts.port is None or parts.port > 0
        except ValueError:
            is_url = False
        if url and not (is_url and parts.scheme in {"redis", "rediss", "unix"}):
            raise ValueError(f"no redis://[user:password@]host:port/number, nor rediss://{hint}")
        if url and parts.scheme != "unix" and not parts.hostname:
            raise ValueError(f"names no host{hint}")
        return url

    @field_validator("purchase_types", "forward_event_types")
    @classmethod
    def _lower_names(cls, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in names)

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_level(cls, level: object) -> object:
        return level.lower() if isinstance(level, str) else level

    @field_validator("event_weights")
    @classmethod
    def _lower_keys(cls, weights: dict[str, float]) -> dict[str, float]:
        return {name.lower(): weight for name, weight in weights.items()}

    @field_validator("personalize_quotas")
    @classmethod
    def _all_quotas(cls, quotas: dict[str, int]) -> dict[str, int]:
        unknown = sorted(quotas.keys() - QUOTAS.keys())
        if unknown:
            raise ValueError(f"no such quotas: {', '.join(unknown)}; there are {', '.join(QUOTAS)}")
        return {**QUOTAS, **quotas}

    @property
    def kept_tombstones_s(self) -> int:
        """How long tombstones are kept: what may still come again is older than they."""
        return max(
            self.tombstone_ttl_s,
            self.session_ttl_s,
            self.event_retention_s,
            self.dead_letter_retention_s,
        )

    @property
    def forwarded_trackers(self) -> dict[str, str]:
        """Amazon Personalize tracking ids by the tracking ids here.

        >>> Settings(forward_tracking_id="aws-1").forwarded_trackers
        {'shop': 'aws-1'}
        """
        own = {self.tracking_id: self.forward_tracking_id} if self.forward_tracking_id else {}
        return own | self.forward_tracking_ids

    @property
    def strong_types(self) -> frozenset[str]:
        """Event types that weigh more than a click."""
        return frozenset(name for name, weight in self.event_weights.items() if weight > 1)
