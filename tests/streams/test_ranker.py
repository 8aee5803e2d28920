"""The ranker's learner on a real Redis: what it keeps, and the guard that watches it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from models.examples import encode, make_example
from models.features import FEATURES
from models.prequential import LEAD_AFTER, RECENT, WINDOW
from models.ranking import Objective, Ranker
from models.settings import Settings
from models.store import Store, connect
from ops.embedded import start_redis
from streams.ranker import Learner
from streams.sessions import Arrival

TELLING = FEATURES.index("own_recency")


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    one = Store(connect(redis_url), Settings())
    await one.redis.flushdb()
    yield one
    await one.redis.aclose()


LEARNED = ("ranker", "ranker-alone")


class Shoppers:
    """Who mostly choose by one feature, which the blend does not look at."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self._offset = -1

    def choose(self, learner: Learner, n: int) -> list[Arrival]:
        """Examples of so many choices, each ranked by the learner as it was at the beginning."""
        made = []
        for _ in range(n):
            matrix = self._rng.random((30, len(FEATURES)))
            chosen = int(np.argmax(matrix[:, TELLING] + 0.3 * self._rng.random(30)))
            items = np.arange(30)
            rankers: dict[Objective, Ranker] = {
                "interactions": learner.courses["interactions"].ranker
            }
            example = make_example(items, matrix, chosen, rankers, self._rng)
            self._offset += 1
            made.append(Arrival("examples", 0, self._offset, encode(example)))
        return made

    async def teach(self, learner: Learner, n: int) -> str:
        """Let the learner learn so many, some at a time, and save; gives what is to be served."""
        for _ in range(n // 50):
            assert learner.learn(self.choose(learner, 50)) == []
        await learner.save()
        return (await learner.store.load_ranker())["interactions:serving"].decode()


async def test_a_spoiled_ranker_is_not_served_until_it_leads_again(store: Store) -> None:
    """The guard drill: it takes over from the blend, is poisoned, is replaced, and leads again."""
    learner, shoppers = Learner(store), Shoppers()
    await learner.assigned("c/t/0")
    assert await shoppers.teach(learner, LEAD_AFTER - 50) == "blend"
    assert await shoppers.teach(learner, 1000) in LEARNED

    learner.courses["interactions"].ranker.weights = (
        -20 * learner.courses["interactions"].ranker.weights
    )
    served = [await shoppers.teach(learner, 50) for _ in range(3 * WINDOW // 50)]

    fallen = served.index("blend")
    assert fallen * 50 <= 2 * RECENT
    assert served[-1] in LEARNED
    assert learner.courses["interactions"].ranker.weights[TELLING] > 0


async def test_a_learner_goes_on_where_another_stopped(store: Store) -> None:
    """State, measures and watermark are taken up; one that was overtaken does not overwrite."""
    first, second, shoppers = Learner(store), Learner(store), Shoppers()
    await first.assigned("c/t/0")
    await shoppers.teach(first, 500)
    assert await second.assigned("c/t/0") == 499
    assert (
        second.courses["interactions"].ranker.state()
        == first.courses["interactions"].ranker.state()
    )
    assert second.courses["interactions"].scoreboard == first.courses["interactions"].scoreboard

    await shoppers.teach(second, 100)
    first.learn(shoppers.choose(first, 1))
    await first.save()

    assert first.watermark == second.watermark == 599
    assert (
        first.courses["interactions"].ranker.state()
        == second.courses["interactions"].ranker.state()
    )


async def test_what_is_no_example_is_given_back(store: Store) -> None:
    """Foreign bytes are spoiled, and neither they nor repetitions are learned."""
    learner, shoppers = Learner(store), Shoppers()
    await learner.assigned("c/t/0")
    good = shoppers.choose(learner, 3)
    bad = Arrival("examples", 0, 3, b"\xc1no")

    assert learner.learn([*good, bad]) == [bad]
    assert learner.learn([*good, bad]) == []
    assert (learner.watermark, learner.courses["interactions"].scoreboard.n) == (3, 3)
