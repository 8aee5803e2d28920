"""Settings of the forwarder to Amazon Personalize."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class ForwardingSettings(BaseSettings):
    """Trackers and events that are forwarded, and limits of calls."""

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
    forward_sink: str = Field(
        "personalize",
        description="Event sink that events are forwarded to, one of streams/forwarding/sinks.py.",
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

    @field_validator("forward_event_types")
    @classmethod
    def _lower_event_types(cls, names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.lower() for name in names)
