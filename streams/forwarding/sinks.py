"""The event sinks that the forwarder can send to, by the name that `forward_sink` gives them."""

from __future__ import annotations

from collections.abc import Callable

from models.errors import NotConfigured
from models.settings import Settings
from streams.aws_personalize import AwsTracker
from streams.event_sinks import EventSink

SINKS: dict[str, Callable[[Settings], EventSink]] = {
    "personalize": AwsTracker,
}
"""Factories of sinks; one line registers a sink."""


def sink_of(settings: Settings) -> EventSink:
    """The sink that the settings name.

    Raises
    ------
    NotConfigured
        There is no sink of this name, or its own settings are not in order.
    """
    if settings.forward_sink not in SINKS:
        raise NotConfigured(
            f"RECOMMENDER_FORWARD_SINK is {settings.forward_sink!r}: use {' or '.join(SINKS)}"
        )
    return SINKS[settings.forward_sink](settings)
