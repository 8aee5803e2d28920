"""Applying a provisioning file: plan, create and wait for each resource, or remove them all.

The account itself is the only state: existing resources are found by name, pending ones awaited,
and missing ones are created. So an interrupted run is resumed by the next one, and a second run
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import botocore.exceptions as boto
import msgspec
import tenacity

from models.errors import CannotProvision, Unavailable
from models.settings import Settings
from models.waits import waits_s
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
from streams.retry_policy import backoff, failure_of

T = TypeVar("T")

MAX_TRIES = 10
"""Attempts at a call that exceeds a limit; for a resource in use, the time counts instead."""

FIRST_WAIT_S, MAX_WAIT_S = 0.5, 30.0
DEFAULT_TIMEOUT_S = 6 * 3600.0

_RETRYABLE = frozenset({"LimitExceeded", "ResourceInUse"})


@dataclass(frozen=True)
class WaitOptions:
    """Timeout, clock and progress reports of waiting.

    Attributes
    ----------
    timeout_s
        Longest wait for one resource.
    say
        Called with the label of a resource and its status at every change.
    """

    timeout_s: float = DEFAULT_TIMEOUT_S
    say: Callable[[str, str], None] = lambda _label, _status: None
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class Planned(msgspec.Struct, frozen=True):
    """A resource in a plan, and the action on it.

    Attributes
    ----------
    action
        `exists`, `wait`, `make`, `update`, or `again` for a failed one.
    """

    key: str
    label: str
    action: str
    arn: str | None = None
    reason: str = ""


def context_of(declaration: Declaration, settings: Settings) -> ProvisioningContext:
    """The context of a declaration, with the account of the standard AWS environment."""
    return ProvisioningContext(AwsAccount(), Objects(settings.buckets_dir), declaration)


def resources_of(context: ProvisioningContext, settings: Settings) -> list[ManagedResource]:
    """All resources of the file, each after those it depends on."""
    storage = storage_resources(context.declaration, settings.buckets_dir)
    return storage + service_resources(context.declaration)


def plan(context: ProvisioningContext, resources: list[ManagedResource]) -> list[Planned]:
    """The existing resources and the actions to take; changes nothing.

    Raises
    ------
    CannotProvision
        A name in the file belongs to a different resource.
    Unavailable
        AWS does not answer.
    """
    return [_planned(resource, find_resource(context, resource)) for resource in resources]


def run(
    context: ProvisioningContext, resources: list[ManagedResource], wait_options: WaitOptions
) -> dict[str, str]:
    """Create missing resources and wait until all are ready; gives ARNs by key.

    May be interrupted at any point, and run again.

    Raises
    ------
    CannotProvision
        AWS refuses a resource, or it failed; the text begins with its key.
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
    """Remove all resources of the file, dependent ones first.

    Gives the reasons of retained ones by key. May be interrupted, and run again.

    Raises
    ------
    CannotProvision, Unavailable
        As in `run`.
    """
    everything = [(resource, find_resource(context, resource)) for resource in resources]
    retained = {}
    for resource, existing in reversed(everything):
        if existing is None or resource.remove is None:
            continue
        try:
            remove_resource(context, resource, existing, wait_options)
        except Retained as reason:
            retained[resource.key] = str(reason)
            wait_options.say(resource.label, f"kept: {reason}")
    return retained


def arns(context: ProvisioningContext) -> dict[str, str]:
    """ARNs of the existing resources by key, and the tracking id."""
    known = {key: one.arn for key, one in context.found.items()}
    with translated_errors("tracker"):
        tracking = tracking_id(context)
    return known if tracking is None else known | {"trackingId": tracking}


def find_resource(context: ProvisioningContext, resource: ManagedResource) -> FoundResource | None:
    """The present state of a resource, also recorded in the context for dependent ones."""
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
    """Create or update a resource; raises as `run` does."""

    def made() -> None:
        try:
            resource.make(context, existing)
        except boto.ClientError as error:
            # A concurrent run may have created it.
            if code_of(error) != "ResourceAlreadyExists" or resource.find(context) is None:
                raise

    retry_while_busy(made, resource.key, resource.label, wait_options)


