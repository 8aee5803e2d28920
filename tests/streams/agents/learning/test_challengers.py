"""The worker's challengers on a real Redis: who serves is stored, told, and forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest

from models.ranking.challenger_measures import ChallengerMeasures, Lead
from models.ranking.champions import OBJECTIVES, stored_champions
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.state.stored_ranker import load_ranker
from streams.agents.learning.challengers import SERVING, WorkerChallengers
from streams.agents.learning.running_challengers import RunningChallengers

NEXT = "tests.models.ranking.challenger_classes:NextNumber"


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """An empty store, of settings with a challenger."""
    one = Store(connect(redis_url), Settings(challengers=[NEXT]))
    await one.redis.flushdb()
    yield one
    await one.redis.aclose()


@pytest.fixture
def fields(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What the thread has measured, which a test says: nothing at first."""
    measured: dict[str, bytes] = {}
    monkeypatch.setattr(RunningChallengers, "begin", lambda *_: None)
    monkeypatch.setattr(RunningChallengers, "fields", lambda _: dict(measured))
    return measured


def champions() -> Mapping[str, str]:
    """The built-in rankers that serve."""
    return dict.fromkeys(OBJECTIVES, "ranker")


def measures(serving: str) -> bytes:
    """Measures of a challenger that serves or does not."""
    leads = {"NextNumber": Lead(400, 0.5, 0.3)}
    means = {"NextNumber": {"mrr": 0.9}}
    return msgspec.json.encode(ChallengerMeasures(400, means, leads, serving))


async def test_who_serves_is_stored_and_told(store: Store, fields: dict[str, bytes]) -> None:
    """While this worker has the partition of the examples, and as long as the setting has it."""
    one = WorkerChallengers(store, champions)  # type: ignore[arg-type]
    fields["interactions:challengers"] = measures("NextNumber")
    await one.save()
    assert await load_ranker(store) == {}
    one.assign(is_learner=True)
    await one.save()
    champion = stored_champions(await load_ranker(store))["interactions"]
    assert (champion.name, champion.is_challenger) == ("NextNumber", True)
    assert champion.measures.means == {"NextNumber": {"mrr": 0.9}}
    told = SERVING.labels("interactions", "NextNumber")
    assert told._value.get() == 1.0

    fields["interactions:challengers"] = measures("")
    await one.save()
    champion = stored_champions(await load_ranker(store))["interactions"]
    assert (champion.name, champion.is_challenger) == ("blend", False)
    assert told._value.get() == 0.0
    one.close()

    fields.clear()
    without = store.settings.model_copy(update={"challengers": []})
    later = WorkerChallengers(Store(store.redis, without), champions)  # type: ignore[arg-type]
    later.assign(is_learner=True)
    await later.save()
    assert await load_ranker(store) == {}
