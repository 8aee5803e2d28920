"""A provisioning file made true: planned, made piece by piece and waited for, or removed again.

The account itself is the only state: what is there is found by its name, what is under way is
waited for, and the rest is made. So an interrupted run goes on where it stopped, and a second run
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import botocore.exceptions as boto
import msgspec

from models.errors import CannotProvision, Unavailable
from models.settings import Settings
from streams.object_store import Objects
from streams.provisioning.aws_account import AwsAccount, code_of, explained
from streams.provisioning.bucket_and_role import storage_resources
from streams.provisioning.declaration import Declaration
from streams.provisioning.personalize_resources import service_resources, tracking_id
from streams.provisioning.resource import (
    FoundResource,
    ManagedResource,
    ProvisioningContext,
    Retained,
)

T = TypeVar("T")

MAX_TRIES = 10
"""Times that a call is made which finds a limit reached; for what is in use, the time counts."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
DEFAULT_TIMEOUT_S = 6 * 3600.0

_PASSING = frozenset({"LimitExceeded", "ResourceInUse"})


@dataclass(frozen=True)
class WaitOptions:
    """How long to wait, by which clock, and who hears of it.

    Attributes
    ----------
    timeout_s
        Longest wait for one piece.
    say
        Takes what is being done, and its status, whenever it changes.
    """

    timeout_s: float = DEFAULT_TIMEOUT_S
    say: Callable[[str, str], None] = lambda _label, _status: None
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class Planned(msgspec.Struct, frozen=True):
    """One piece of a plan: what it is, and what will be done.

    Attributes
    ----------
    action
        `exists`, `wait`, `make`, `update`, or `again` for what failed before.
    """

    key: str
    label: str
    action: str
    arn: str | None = None
    reason: str = ""


def context_of(declaration: Declaration, settings: Settings) -> ProvisioningContext:
    """The account that the standard AWS environment leads to."""
    return ProvisioningContext(AwsAccount(), Objects(settings.buckets_dir), declaration)


def resources_of(world: ProvisioningContext, settings: Settings) -> list[ManagedResource]:
    """All pieces of the file, each after those it needs."""
    storage = storage_resources(world.declaration, settings.buckets_dir)
    return storage + service_resources(world.declaration)


def plan(world: ProvisioningContext, pieces: list[ManagedResource]) -> list[Planned]:
    """What is there and what will be done; changes nothing.

    Raises
    ------
    CannotProvision
        Something else has a name that the file uses.
    Unavailable
        AWS does not answer.
    """
    return [_planned(piece, found(world, piece)) for piece in pieces]


def run(
    world: ProvisioningContext, pieces: list[ManagedResource], pace: WaitOptions
) -> dict[str, str]:
    """Make what is missing, and wait until all is ready; gives ARNs by key.

    May be interrupted at any point, and run again.

    Raises
    ------
    CannotProvision
        AWS refuses a piece, or it failed; the text begins with its key.
    Unavailable
        AWS does not answer, or not in time.
    """
    for piece in pieces:
        there = found(world, piece)
        if there is not None and there.is_failed and piece.is_replaced and piece.remove:
            remove(world, piece, there, pace)
            there = None
        if there is None or there.is_failed or there.is_stale:
            pace.say(piece.label, "making")
            make(world, piece, there, pace)
        await_ready(world, piece, pace)
    return arns(world)


def destroy(
    world: ProvisioningContext, pieces: list[ManagedResource], pace: WaitOptions
) -> dict[str, str]:
    """Remove everything that the file names, what hangs on others first.

    Gives what was kept, by key, and why. May be interrupted, and run again.

    Raises
    ------
    CannotProvision, Unavailable
        As in `run`.
    """
    everything = [(piece, found(world, piece)) for piece in pieces]
    kept = {}
    for piece, there in reversed(everything):
        if there is None or piece.remove is None:
            continue
        try:
            remove(world, piece, there, pace)
        except Retained as reason:
            kept[piece.key] = str(reason)
            pace.say(piece.label, f"kept: {reason}")
    return kept


def arns(world: ProvisioningContext) -> dict[str, str]:
    """ARNs by key of all that was found, and the tracking id."""
    known = {key: one.arn for key, one in world.found.items()}
    with explained("tracker"):
        tracking = tracking_id(world)
    return known if tracking is None else known | {"trackingId": tracking}


def found(world: ProvisioningContext, piece: ManagedResource) -> FoundResource | None:
    """The piece as it is now, which others of the world may ask for."""
    with explained(piece.key):
        there = piece.find(world)
    if there is None:
        world.found.pop(piece.key, None)
    else:
        world.found[piece.key] = there
    return there


