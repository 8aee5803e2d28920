"""Settings of state and of the workers that write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from models.metadata_records import MAX_RECORD_BYTES


class StateSettings(BaseSettings):
    """Events, histories, erasures, limits of a group, and batches of a worker."""

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
        "another session, anonymous or of the same user; 14 bytes each.",
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
        "`recommender topics` sets it.",
    )
    dead_letter_retention_s: int = Field(
        7 * 86400,
        ge=60,
        description="For so long the topic of dead letters keeps them; set likewise.",
    )
    audit_retention_s: int = Field(
        365 * 86400,
        ge=60,
        description="For so long the topic of the audit log keeps entries; set likewise.",
    )
    max_unpacked_bytes: int = Field(
        64 * 2**20,
        ge=2**20,
        le=2**31,
        description="Size to which a compressed batch of messages may unpack; a larger one counts "
        "as undecodable, and stops its partition.",
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
        le=16_000_000,
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
    catch_up_examples: int = Field(
        20_000,
        ge=0,
        description="Examples of kept events that the ranker learns from after a bulk load, at "
        "most, those it has learned from included; 0: it never catches up.",
    )
    catch_up_events: int = Field(
        200_000,
        ge=1000,
        le=10_000_000,
        description="Newest kept events that a catch-up goes through; up to 600 bytes of Redis "
        "and 250 of the worker each, meanwhile.",
    )
    catch_up_share: float = Field(
        0.25, gt=0, le=1, description="Share of the time that a worker may spend on catching up."
    )
    session_timeout_s: float = Field(
        6.0, ge=2, description="Kafka gives a silent worker's partitions to others after this long."
    )

    @field_validator("purchase_types")
    @classmethod
    def _lower_purchase_types(cls, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in names)

    @field_validator("event_weights")
    @classmethod
    def _lower_keys(cls, weights: dict[str, float]) -> dict[str, float]:
        return {name.lower(): weight for name, weight in weights.items()}

    @property
    def kept_tombstones_s(self) -> int:
        """Lifetime of tombstones: no older event can come again after it."""
        return max(
            self.tombstone_ttl_s,
            self.session_ttl_s,
            self.event_retention_s,
            self.dead_letter_retention_s,
        )

    @property
    def strong_types(self) -> frozenset[str]:
        """Event types that weigh more than a click."""
        return frozenset(name for name, weight in self.event_weights.items() if weight > 1)
