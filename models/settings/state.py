"""Settings of state and of the workers that write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from models.metadata_records import MAX_RECORD_BYTES

NegativeEffect = Literal["hide", "sink", "take_back_cart", "take_back_purchase"]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False)]


T = TypeVar("T")


def _lower(by_type: dict[str, T]) -> dict[str, T]:
    return {name.lower(): value for name, value in by_type.items()}


def _check_negative(types: dict[str, Any]) -> None:
    """Raise `ValueError` where a type is negative and something else besides."""
    positive = types["event_weights"].keys() | types["value_scales"].keys()
    positive |= types["purchase_types"] | types["cart_types"]
    both = types["negative_types"].keys() & positive
    if both:
        raise ValueError(
            f"{min(both)!r} is in negative_types, and in event_weights, value_scales, "
            "cart_types or purchase_types"
        )


class GroupEventTypes(BaseModel):
    """Differences of a dataset group from `event_weights`, `value_scales` and `negative_types`.

    "none" in place of an effect makes a type an ordinary one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, PositiveNumber] = {}
    value_scales: dict[str, PositiveNumber] = {}
    negative: dict[str, NegativeEffect | Literal["none"]] = {}

    @field_validator("weights", "value_scales", "negative")
    @classmethod
    def _lower_names(cls, by_type: dict[str, T]) -> dict[str, T]:
        return _lower(by_type)


class StateSettings(BaseSettings):
    """Events, histories, erasures, limits of a group, and batches of a worker."""

    shards: int = Field(
        1,
        ge=1,
        le=256,
        description="Shards of a new group over the primaries of a Redis Cluster; `recommender "
        "reshard` moves one that has state. 1: it is on one server. With more, what others do is "
        "in effect one hop through Kafka later, and some of what a group can do is refused: "
        "docs/scaling.md.",
    )
    purchase_types: frozenset[str] = Field(
        frozenset({"purchase", "buy", "order", "transaction"}),
        description="Event types that count as purchases, in any case.",
    )
    cart_types: frozenset[str] = Field(
        frozenset({"cart", "add_to_cart", "addtocart"}),
        description="Event types that put an item into the cart, in any case.",
    )
    event_weights: dict[str, PositiveNumber] = Field(
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
    value_scales: dict[str, PositiveNumber] = Field(
        {},
        description="Event types whose eventValue counts, and the value with which an event weighs "
        "what its type does: with half of it, such as the seconds watched, it weighs half, from a "
        "tenth to ten times. Without an eventValue it weighs what its type does.",
    )
    negative_types: dict[str, NegativeEffect] = Field(
        {
            "dislike": "hide",
            "not_interested": "hide",
            "thumbs_down": "hide",
            "skip": "sink",
            "remove_from_cart": "take_back_cart",
            "removefromcart": "take_back_cart",
            "return": "take_back_purchase",
            "refund": "take_back_purchase",
        },
        description="Event types that are negative feedback: hide takes the item out of the "
        "user's answers, and similar ones come later; sink has it come later, too; take_back_cart "
        "and take_back_purchase undo what the user's cart event, or purchase, of it counted for.",
    )
    group_event_types: dict[str, GroupEventTypes] = Field(
        {},
        description="What differs in dataset groups beside that of RECOMMENDER_GROUP, as JSON: "
        '{"outlet": {"weights": {"cart": 4}, "value_scales": {}, "negative": {"skip": "none"}}}; '
        "a type that is not named is as in the three settings above.",
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
        "another session, anonymous or of the same user; 13 bytes each.",
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
    served_retention_s: int = Field(
        7 * 86400,
        ge=60,
        description="For so long the topic of served lists keeps messages; set likewise.",
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
    examples_gather_s: float = Field(
        0.25,
        ge=0,
        le=10,
        description="How long events are gathered of which examples are made together: the "
        "ranker learns so much later, events take effect at once.",
    )
    challengers: list[str] = Field(
        [],
        description="Further rankers that learn beside the built-in ones, and serve while they "
        "lead: package.module:factory[,…], of the settings' group, the same in API and workers. "
        "docs/challengers.md.",
    )
    challenger_examples_per_s: float = Field(
        5.0,
        gt=0,
        le=100,
        description="Examples that challengers are measured on and learn from, at most, for each "
        "worker that samples them; some 60 KB each in Kafka.",
    )
    challenger_examples: int = Field(
        20_000,
        ge=0,
        le=1_000_000,
        description="Newest messages of the topic of examples from which challengers learn anew at "
        "the start of a process.",
    )
    challenger_share: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of a core that learning and measuring challengers may take: in the "
        "worker that learns, and in an API process while a challenger serves.",
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
    factor_events: int = Field(
        1_000_000,
        ge=0,
        le=20_000_000,
        description="Kept events from which the factors of items are learned, at most; some 60 "
        "bytes of the worker each, meanwhile; 0: none are learned, and answers use none.",
    )
    session_timeout_s: float = Field(
        6.0, ge=2, description="Kafka gives a silent worker's partitions to others after this long."
    )

    @field_validator("purchase_types", "cart_types")
    @classmethod
    def _lower_purchase_types(cls, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in names)

    @field_validator("event_weights", "value_scales")
    @classmethod
    def _lower_keys(cls, weights: dict[str, float]) -> dict[str, float]:
        return _lower(weights)

    @field_validator("negative_types")
    @classmethod
    def _lower_negative(cls, types: dict[str, NegativeEffect]) -> dict[str, NegativeEffect]:
        return _lower(types)

    @model_validator(mode="after")
    def _check_event_types(self) -> Self:
        _check_negative(self.event_types_of(""))
        for group in self.group_event_types:
            _check_negative(self.event_types_of(group))
        return self

    def event_types_of(self, group: str) -> dict[str, Any]:
        """The settings of event types that hold in a dataset group, by name."""
        own = self.group_event_types.get(group, GroupEventTypes())
        negative = self.negative_types | own.negative
        return {
            "event_weights": self.event_weights | own.weights,
            "value_scales": self.value_scales | own.value_scales,
            "negative_types": {name: one for name, one in negative.items() if one != "none"},
            "purchase_types": self.purchase_types,
            "cart_types": self.cart_types,
        }

    def takes_back_purchases(self, event_type: str) -> bool:
        """True if a type, in lower case, takes purchases back in any of the groups."""
        effects: set[str | None] = {self.negative_types.get(event_type)}
        effects.update(one.negative.get(event_type) for one in self.group_event_types.values())
        return "take_back_purchase" in effects

    @property
    def kept_tombstones_s(self) -> int:
        """Lifetime of tombstones: no older event can come again after it."""
        return max(
            self.tombstone_ttl_s,
            self.session_ttl_s,
            self.event_retention_s,
            self.dead_letter_retention_s,
            self.served_retention_s,
        )

    @property
    def strong_types(self) -> frozenset[str]:
        """Event types that weigh more than a click."""
        return frozenset(name for name, weight in self.event_weights.items() if weight > 1)
