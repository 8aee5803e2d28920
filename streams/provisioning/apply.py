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
from streams.provisioning.aws_account import AwsAccount, code_of, translated_errors
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


def resources_of(context: ProvisioningContext, settings: Settings) -> list[ManagedResource]:
    """All pieces of the file, each after those it needs."""
    storage = storage_resources(context.declaration, settings.buckets_dir)
    return storage + service_resources(context.declaration)


def plan(context: ProvisioningContext, resources: list[ManagedResource]) -> list[Planned]:
    """What is there and what will be done; changes nothing.

    Raises
    ------
    CannotProvision
        Something else has a name that the file uses.
    Unavailable
        AWS does not answer.
    """
    return [_planned(resource, find_resource(context, resource)) for resource in resources]


def run(
    context: ProvisioningContext, resources: list[ManagedResource], wait_options: WaitOptions
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
    for resource in resources:
        existing = find_resource(context, resource)
        if existing is not None and existing.is_failed and resource.is_replaced and resource.remove:
            remove_resource(context, resource, existing, wait_options)
            existing = None
        if existing is None or existing.is_failed or existing.is_stale:
            wait_options.say(resource.label, "making")
            make_resource(context, resource, existing, wait_options)
        await_ready(context, resource, wait_options)
    return arns(context)


def destroy(
    context: ProvisioningContext, resources: list[ManagedResource], wait_options: WaitOptions
) -> dict[str, str]:
    """Remove everything that the file names, what hangs on others first.

    Gives what was kept, by key, and why. May be interrupted, and run again.

    Raises
    ------
    CannotProvision, Unavailable
        As in `run`.
    """
    everything = [(resource, find_resource(context, resource)) for resource in resources]
    kept = {}
    for resource, existing in reversed(everything):
        if existing is None or resource.remove is None:
            continue
        try:
            remove_resource(context, resource, existing, wait_options)
        except Retained as reason:
            kept[resource.key] = str(reason)
            wait_options.say(resource.label, f"kept: {reason}")
    return kept


def arns(context: ProvisioningContext) -> dict[str, str]:
    """ARNs by key of all that was found, and the tracking id."""
    known = {key: one.arn for key, one in context.found.items()}
    with translated_errors("tracker"):
        tracking = tracking_id(context)
    return known if tracking is None else known | {"trackingId": tracking}


def find_resource(context: ProvisioningContext, resource: ManagedResource) -> FoundResource | None:
    """The piece as it is now, which others of the world may ask for."""
    with translated_errors(resource.key):
        existing = resource.find(context)
    if existing is None:
        context.found.pop(resource.key, None)
    else:
        context.found[resource.key] = existing
    return existing


def make_resource(
    context: ProvisioningContext,
    resource: ManagedResource,
    existing: FoundResource | None,
    wait_options: WaitOptions,
) -> None:
    """Make a piece, or bring it up to date; raises as `run` does."""

    def made() -> None:
        try:
            resource.make(context, existing)
        except boto.ClientError as error:
            # Another run may have made it since it was looked for.
            if code_of(error) != "ResourceAlreadyExists" or resource.find(context) is None:
                raise

    retry_while_busy(made, resource.key, resource.label, wait_options)


def remove_resource(
    context: ProvisioningContext,
    resource: ManagedResource,
    existing: FoundResource,
    wait_options: WaitOptions,
) -> None:
    """Remove a piece, and wait until it is gone."""
    if resource.remove is None:
        return
    removing = resource.remove
    wait_options.say(resource.label, "removing")

    def removed() -> None:
        try:
            removing(context, existing)
        except boto.ClientError as error:
            if code_of(error) != "ResourceNotFound":
                raise

    if not existing.status.startswith("DELETE"):
        retry_while_busy(removed, resource.key, resource.label, wait_options)
    for status in _watched(
        lambda: find_resource(context, resource), resource.key, resource.label, wait_options
    ):
        if status is None:
            return
        if status.is_failed and status.status.startswith("DELETE"):
            raise CannotProvision(f"{resource.key}: {status.status}: {status.reason}")


def await_ready(
    context: ProvisioningContext, resource: ManagedResource, wait_options: WaitOptions
) -> FoundResource:
    """Wait until a piece is ready; raises as `run` does."""
    return wait_until_ready(
        lambda: find_resource(context, resource), resource.key, resource.label, wait_options
    )


def wait_until_ready(
    find: Callable[[], FoundResource | None], key: str, label: str, wait_options: WaitOptions
) -> FoundResource:
    """Wait until what `find` gives is ready; raises as `run` does."""
    for existing in _watched(find, key, label, wait_options):
        if existing is None or existing.is_stale:
            continue  # lists of AWS show what was made only after a moment
        if existing.is_ready:
            return existing
        if existing.is_failed:
            raise CannotProvision(f"{key}: {existing.status}: {existing.reason or 'no reason'}")
    raise AssertionError("watching ends by an error")


def retry_while_busy(call: Callable[[], T], key: str, label: str, wait_options: WaitOptions) -> T:
    """What a call gives, made again while something is in use or a limit is reached.

    Raises
    ------
    CannotProvision
        It still is, after `MAX_TRIES` or the time; or AWS refuses for another reason.
    """
    deadline, wait_s, n_limits = wait_options.clock() + wait_options.timeout_s, FIRST_PAUSE_S, 0
    while True:
        with translated_errors(key):
            try:
                return call()
            except boto.ClientError as error:
                code = code_of(error)
                n_limits += code != "ResourceInUse"
                if not _passes(error) or n_limits >= MAX_TRIES or wait_options.clock() > deadline:
                    raise
                wait_options.say(label, f"{code}, trying again")
        wait_options.pause(wait_s)
        wait_s = min(2 * wait_s, LAST_PAUSE_S)


def _passes(error: boto.ClientError) -> bool:
    """Whether trying again later may help; a role just made cannot be assumed at once."""
    code, text = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    return code in _PASSING or (code == "InvalidInput" and "assume" in text.lower())


def as_text(planned: list[Planned], *, is_removed: bool = False) -> str:
    """The plan for people; of a removal, what is there to remove."""
    if is_removed:
        existing = [one for one in planned if one.action != "make"]
        return "\n".join([f"remove  {one.label}" for one in existing] or ["nothing is there"])
    lines = [f"{one.action:<7} {one.label}" + (f"  ({one.reason})" if one.reason else "")
             for one in planned]  # fmt: skip
    n = sum(one.action != "exists" for one in planned)
    return "\n".join([*lines, f"{n} of {len(planned)} to do" if n else "nothing to do"])


def as_lines(known: Mapping[str, str]) -> str:
    """ARNs for people, one a line."""
    return "\n".join(f"{key:<34} {arn}" for key, arn in known.items())


def _planned(resource: ManagedResource, existing: FoundResource | None) -> Planned:
    if existing is None:
        return Planned(resource.key, resource.label, "make")
    action = "again" if existing.is_failed else "update" if existing.is_stale else "wait"
    if existing.is_ready:
        action = "exists"
    reason = existing.reason if existing.is_failed else ""
    return Planned(resource.key, resource.label, action, existing.arn, reason)


def _watched(
    find: Callable[[], FoundResource | None], key: str, label: str, wait_options: WaitOptions
) -> Iterator[FoundResource | None]:
    """What `find` gives, again and again, less and less often.

    Raises
    ------
    Unavailable
        The time is up.
    """
    deadline, wait_s, said = wait_options.clock() + wait_options.timeout_s, FIRST_PAUSE_S, ""
    while True:
        with translated_errors(key):
            existing = find()
        status = "absent" if existing is None else existing.status
        if status != said:
            said = status
            wait_options.say(label, status)
        yield existing
        if wait_options.clock() > deadline:
            raise Unavailable(
                f"{key}: still {status} after {wait_options.timeout_s:.0f} s; run again to go on"
            )
        wait_options.pause(wait_s)
        wait_s = min(2 * wait_s, LAST_PAUSE_S)
