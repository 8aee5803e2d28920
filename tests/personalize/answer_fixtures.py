"""A dataset group of a control plane with events and items, and answers out of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.state.catalogue.metadata import put_items
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from tests.personalize.control_fixtures import INTERACTIONS, Control

HOUR_S = 3600.0


@dataclass
class Shop:
    """A group `g` whose users take items of their own kind, in two types of events.

    Items `i0` to `i59` have PRICE, their number, and GENRE, `even` or `odd`. User n takes items
    whose number has the remainder n modulo 3; of even places by `view`, of odd ones by `buy`.
    """

    control: Control
    group: str
    n_sent: int = 0

    async def fill(self, n_users: int = 18, each: int = 10) -> None:
        """Put the items, and send the events of all users."""
        store = self.control.context.tenants.store("g")
        kinds = [
            (f"i{n}", {"PRICE": float(n), "GENRE": "odd" if n % 2 else "even"}) for n in range(60)
        ]
        await put_items(store, kinds, self.control.now_s - 40 * 24 * HOUR_S)
        rng, sent = random.Random(5), []
        for user in range(n_users):
            taken = [3 * number + user % 3 for number in rng.sample(range(20), each)]
            kinds_of = ["view" if place % 2 == 0 else "buy" for place in range(each)]
            events = [f"{kind}:i{item}" for kind, item in zip(kinds_of, taken, strict=True)]
            sent.append(self._message(f"u{user}", events, 40 * HOUR_S - user * HOUR_S))
        await self._apply(sent)

    async def send(self, user: str, *events: str, before_s: float = 0.0) -> None:
        """Apply events, `<type>:<item>`, of a user, a minute apart from so long ago on."""
        await self._apply([self._message(user, events, before_s)])

    async def send_many(
        self, users: str, n: int, *events: str, before_s: float = 0.0, device: str = ""
    ) -> None:
        """Apply the same events of n users at once, on a device."""
        sent = [self._message(f"{users}{k}", events, before_s, device) for k in range(n)]
        await self._apply(sent)

    async def _apply(self, messages: list[StoredMessage]) -> None:
        store = self.control.context.tenants.store("g")
        part = Part("test/0", messages[0].offset - 1, messages)
        await store.apply([part], now_s=self.control.now_s)

    def _message(
        self, user: str, events: Sequence[str], before_s: float, device: str = ""
    ) -> StoredMessage:
        start_s, number = self.control.now_s - before_s, self.n_sent
        self.n_sent += 1
        stored = []
        for place, event in enumerate(events):
            kind, _, item = event.partition(":")
            at_s = int(start_s + 60 * place)
            hash_ = 1000 * number + place
            context = {"device": [device]} if device else {}
            stored.append(StoredEvent(item, at_s, kind, 0.0, kind == "buy", hash_, context))
        return StoredMessage(number, user, user, shard_of(user), self.control.now_s, stored)

    async def campaign(
        self,
        name: str,
        recipe: str = "aws-user-personalization-v2",
        config: dict[str, Any] | None = None,
        trained: dict[str, Any] | None = None,
        **solution: Any,
    ) -> str:
        """The ARN of a new campaign, of a new solution with these members."""
        arn = await self.control.solution(self.group, name, recipe, **solution)
        version = await self.control.version(arn, **(trained or {}))
        created = await self.control(
            "CreateCampaign",
            name=name,
            solutionVersionArn=version,
            **({} if config is None else {"campaignConfig": config}),
        )
        return str(created["campaignArn"])

    async def items(self, campaign: str, user: str = "u0", **request: Any) -> list[str]:
        """The items that a campaign recommends."""
        answer = await self.control(
            "GetRecommendations", campaignArn=campaign, userId=user, **request
        )
        return [one["itemId"] for one in answer["itemList"]]


async def shop(control: Control, *, domain: str | None = None, **filled: Any) -> Shop:
    """A filled shop, with datasets of interactions and items where it is of no domain."""
    group = await control.group(**({} if domain is None else {"domain": domain}))
    if domain is None:
        await control.dataset(group, *INTERACTIONS, "EVENT_TYPE", "DEVICE")
        columns = ("ITEM_ID", "PRICE:null|float", "GENRE:categorical")
        await control.dataset(group, *columns, kind="ITEMS")
    made = Shop(control, group)
    await made.fill(**filled)
    return made