def make(
    world: ProvisioningContext,
    piece: ManagedResource,
    there: FoundResource | None,
    pace: WaitOptions,
) -> None:
    """Make a piece, or bring it up to date; raises as `run` does."""

    def made() -> None:
        try:
            piece.make(world, there)
        except boto.ClientError as error:
            # Another run may have made it since it was looked for.
            if code_of(error) != "ResourceAlreadyExists" or piece.find(world) is None:
                raise

    persist(made, piece.key, piece.label, pace)


def remove(
    world: ProvisioningContext, piece: ManagedResource, there: FoundResource, pace: WaitOptions
) -> None:
    """Remove a piece, and wait until it is gone."""
    if piece.remove is None:
        return
    removing = piece.remove
    pace.say(piece.label, "removing")

    def removed() -> None:
        try:
            removing(world, there)
        except boto.ClientError as error:
            if code_of(error) != "ResourceNotFound":
                raise

    if not there.status.startswith("DELETE"):
        persist(removed, piece.key, piece.label, pace)
    for status in _watched(lambda: found(world, piece), piece.key, piece.label, pace):
        if status is None:
            return
        if status.is_failed and status.status.startswith("DELETE"):
            raise CannotProvision(f"{piece.key}: {status.status}: {status.reason}")


def await_ready(
    world: ProvisioningContext, piece: ManagedResource, pace: WaitOptions
) -> FoundResource:
    """Wait until a piece is ready; raises as `run` does."""
    return until_ready(lambda: found(world, piece), piece.key, piece.label, pace)


def until_ready(
    find: Callable[[], FoundResource | None], key: str, label: str, pace: WaitOptions
) -> FoundResource:
    """Wait until what `find` gives is ready; raises as `run` does."""
    for there in _watched(find, key, label, pace):
        if there is None or there.is_stale:
            continue  # lists of AWS show what was made only after a moment
        if there.is_ready:
            return there
        if there.is_failed:
            raise CannotProvision(f"{key}: {there.status}: {there.reason or 'no reason'}")
    raise AssertionError("watching ends by an error")


def persist(call: Callable[[], T], key: str, label: str, pace: WaitOptions) -> T:
    """What a call gives, made again while something is in use or a limit is reached.

    Raises
    ------
    CannotProvision
        It still is, after `MAX_TRIES` or the time; or AWS refuses for another reason.
    """
    deadline, wait_s, n_limits = pace.clock() + pace.timeout_s, FIRST_PAUSE_S, 0
    while True:
        with explained(key):
            try:
                return call()
            except boto.ClientError as error:
                code = code_of(error)
                n_limits += code != "ResourceInUse"
                if not _passes(error) or n_limits >= MAX_TRIES or pace.clock() > deadline:
                    raise
                pace.say(label, f"{code}, trying again")
        pace.pause(wait_s)
        wait_s = min(2 * wait_s, LAST_PAUSE_S)


def _passes(error: boto.ClientError) -> bool:
    """Whether trying again later may help; a role just made cannot be assumed at once."""
    code, text = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    return code in _PASSING or (code == "InvalidInput" and "assume" in text.lower())


def as_text(planned: list[Planned], *, is_removed: bool = False) -> str:
    """The plan for people; of a removal, what is there to remove."""
    if is_removed:
        there = [one for one in planned if one.action != "make"]
        return "\n".join([f"remove  {one.label}" for one in there] or ["nothing is there"])
    lines = [f"{one.action:<7} {one.label}" + (f"  ({one.reason})" if one.reason else "")
             for one in planned]  # fmt: skip
    n = sum(one.action != "exists" for one in planned)
    return "\n".join([*lines, f"{n} of {len(planned)} to do" if n else "nothing to do"])


def as_lines(known: Mapping[str, str]) -> str:
    """ARNs for people, one a line."""
    return "\n".join(f"{key:<34} {arn}" for key, arn in known.items())


def _planned(piece: ManagedResource, there: FoundResource | None) -> Planned:
    if there is None:
        return Planned(piece.key, piece.label, "make")
    action = "again" if there.is_failed else "update" if there.is_stale else "wait"
    if there.is_ready:
        action = "exists"
    reason = there.reason if there.is_failed else ""
    return Planned(piece.key, piece.label, action, there.arn, reason)


def _watched(
    find: Callable[[], FoundResource | None], key: str, label: str, pace: WaitOptions
) -> Iterator[FoundResource | None]:
    """What `find` gives, again and again, less and less often.

    Raises
    ------
    Unavailable
        The time is up.
    """
    deadline, wait_s, said = pace.clock() + pace.timeout_s, FIRST_PAUSE_S, ""
    while True:
        with explained(key):
            there = find()
        status = "absent" if there is None else there.status
        if status != said:
            said = status
            pace.say(label, status)
        yield there
        if pace.clock() > deadline:
            raise Unavailable(
                f"{key}: still {status} after {pace.timeout_s:.0f} s; run again to go on"
            )
        pace.pause(wait_s)
        wait_s = min(2 * wait_s, LAST_PAUSE_S)
