"""What is stored once a bulk load is in effect: events, the ranker, and its catch-up."""

from __future__ import annotations

import asyncio

from models.ranking.champions import stored_champions
from models.settings import Settings
from models.state.clients.client import connect
from models.state.operations.catch_ups import stored_catch_up
from models.state.store import Store
from models.state.stored_ranker import load_ranker
from streams.agents.learning.catch_up import missing_examples


def stored_ranker(settings: Settings) -> dict[str, bytes]:
    """The ranker's stored state."""

    async def load() -> dict[str, bytes]:
        store = Store(connect(settings.redis), settings)
        try:
            return await load_ranker(store)
        finally:
            await store.close()

    return asyncio.run(load())


def counted(settings: Settings) -> int:
    """Events in effect."""

    async def count() -> int:
        store = Store(connect(settings.redis), settings)
        try:
            return int((await store.counts()).get("events", 0))
        finally:
            await store.close()

    return asyncio.run(count())


def is_caught_up(settings: Settings) -> bool:
    """True if the ranker has learned all examples of a catch-up, or none is due."""
    ranker = stored_ranker(settings)
    last = stored_catch_up(ranker)
    if last is None:
        return not missing_examples(settings, counted(settings), ranker)
    learned = stored_champions(ranker)["interactions"].measures.n
    before = settings.catch_up_examples - last.wanted
    return last.is_complete and learned >= before + last.examples
