"""Settings of the connections to Redis beside its URL."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from models.errors import InvalidSetting
from models.settings.redis_urls import redis_database, redis_hosts, speaks_tls
from models.settings.secret_files import SECRET


class RedisConnectionSettings(BaseSettings):
    """Certificates, passwords, and how Redis is found: server, Sentinels or cluster."""

    redis_password: SecretStr = Field(
        SecretStr(""), description="Password for Redis, where RECOMMENDER_REDIS has none."
    )
    redis_ca_file: str = Field(
        "",
        description="PEM file with the certificates that Redis' must be signed by; empty: those "
        "that the system trusts.",
    )
    redis_certificate_file: str = Field(
        "", description="PEM file with the client certificate and its chain; empty: none is shown."
    )
    redis_key_file: str = Field(
        "", description="PEM file with its private key; empty: it is in the certificate's file."
    )
    redis_key_password: SecretStr = Field(
        SecretStr(""), description="Password of an encrypted private key."
    )
    redis_sentinel_master: str = Field(
        "",
        max_length=256,
        description="Name of the primary that Sentinels watch; RECOMMENDER_REDIS then names the "
        "Sentinels, host:port[,…]. Empty: it names Redis itself.",
    )
    redis_sentinel_username: str = Field("", description="User at the Sentinels.")
    redis_sentinel_password: SecretStr = Field(
        SecretStr(""), description="Password at the Sentinels."
    )

    redis_replica: str = Field(
        "",
        description="URL of a read replica that the API asks for what all users share, or "
        "`sentinel` for one that the Sentinels name; a user's own events are always read from the "
        "primary. Empty: all is.",
        json_schema_extra=SECRET,
    )
    redis_cluster: bool = Field(
        False,
        description="True if RECOMMENDER_REDIS names nodes of a Redis Cluster, host:port[,…]; it "
        "then holds the dataset group of the settings only.",
    )

    @field_validator("redis_replica")
    @classmethod
    def _replica_url(cls, url: str) -> str:
        scheme = url.partition(":")[0]
        if url and url != "sentinel" and scheme not in {"redis", "rediss", "unix"}:
            raise ValueError("neither `sentinel` nor redis://[user:password@]host:port/number")
        return url

    @model_validator(mode="after")
    def _redis_fits_together(self) -> Self:
        """Refuse what would do nothing."""
        url: str = getattr(self, "redis", "")
        is_tls, has_sentinels = speaks_tls(url), bool(self.redis_sentinel_master)
        for name, works, condition in (
            ("password", bool(url), "RECOMMENDER_REDIS"),
            ("ca_file", is_tls, "rediss:// in RECOMMENDER_REDIS"),
            ("certificate_file", is_tls, "rediss:// in RECOMMENDER_REDIS"),
            (
                "key_file",
                bool(self.redis_certificate_file),
                "RECOMMENDER_REDIS_CERTIFICATE_FILE",
            ),
            (
                "key_password",
                bool(self.redis_certificate_file),
                "RECOMMENDER_REDIS_CERTIFICATE_FILE",
            ),
            ("sentinel_master", bool(url), "RECOMMENDER_REDIS"),
            ("replica", bool(url) and not self.redis_cluster, "a server or Sentinels"),
            ("cluster", bool(url), "RECOMMENDER_REDIS"),
            ("sentinel_username", has_sentinels, "RECOMMENDER_REDIS_SENTINEL_MASTER"),
            ("sentinel_password", has_sentinels, "RECOMMENDER_REDIS_SENTINEL_MASTER"),
        ):
            value = getattr(self, f"redis_{name}")
            is_set = bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
            if is_set and not works:
                raise InvalidSetting(
                    f"RECOMMENDER_REDIS_{name.upper()} does nothing without {condition}"
                )
        if len(redis_hosts(url)) > 1 and not has_sentinels and not self.redis_cluster:
            raise InvalidSetting(
                "RECOMMENDER_REDIS names several hosts: that needs "
                "RECOMMENDER_REDIS_SENTINEL_MASTER or RECOMMENDER_REDIS_CLUSTER"
            )
        if self.redis_replica == "sentinel" and not has_sentinels:
            raise InvalidSetting(
                "RECOMMENDER_REDIS_REPLICA=sentinel needs RECOMMENDER_REDIS_SENTINEL_MASTER"
            )
        if self.redis_cluster and (has_sentinels or redis_database(url)):
            raise InvalidSetting(
                "RECOMMENDER_REDIS_CLUSTER: a cluster has no Sentinels and no database but 0"
            )
        return self
