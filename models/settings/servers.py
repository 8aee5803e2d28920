"""Settings of the servers, the dataset group and its topics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from models.settings.redis_urls import redis_hosts
from models.settings.secret_files import SECRET


class ServerSettings(BaseSettings):
    """Kafka, Redis, the folder of embedded servers, and the group in the settings."""

    kafka: str = Field("", description="Kafka bootstrap servers, host:port[,…]; empty: embedded.")
    redis: str = Field("", description="Redis URL; empty: embedded.", json_schema_extra=SECRET)
    data_dir: Path = Field(
        Path(".recommender"), description="Folder of the embedded servers' files and logs."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "warning",
        description="What goes to the log of every command and of the libraries in it: debug, "
        "info, warning or error.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log's lines: text, or json, one object a line."
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
    partitions: int = Field(
        16,
        ge=1,
        le=1024,
        description="Partitions of each event topic. With its own broker, `recommender up` makes 4 "
        "unless this is set: each fetch names every partition, so more of them cost CPU.",
    )
    replication_factor: int = Field(1, ge=1, le=9, description="Replicas of each topic.")

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
            hosts = redis_hosts(url)
            is_url = all(port > 0 for _, port in hosts)
        except ValueError:
            is_url = False
        if url and not (is_url and parts.scheme in {"redis", "rediss", "unix"}):
            raise ValueError(f"no redis://[user:password@]host:port/number, nor rediss://{hint}")
        if url and parts.scheme != "unix" and not hosts:
            raise ValueError(f"names no host{hint}")
        return url

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, word: object) -> object:
        return word.lower() if isinstance(word, str) else word
