"""What the routes work with, handed to them when the application is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from api.effects import Effects, LoadIncarnations
from api.impressions import Impressions
from models.events import PutEvents
from models.recommender import Recommender
from models.settings import Settings
from models.store import Store


@dataclass(frozen=True)
class Kafka:
    """What the API needs of Kafka, without knowing it.

    Attributes
    ----------
    publish
        Sends a valid message; gives its token once Kafka has acknowledged, or raises `Unavailable`.
    incarnations
        The incarnation of the topics ``clicks`` and ``purchases``.
    missing
        What is not as it must be, in words; empty when all is well.
    """

    publish: Callable[[PutEvents], Awaitable[str]]
    incarnations: LoadIncarnations
    missing: Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True)
class Services:
    """What the routes work with; `app.state.services`."""

    settings: Settings
    store: Store
    recommender: Recommender
    kafka: Kafka
    effects: Effects
    impressions: Impressions
    clock: Callable[[], float]
    new_id: Callable[[], str]
