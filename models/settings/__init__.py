"""Settings of every process, read once at the edges: from variables, and from one file."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.errors import InvalidSetting
from models.secrets import redacted
from models.settings.access import AccessSettings, is_loopback
from models.settings.environment import PREFIX, Environment
from models.settings.forwarding import ForwardingSettings
from models.settings.kafka_security import KafkaSecuritySettings
from models.settings.oidc import OidcSettings
from models.settings.outcomes import OutcomeSettings
from models.settings.personalize import PersonalizeSettings
from models.settings.redis_connection import RedisConnectionSettings
from models.settings.servers import ServerSettings
from models.settings.serving import ServingSettings
from models.settings.settings_file import SettingsFile
from models.settings.state import StateSettings


class OperationSettings(BaseSettings):
    """Ending, metrics and traces of processes."""

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
    traces_endpoint: str = Field(
        "",
        description="Where OpenTelemetry traces go by OTLP over HTTP, such as "
        "http://collector:4318/v1/traces (extra `traces`); empty: there are none.",
    )
    traces_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests whose trace is recorded; one that comes with the header "
        "traceparent is recorded if that says so.",
    )

    @field_validator("traces_endpoint")
    @classmethod
    def _traces_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            is_url = False
        if url and (not is_url or "@" in parts.netloc):
            raise ValueError("no http://host:port/path, without a user or password")
        return url


# The order of bases is the order of the table in the documents, from the last one to the first.
class Settings(
    ForwardingSettings,
    OperationSettings,
    PersonalizeSettings,
    OidcSettings,
    AccessSettings,
    OutcomeSettings,
    ServingSettings,
    StateSettings,
    RedisConnectionSettings,
    KafkaSecuritySettings,
    ServerSettings,
):
    """Everything an operator may change; each field is the variable `RECOMMENDER_<FIELD>`.

    >>> Settings(partitions=8).partitions
    8
    """

    # An invalid input may still be a secret: errors do not repeat it.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
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
        """Arguments first, then the environment, then the file."""
        return init_settings, Environment(settings_cls), SettingsFile(settings_cls)

    def __repr__(self) -> str:
        # As a whole, for a list or a mapping may hold one as well.
        return redacted(super().__repr__())

    def __str__(self) -> str:
        return redacted(super().__str__())

    @model_validator(mode="after")
    def _check_group_event_types(self) -> Self:
        if self.group in self.group_event_types:
            raise ValueError(
                f"group_event_types names {self.group!r}, the group of RECOMMENDER_GROUP: its types"
                " are in event_weights, value_scales and negative_types"
            )
        return self

    # Which layout of shards the group has now: stored with its state, no setting of anybody's.
    _generation: int = PrivateAttr(0)

    @property
    def generation(self) -> int:
        """Number of the group's layout of shards, which `recommender reshard` counts up."""
        return self._generation

    def on_shards(self, shards: int, generation: int) -> Self:
        """These settings for a group that has a layout stored, whatever they say themselves.

        >>> Settings(outcomes=False).on_shards(4, 2).shards
        4

        Raises
        ------
        InvalidSetting
            Something else that they say does not go with so many shards.
        """
        found = self.model_copy(update={"shards": shards})
        found._generation = generation  # noqa: SLF001  of this class
        try:
            found._refuse_beside_shards()  # noqa: SLF001
        except ValueError as error:
            raise InvalidSetting(str(error)) from error
        return found

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        self._refuse_beside_shards()
        return self

    def _refuse_beside_shards(self) -> None:
        """Refuse what does not know shards."""
        if self.shards == 1:
            return
        for name, is_set, needed in (
            ("outcomes", self.outcomes, "false: outcomes of served lists do not know shards"),
            ("redis_replica", bool(self.redis_replica), "empty: a cluster has its replicas"),
            ("group_event_types", bool(self.group_event_types), "empty: it has one group"),
        ):
            if is_set:
                raise ValueError(
                    f"RECOMMENDER_SHARDS={self.shards} needs RECOMMENDER_{name.upper()} {needed}"
                )

    @property
    def has_one_group(self) -> bool:
        """True if there is no dataset group but that of the settings.

        >>> Settings().has_one_group, Settings(shards=4, outcomes=False).has_one_group
        (False, True)
        """
        return self.redis_cluster or self.shards > 1

    @property
    def requires_keys(self) -> bool:
        """True if callers of the HTTP API need a key.

        >>> Settings().requires_keys, Settings(host="0.0.0.0").requires_keys
        (False, True)
        """
        return self.access == "keys" or (self.access == "auto" and not is_loopback(self.host))

    @property
    def forwarded_trackers(self) -> dict[str, str]:
        """Amazon Personalize tracking ids by the tracking ids here.

        >>> Settings(forward_tracking_id="aws-1").forwarded_trackers
        {'shop': 'aws-1'}
        """
        own = {self.tracking_id: self.forward_tracking_id} if self.forward_tracking_id else {}
        return own | self.forward_tracking_ids
