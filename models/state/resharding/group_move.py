"""Moves a group to another layout of shards, while answers are read from the one before.

1. *Hold.* Workers see a `Move` and apply no further events. What session shards have left for
   others goes on, until every shard has the same watermarks and no outbox holds anything.
2. *Freeze.* Every step refuses to change anything, also that of a worker that has seen nothing. If
   one came in between, all thaw and it begins again.
3. *Copy*, to shards whose keys nobody reads yet (`shard_copy`).
4. *Switch.* One command stores the new layout, if the shards were frozen all the time: they were if
   they still hold this move's token. From then on all processes go by the new one.

Whoever moves may die anywhere. Before the switch the move and the freezing expire, and workers go
on where they were; behind it everything is done but the removal of old keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from models.background_tasks import end_tasks
from models.errors import ReshardRefused
from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.resharding.copied_keys import asked, pairs_of
from models.state.resharding.record_copy import RecordMark
from models.state.resharding.shard_copy import ShardCopy
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import shard_names
from models.state.shards.stored_layout import (
    LEASE_S,
    LOOK_EVERY_S,
    Move,
    ShardLayout,
    end_move,
    freeze,
    report_move,
    switch_layout,
    thaw,
)

SETTLE_S = 5.0
"""Time after which a half applied batch is given a chance to go on."""

TURN_S = 4 * LOOK_EVERY_S
"""Time for which workers may go on then."""

RENEW_S = LEASE_S / 5

REPLICATED_MS = 2_000
"""Longest wait for a replica to have the copy, in milliseconds."""

TellMove = Callable[[str, float], None]
"""Is told what is done, and how much of it, 0 to 1."""


class GroupMove:
    """A move of a group; of one task.

    Parameters
    ----------
    source, target
        The layouts.
    fields
        Of the watermarks of all partitions of events.
    records
        The same of metadata.
    tell
        Is told what is done.

    Attributes
    ----------
    pause_s
        Time for which no event took effect: from when workers were asked to hold, to the switch.
    n_histories, n_items
        What was copied.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        source: ShardLayout,
        target: ShardLayout,
        *,
        fields: Sequence[str],
        records: Sequence[RecordMark] = (),
        tell: TellMove,
    ) -> None:
        self._client = client
        self._settings = settings
        self._group = settings.group
        self._source, self._target = source, target
        self._fields = list(fields)
        self._records = records
        self._tell = tell
        self._token = secrets.token_hex(8)
        self._doing, self._share, self._is_holding = "getting ready", 0.0, False
        self._is_frozen = self._is_lost = False
        self._renewed_s = time.monotonic()
        self._prefixes = source.all_prefixes(self._group)
        self.has_switched = False
        self.pause_s = 0.0
        self.n_histories = self.n_items = 0

    @contextlib.asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """The move as one that others see, for as long as the block lasts.

        Raises
        ------
        ReshardRefused
            Somebody else moves the group.
        """
        if not await self._report(begins=True):
            raise ReshardRefused(
                f"group {self._group} is being moved to other shards by somebody else: wait for "
                f"that, or {LEASE_S:.0f} s if it was killed"
            )
        renewing = asyncio.create_task(self._renew())
        try:
            # Who was killed at the very end of a copy has left them frozen.
            await thaw(self._client, self._prefixes)
            yield
        finally:
            await end_tasks(renewing)
            with contextlib.suppress(*AWAY_ERRORS):  # it expires by itself
                if not self.has_switched:
                    await thaw(self._client, self._prefixes, self._token)
                await end_move(self._client, self._group, self._token)

    @property
    def is_ours(self) -> bool:
        """False if the move has expired, or its shards were thawed."""
        return not self._is_lost and time.monotonic() - self._renewed_s < LEASE_S

    def check(self) -> None:
        """Return while nothing but this move can have changed anything.

        Raises
        ------
        ReshardRefused
            It is not so any more.
        """
        if not self.is_ours:
            raise ReshardRefused(
                "Redis was away for too long, or a primary was lost: nothing has changed, and "
                "workers go on as before; run it again"
            )

    def doing(self, what: str, share: float = 0.0) -> None:
        """Note what is done now."""
        self._doing, self._share = what, share
        self._tell(what, share)

    async def _report(self, *, begins: bool = False) -> bool:
        move = Move(self._token, self._target, self._is_holding, self._doing, self._share)
        return await report_move(self._client, self._group, move, begins=begins)

    async def _renew(self) -> None:
        while not self._is_lost:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(*AWAY_ERRORS):
                await self._renew_once()

    async def _renew_once(self) -> None:
        began_s = time.monotonic()
        is_ours = await self._report()
        if is_ours and self._is_frozen:
            is_ours = await freeze(self._client, self._prefixes, self._token, begins=False)
        if is_ours:
            self._renewed_s = began_s
        else:
            self._is_lost = True

    async def _hold(self, is_holding: bool) -> None:
        self._is_holding = is_holding
        await self._report()
        await asyncio.sleep(2 * LOOK_EVERY_S)

    # Steps of a move ------------------------------------------------------------------------------

    async def run(self, *, longest_s: float) -> None:
        """Move the group: returns once all processes go by the new layout, from then on.

        Parameters
        ----------
        longest_s
            Time for which events may wait, at most.

        Raises
        ------
        ReshardRefused
            Nothing has changed: events would have waited for longer, or Redis was away.
        """
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(longest_s):
                await self._settle()
                await self._copy()
                await self._finish_copy()
        except TimeoutError as error:
            raise ReshardRefused(
                f"events would wait for more than {longest_s:.0f} s, so nothing has changed (it "
                f"was {self._doing}, {self._share:.0%} done): raise --longest-pause"
            ) from error
        await self._switch()
        self.pause_s = time.monotonic() - began_s

    async def _settle(self) -> None:
        """Freeze all shards at a moment at which nothing is under way."""
        while True:
            self.check()
            self.doing("waiting for what is under way")
            await self._hold(True)
            since_s = time.monotonic()
            while not (is_settled := await self._is_settled()):
                self.check()
                if time.monotonic() - since_s > SETTLE_S:
                    break
                await asyncio.sleep(0.1)
            if is_settled and await self._freeze_settled():
                return
            # A step may have reached some shards and not others: who did it goes on with it.
            self.doing("waiting for what is under way: a worker has to run for that")
            await self._hold(False)
            await asyncio.sleep(TURN_S)

    async def _freeze_settled(self) -> bool:
        await freeze(self._client, self._prefixes, self._token, begins=True)
        self._is_frozen = True
        if await self._is_settled():
            return True
        self._is_frozen = False
        await thaw(self._client, self._prefixes, self._token)
        return False

    async def _is_settled(self) -> bool:
        """True if all shards have the same watermarks of events, and nothing waits between them."""
        if self._source.shards == 1:
            return True
        sessions = self._source.prefixes(self._group, "u")
        marks = await at_once(
            asked(self._client, ("HMGET", prefix + "watermarks", *self._fields))
            for prefix in sessions
        )
        if any(one != marks[0] for one in marks):
            return False
        names = shard_names(self._source.shards)
        before = await self._emitted(sessions, names)
        waiting = await at_once(
            asked(self._client, *(("LLEN", f"{prefix}outbox:{name}") for name in names))
            for prefix in sessions
        )
        if any(map(any, waiting)):
            return False
        # Nothing was left while the outboxes were looked at one after the other.
        return before == await self._emitted(sessions, names)

    async def _emitted(self, prefixes: Sequence[str], names: Sequence[str]) -> list[object]:
        answers = await at_once(
            asked(self._client, *(("HGETALL", f"{prefix}emitted:{name}") for name in names))
            for prefix in prefixes
        )
        return [sorted(pairs_of(one)) for answer in answers for one in answer]

    async def _copy(self) -> None:
        def progress(share: float) -> None:
            self.n_histories, self.n_items = copy.n_histories, copy.n_items
            self.doing(f"copying: {copy.n_histories:,} histories, {copy.n_items:,} items", share)

        copy = ShardCopy(
            self._client, self._settings, self._source, self._target,
            fields=self._fields, records=self._records, check=self.check, progress=progress,
        )  # fmt: skip
        await copy.run(now_s=time.time())
        progress(1.0)

    async def _finish_copy(self) -> None:
        """Have replicas take the copy, and see that no server has lost any of it."""
        targets = self._target.all_prefixes(self._group)
        note = [[("SET", prefix + "copied", self._token)] for prefix in targets]
        if self._settings.redis_cluster:
            for commands in note:
                commands.append(("WAIT", "1", str(REPLICATED_MS)))
        await at_once(asked(self._client, *commands) for commands in note)
        held = await at_once(asked(self._client, ("GET", prefix + "copied")) for prefix in targets)
        if any(one != [self._token.encode()] for one in held):
            raise ReshardRefused("a primary with a part of the copy was lost: run it again")

    async def _switch(self) -> None:
        await self._renew_once()
        self.check()
        frozen = await freeze(
            self._client, self._prefixes, self._token, begins=False, for_ever=True
        )
        if not frozen:
            self._is_lost = True
        self.check()
        self.has_switched = await switch_layout(
            self._client, self._group, self._target, self._token
        )
        if not self.has_switched:
            self._is_lost = True
            self.check()
        self._is_frozen = self._is_holding = False
        targets = self._target.all_prefixes(self._group)
        await at_once(
            asked(self._client, ("UNLINK", prefix + "copied", prefix + "frozen"))
            for prefix in targets
        )
