"""Settings of every process, read once at the edges from `RECOMMENDER_*` variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What an operator may change; each field is the variable `RECOMMENDER_<FIELD>`.

    >>> Settings(partitions=8).partitions
    8
    """

    model_config = SettingsConfigDict(env_prefix="RECOMMENDER_", frozen=True, extra="forbid")

    kafka: str = Field("", description="Kafka bootstrap servers, host:port[,…]; empty: embedded.")
    redis: str = Field("", description="Redis URL; empty: embedded.")
    data_dir: Path = Field(
        Path(".recommender"), description="Folder of the embedded servers' files and logs."
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
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of each event topic.")
    replication_factor: int = Field(1, ge=1, le=9, description="Replicas of each topic.")
    purchase_types: frozenset[str] = Field(
        frozenset({"purchase", "buy", "order", "transaction"}),
        description="Event types that count as purchases, in any case (JSON list).",
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
        100,
        ge=10,
        le=1000,
        description="Events kept of each user or session; also the window "
        "in which a repeated eventId is recognised.",
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
    max_items: int = Field(
        1_000_000,
        ge=1,
        description="Items a group may hold; events on further new items go to the dead letters.",
    )
    batch_events: int = Field(
        500, ge=1, le=5000, description="Messages a worker applies in one atomic step, at most."
    )
    batch_wait_s: float = Field(
        0.01,
        ge=0,
        le=1,
        description="How long a busy worker lets a batch fill; a lone event never waits.",
    )
    examples_per_s: float = Field(
        50.0, ge=0, description="Training examples for the ranker that a worker samples, at most."
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
    publish_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Longest wait for Kafka to acknowledge an event."
    )
    impression_ttl_s: int = Field(
        7200, ge=1, description="How long a served list is kept for attribution of clicks."
    )
    max_body_bytes: int = Field(65536, ge=1024, description="Largest HTTP request body.")
    cors_origins: list[str] = Field(
        [], description='Origins browsers may call from (JSON list; ["*"] for all).'
    )
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the API listens on; 0: any free.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of a worker's or forwarder's metrics; 0: none."
    )
    forward_tracking_id: str = Field(
        "",
        max_length=256,
        description="Amazon Personalize tracking id to forward events to; empty: no forwarding.",
    )
    forward_calls_per_s: float = Field(
        1000.0, gt=0, description="PutEvents calls a second to Amazon Personalize, at most."
    )
    forward_parallel: int = Field(
        16, ge=1, le=256, description="PutEvents calls under way at once."
    )
    forward_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for one PutEvents answer."
    )

    @field_validator("purchase_types")
    @classmethod
    def _lower_names(cls, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in names)

    @field_validator("event_weights")
    @classmethod
    def _lower_keys(cls, weights: dict[str, float]) -> dict[str, float]:
        return {name.lower(): weight for name, weight in weights.items()}

    @property
    def strong_types(self) -> frozenset[str]:
        """Event types that weigh more than a click."""
        return frozenset(name for name, weight in self.event_weights.items() if weight > 1)
