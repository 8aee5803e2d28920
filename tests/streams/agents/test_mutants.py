"""Mutation tests of `test_exactly_once`: without any one of the fixes, its state machine fails."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import run_state_machine_as_test

from models.state import store
from models.state.scripts import registered_scripts as scripts
from models.state.scripts.registered_scripts import Script
from ops import embedded_servers
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.rewinds import Rewinds
from streams.kafka.consuming.assignment import PartitionRead, ReceivedMessage
from tests.servers import require
from tests.streams.agents.test_exactly_once import Faults, LostTails, ShortHistories

Mutant = Callable[[pytest.MonkeyPatch], None]


def old_reads_are_taken(patch: pytest.MonkeyPatch) -> None:
    """Messages of an earlier read are accepted as those of the last one."""
    accepts = PartitionRead.accepts

    def accept(self: PartitionRead, received: ReceivedMessage) -> bool:
        return accepts(self, received._replace(read=self.number, follows=-1))

    patch.setattr(PartitionRead, "accepts", accept)


def assignments_are_mixed(patch: pytest.MonkeyPatch) -> None:
    """A batch is applied under the current assignment instead of its own."""
    write_all: Any = AtomicBatches._write_all
    record: Any = AtomicBatches._record

    async def write_mixed(self: Any, _: object, *rest: Any) -> Any:
        return await write_all(self, self.assignment, *rest)

    async def record_mixed(self: Any, _: object, *rest: Any) -> Any:
        return await record(self, self.assignment, *rest)

    patch.setattr(AtomicBatches, "_write_all", write_mixed)
    patch.setattr(AtomicBatches, "_record", record_mixed)


def as_it_is_on_debians_redis(patch: pytest.MonkeyPatch) -> None:
    """No mutant: the machine runs on a server that keeps the beginning of a torn step.

    The embedded Valkey cuts it off since 9.1, so that there the fix has nothing to do.
    """
    require("redis-server")
    found = shutil.which("redis-server")
    patch.setattr(embedded_servers, "redis_binary", lambda: found)


def torn_files_stay(patch: pytest.MonkeyPatch) -> None:
    """Half a step stays in the append-only file, and is executed at a later restart."""
    as_it_is_on_debians_redis(patch)

    async def nothing(*_: object) -> None:
        pass

    patch.setattr(scripts, "rewrite_torn_file", nothing)


def lost_tails_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """A lost tail causes no rewind."""

    async def nothing(*_: object) -> None:
        pass

    patch.setattr(Rewinds, "_resume_after_lost_tail", nothing)


def ids_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Events that were trimmed off a history count again when they are sent again."""
    _without(patch, "local function is_trimmed(history, id)\n")


def repetitions_under_another_session_count(patch: pytest.MonkeyPatch) -> None:
    """An event that is sent again under another session counts again."""
    _without(patch, "local function is_repeated(item, time, millisecond, code, hash, number)\n")


def _without(patch: pytest.MonkeyPatch, head: str) -> None:
    """Have a function of the atomic step always return false."""
    assert store.STEP.text.count(head) == 1
    text = store.STEP.text.replace(head, f"{head}if true then return false end\n")
    patch.setattr(store, "STEP", Script.of(text))


BOUNDS = settings(
    max_examples=15,  # each fault was found within 13
    stateful_step_count=30,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

UNTIL_FOUND = settings(BOUNDS, max_examples=100)
"""Generation ends with the example that finds the fault."""

# In another run of the same example Redis may rewrite its file at another moment.
FOUND = (AssertionError, KeyError, FlakyFailure)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("machine", "mutant"),
    [
        (Faults, old_reads_are_taken),
        (Faults, assignments_are_mixed),
        (Faults, torn_files_stay),
        (LostTails, lost_tails_are_not_noticed),
        (ShortHistories, ids_are_forgotten),
        (Faults, repetitions_under_another_session_count),
    ],
)
def test_the_machine_fails_without_a_fix(
    machine: type[Faults], mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are lost or counted twice, or the agent raises."""
    mutant(monkeypatch)
    with pytest.raises(FOUND):
        run_state_machine_as_test(machine, settings=UNTIL_FOUND)


@pytest.mark.parametrize("machine", [Faults, LostTails, ShortHistories])
def test_the_machine_passes_with_all_fixes(machine: type[Faults]) -> None:
    """The failures of the mutants are their own."""
    run_state_machine_as_test(machine, settings=BOUNDS)


def test_the_machine_passes_on_debians_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it tears files that come back with half a step."""
    as_it_is_on_debians_redis(monkeypatch)
    run_state_machine_as_test(Faults, settings=BOUNDS)
