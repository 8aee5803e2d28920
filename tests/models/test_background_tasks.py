"""The end of background tasks: also of those that do not hear the first cancellation."""

from __future__ import annotations

import asyncio

import pytest

from models import background_tasks
from models.background_tasks import end_tasks

pytestmark = pytest.mark.unit


async def test_a_lost_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task ends though `asyncio.wait_for` drops the first, as behind a command of redis-py."""
    monkeypatch.setattr(background_tasks, "AGAIN_S", 0.01)
    sent = asyncio.get_running_loop().create_future()

    async def send_command() -> None:
        await asyncio.wait_for(sent, 60)
        await asyncio.sleep(60)

    sending = asyncio.create_task(send_command())
    await asyncio.sleep(0)
    sent.set_result(None)
    await end_tasks(sending)

    assert sending.cancelled()


async def test_tasks_that_have_ended_and_none_are_passed_over() -> None:
    """What never started, or has ended, needs no cancellation."""

    async def nothing() -> None:
        """End at once."""

    ended = asyncio.create_task(nothing())
    await ended
    await end_tasks(None, ended)

    assert not ended.cancelled()