def remove_resource(
    context: ProvisioningContext,
    resource: ManagedResource,
    existing: FoundResource,
    wait_options: WaitOptions,
) -> None:
    """Remove a resource, and wait until it is deleted."""
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
    """Wait until a resource is ready; raises as `run` does."""
    return wait_until_ready(
        lambda: find_resource(context, resource), resource.key, resource.label, wait_options
    )


def wait_until_ready(
    find: Callable[[], FoundResource | None], key: str, label: str, wait_options: WaitOptions
) -> FoundResource:
    """Wait until the resource that `find` gives is ready; raises as `run` does."""
    for existing in _watched(find, key, label, wait_options):
        if existing is None or existing.is_stale:
            continue  # lists of AWS show new resources with a delay
        if existing.is_ready:
            return existing
        if existing.is_failed:
            raise CannotProvision(f"{key}: {existing.status}: {existing.reason or 'no reason'}")
    raise AssertionError("watching ends by an error")


def retry_while_busy(call: Callable[[], T], key: str, label: str, wait_options: WaitOptions) -> T:
    """The result of a call, retried while a resource is in use or a limit is exceeded.

    Raises
    ------
    CannotProvision
        Tries or time are exhausted, or AWS refuses for another reason.
    """
    deadline_s, n_limits = wait_options.clock() + wait_options.timeout_s, 0

    def is_over(attempt: tenacity.RetryCallState) -> bool:
        nonlocal n_limits
        n_limits += _code(failure_of(attempt)) != "ResourceInUse"
        return n_limits >= MAX_TRIES or wait_options.clock() > deadline_s

    def say(attempt: tenacity.RetryCallState) -> None:
        wait_options.say(label, f"{_code(failure_of(attempt))}, trying again")

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_retryable),
        wait=backoff(FIRST_WAIT_S, MAX_WAIT_S),
        stop=is_over,
        sleep=wait_options.pause,
        before_sleep=say,
        reraise=True,
    )
    with translated_errors(key):
        return retrying(call)


def _code(error: BaseException) -> str:
    return code_of(error) if isinstance(error, boto.ClientError) else ""


def _is_retryable(error: BaseException) -> bool:
    """True if a retry may help; a new role, for example, cannot be assumed at once."""
    if not isinstance(error, boto.ClientError):
        return False
    code, text = code_of(error), str(error.response.get("Error", {}).get("Message", ""))
    return code in _RETRYABLE or (code == "InvalidInput" and "assume" in text.lower())


def as_text(planned: list[Planned], *, is_removal: bool = False) -> str:
    """The plan as text; of a removal, the resources to remove."""
    if is_removal:
        existing = [one for one in planned if one.action != "make"]
        return "\n".join([f"remove  {one.label}" for one in existing] or ["nothing is there"])
    lines = [f"{one.action:<7} {one.label}" + (f"  ({one.reason})" if one.reason else "")
             for one in planned]  # fmt: skip
    n = sum(one.action != "exists" for one in planned)
    return "\n".join([*lines, f"{n} of {len(planned)} to do" if n else "nothing to do"])


def as_lines(known: Mapping[str, str]) -> str:
    """ARNs as text, one a line."""
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
    """Successive states of a resource, at growing intervals.

    Raises
    ------
    Unavailable
        The timeout has passed.
    """
    deadline_s, reported = wait_options.clock() + wait_options.timeout_s, ""
    for wait_s in waits_s(FIRST_WAIT_S, MAX_WAIT_S):
        with translated_errors(key):
            existing = find()
        status = "absent" if existing is None else existing.status
        if status != reported:
            reported = status
            wait_options.say(label, status)
        yield existing
        if wait_options.clock() > deadline_s:
            raise Unavailable(
                f"{key}: still {status} after {wait_options.timeout_s:.0f} s; run again to go on"
            )
        wait_options.pause(wait_s)
