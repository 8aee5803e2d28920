"""Settings of answers and of the HTTP server."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings


class ServingSettings(BaseSettings):
    """Diversity and exploration of answers, and limits of caches, waiting and HTTP."""

    exploration_share: float = Field(
        0.04,
        ge=0,
        le=0.5,
        description="Share of an answer, on average, given to new items and to those that the "
        "ranker is unsure of, so that they get their chance; 0 for none.",
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
        1.0,
        ge=0,
        le=60,
        description="How old an item's counts may be in an answer, and its neighbours where the "
        "API does not hear of changes.",
    )
    filter_index_items: int = Field(
        1_000_000,
        ge=0,
        description="Items up to which an API process indexes their properties, so that a filter "
        "finds all that it allows, however rare; about 4 bytes each for each property with texts, "
        "8 for one with numbers. In a larger catalogue it looks through thousands.",
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
    live_max_listeners: int = Field(
        100,
        ge=1,
        le=100_000,
        description="Clients of a process that may listen to /live at once, and to /live/events; "
        "more get 429.",
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
    max_batch_body_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="Largest body of POST /items/batch, which is read and sent line by line.",
    )
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
