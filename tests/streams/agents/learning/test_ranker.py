"""The ranker agent's learners on a real Redis: their state, and the guard of the champion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from models.ranking.champions import Objective
from models.ranking.examples import Choice, encode, make_example
from models.ranking.features import AGAIN, FEATURES
from models.ranking.prequential import LEAD_WINDOW, MIN_EXAMPLES_TO_SERVE, WINDOW
from models.ranking.ranker import ListwiseRanker, layers_of
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from models.state.stored_ranker import load_ranker, save_ranker
from models.state.tenants import Tenants
from streams.agents.learning import ranker
from streams.agents.learning.ranker import GroupLearner, GroupLearners
from streams.kafka.consuming.assignment import ReceivedMessage

TELLING = FEATURES.index("own_recency")


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """An empty store."""
    one = Store(connect(redis_url), Settings())
    await one.redis.flushdb()
    yield one
    await one.redis.aclose()


LEARNED = ("ranker", "ranker-alone")


def ranker_of(learner: GroupLearner) -> ListwiseRanker:
    """The ranker of the objective of any interaction."""
    return learner.learners["interactions"].ranker


class Shoppers:
    """Users who mostly choose by one feature, which the blend ignores."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(7)
        self._offset = -1

    def choose(self, learner: GroupLearner, n: int, *, group: str = "") -> list[ReceivedMessage]:
        """Examples of n choices, each ranked by the learner's current ranker."""
        made = []
        for _ in range(n):
            matrix = self._rng.random((30, len(FEATURES)))
            # Within a moment: at its beginning own items have an expert that no poison reaches.
            matrix[:, AGAIN] = 0.0
            chosen = 1 + int(np.argmax(matrix[:, TELLING] + 0.3 * self._rng.random(30)))
            items = np.arange(1, 31)
            rankers: dict[Objective, ListwiseRanker] = {
                "interactions": learner.learners["interactions"].ranker
            }
            example = make_example(Choice(items, matrix, chosen), rankers, self._rng)
            self._offset += 1
            made.append(
                ReceivedMessage("examples", 0, self._offset, encode(example), group.encode())
            )
        return made

    async def teach(self, learner: GroupLearner, n: int) -> str:
        """Have the learner learn n examples in batches, and save; returns the champion's name."""
        for _ in range(n // 50):
            assert learner.learn(self.choose(learner, 50)) == []
        await learner.save()
        return (await load_ranker(learner.store))["interactions:serving"].decode()


async def test_a_poisoned_ranker_is_not_served_until_it_leads_again(store: Store) -> None:
    """It takes over from the blend, is poisoned, loses to the blend, and leads again."""
    learner, shoppers = GroupLearner(store), Shoppers()
    await learner.load("c/t/0")
    assert await shoppers.teach(learner, MIN_EXAMPLES_TO_SERVE - 50) == "blend"
    assert await shoppers.teach(learner, 1000) in LEARNED

    spoiled = learner.learners["interactions"].ranker
    # The hidden layer is dead, so that it cannot make up for the weights.
    wrong, right = np.zeros_like(spoiled.parameters), layers_of(spoiled.parameters)
    layers_of(wrong).weights[:] = -20 * right.weights
    spoiled.parameters = wrong
    served = [await shoppers.teach(learner, 50) for _ in range(3 * WINDOW // 50)]

    fallen = served.index("blend")
    assert fallen * 50 <= 2 * LEAD_WINDOW
    assert served[-1] in LEARNED
    healed = learner.learners["interactions"].ranker
    assert layers_of(healed.parameters).weights[TELLING] > 0


async def test_a_learner_resumes_from_another_ones_state(store: Store) -> None:
    """State, measures and watermark are loaded; an overtaken learner does not overwrite them."""
    first, second, shoppers = GroupLearner(store), GroupLearner(store), Shoppers()
    await first.load("c/t/0")
    await shoppers.teach(first, 500)
    assert await second.load("c/t/0") == 499
    assert ranker_of(second).state() == ranker_of(first).state()
    assert second.learners["interactions"].scoreboard == first.learners["interactions"].scoreboard

    await shoppers.teach(second, 100)
    first.learn(shoppers.choose(first, 1))
    await first.save()

    assert first.watermark == second.watermark == 599
    assert ranker_of(first).state() == ranker_of(second).state()


async def test_the_built_in_order_did_not_serve_while_a_challenger_does(store: Store) -> None:
    """Its measures are not those of what was served."""
    learners, shoppers = GroupLearners(Tenants(store.redis, store.settings)), Shoppers()
    learner = GroupLearner(store)

    async def counted() -> set[str]:
        await learners.learn(shoppers.choose(learner, 2))
        return {name.split("/")[2] for name in learners.take_sums() if name.startswith("quality/")}

    orders = await counted()
    learners.challengers_serve({"interactions": "river"})

    assert "served" in orders
    assert await counted() == orders - {"served"}


async def test_invalid_messages_are_returned_once(store: Store) -> None:
    """Neither invalid messages nor examples behind the watermark are learned."""
    learner, shoppers = GroupLearner(store), Shoppers()
    await learner.load("c/t/0")
    good = shoppers.choose(learner, 3)
    bad = ReceivedMessage("examples", 0, 3, b"\xc1no")

    assert learner.learn([*good, bad]) == [bad]
    assert learner.learn([*good, bad]) == []
    assert (learner.watermark, learner.learners["interactions"].scoreboard.n) == (3, 3)


@pytest.fixture
async def tenants(store: Store) -> Tenants:
    """Tenants of an empty store: `shop` of the settings, `books` and `tools`."""
    one = Tenants(store.redis, store.settings)
    await one.create("books")
    await one.create("tools")
    return one


async def state_of(tenants: Tenants, group: str) -> dict[str, bytes]:
    """Saved state of a group's ranker."""
    return await load_ranker(tenants.store(group))


async def test_each_group_learns_from_its_own_examples(tenants: Tenants) -> None:
    """Mixed examples leave every group's ranker as its own examples alone would."""
    shoppers, made = Shoppers(), GroupLearner(tenants.store("shop"))
    mixed = [
        one
        for group in ("", "books", "", "shop", "books", "nowhere")
        for one in shoppers.choose(made, 40, group=group)
    ]
    learners = GroupLearners(tenants)
    assert await learners.load("c/t/0") == -1
    for at in range(0, len(mixed), 30):
        assert await learners.learn(mixed[at : at + 30]) == []
        await learners.save()

    assert learners.saved == 239
    for group, names in {"shop": (b"", b"shop"), "books": (b"books",)}.items():
        alone = GroupLearner(tenants.store(group))
        assert alone.learn([one for one in mixed if one.key in names]) == []
        kept = await state_of(tenants, group)
        assert kept["interactions:state"] == ranker_of(alone).state()
    assert await tenants.redis.keys("{nowhere}:*") == await tenants.redis.keys("{tools}:*") == []


async def test_a_crash_while_saving_repeats_nothing(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups saved before the crash skip the examples read again; the others learn them."""
    shoppers, made = Shoppers(), GroupLearner(tenants.store("shop"))
    mixed = [
        one for group in ("books", "", "tools") for one in shoppers.choose(made, 20, group=group)
    ]
    learners = GroupLearners(tenants)
    await learners.load("c/t/0")
    await learners.learn(mixed)

    async def save_or_crash(store: Store, *given: Any, **named: Any) -> bool:
        if store is tenants.store("tools"):
            raise KeyboardInterrupt
        return await save_ranker(store, *given, **named)

    monkeypatch.setattr(ranker, "save_ranker", save_or_crash)
    with pytest.raises(KeyboardInterrupt):
        await learners.save()
    monkeypatch.undo()
    assert (await state_of(tenants, "books")).keys() >= {"interactions:state"}
    assert await state_of(tenants, "shop") == await state_of(tenants, "tools") == {}

    again = GroupLearners(tenants)
    assert await again.load("c/t/0") == -1
    await again.learn(mixed)
    await again.save()

    for group, key in {"shop": b"", "books": b"books", "tools": b"tools"}.items():
        alone = GroupLearner(tenants.store(group))
        alone.learn([one for one in mixed if one.key == key])
        assert (await state_of(tenants, group))["interactions:state"] == alone.learners[
            "interactions"
        ].ranker.state()


async def test_learners_are_bounded(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used one is saved, and resumes when its group has examples again."""
    monkeypatch.setattr(ranker, "MAX_OPEN_RECOMMENDERS", 1)
    shoppers, made = Shoppers(), GroupLearner(tenants.store("shop"))
    learners, alone = GroupLearners(tenants), GroupLearner(tenants.store("books"))
    await learners.load("c/t/0")
    for group in ("books", "tools", "books"):
        received = shoppers.choose(made, 20, group=group)
        await learners.learn(received)
        if group == "books":
            alone.learn(received)
        assert list(learners._others) == [group]
    await learners.save()

    assert (await state_of(tenants, "books"))["interactions:state"] == alone.learners[
        "interactions"
    ].ranker.state()


async def test_an_erased_group_does_not_come_back(tenants: Tenants) -> None:
    """The state of an erased group is dropped; the watermark moves on."""
    shoppers, made = Shoppers(), GroupLearner(tenants.store("shop"))
    learners = GroupLearners(tenants)
    await learners.load("c/t/0")
    await learners.learn(shoppers.choose(made, 20, group="books"))
    await Tenants(tenants.redis, tenants.settings).erase("books")

    await learners.save()
    await learners.learn(shoppers.choose(made, 20, group="books"))
    await learners.save()

    assert await tenants.redis.keys("{books}:*") == []
    assert learners.saved == 39


async def test_examples_of_an_assignment_that_ended_are_not_learned(tenants: Tenants) -> None:
    """A batch that waited while the partition was reassigned is read again."""
    shoppers, made = Shoppers(), GroupLearner(tenants.store("shop"))
    learners = GroupLearners(tenants)
    await learners.load("c/t/0")
    batch = shoppers.choose(made, 5)
    await learners._lock.acquire()
    assigning = asyncio.create_task(learners.load("c/t/0"))
    learning = asyncio.create_task(learners.learn(batch))
    await asyncio.sleep(0)
    learners._lock.release()
    await asyncio.gather(assigning, learning)
    await learners.save()

    assert learners.saved == -1
