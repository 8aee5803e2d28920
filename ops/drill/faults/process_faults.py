"""Faults of workers and of the API: killed, stopped, not scheduled, joined by others."""

from __future__ import annotations

import random
import signal

from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from ops.drill.faults.fault_registry import fault
from ops.drill.reads import admin
from ops.drill.site import NotSeen, Site
from ops.drill.site_processes import RestartedProcess

TRIES = 20
"""Attempts at an operator's change of a group: it may be balanced anew at the moment."""


@fault("worker")
def worker_killed(site: Site, chance: random.Random) -> str:
    """A worker is killed -9, and started again at once or later."""
    worker = chance.choice(site.workers)
    how = worker.down(signal.SIGKILL)
    site.pause(chance, 0, 2)
    worker.up()
    return how


@fault("worker")
def worker_terminated(site: Site, chance: random.Random) -> str:
    """A worker is terminated, as by a deployment, and must end with exit code 0."""
    worker = chance.choice(site.workers)
    how = worker.down(signal.SIGTERM)
    worker.up()
    return how


@fault("worker", is_slow=True)
def worker_zombie(site: Site, chance: random.Random) -> str:
    """A worker is paused until its partitions are reassigned, and then resumed."""
    return _paused(chance.choice(site.workers), site, chance, 7, 11)


@fault("worker")
def worker_paused(site: Site, chance: random.Random) -> str:
    """A worker is paused for a moment and keeps its partitions."""
    return _paused(chance.choice(site.workers), site, chance, 0.3, 3)


@fault("worker", is_slow=True)
def worker_joins(site: Site, chance: random.Random) -> str:
    """A third worker joins for a while: partitions move twice."""
    guest = site.guest()
    site.pause(chance, 4, 8)
    return guest.down(chance.choice((signal.SIGKILL, signal.SIGTERM)))


@fault("worker")
def workers_killed_at_once(site: Site, chance: random.Random) -> str:
    """All workers are killed -9 within a moment."""
    how = [worker.down(signal.SIGKILL) for worker in site.workers]
    site.pause(chance, 0, 1)
    for worker in site.workers:
        worker.up()
        site.pause(chance, 0, 1)
    return ", ".join(how)


@fault("worker", needs=("apache",))
def members_removed(site: Site, chance: random.Random) -> str:
    """An operator removes a member of the workers' consumer group: it joins anew."""
    group = f"{site.settings.group}-worker"
    with admin(site.settings) as client:
        for _ in range(TRIES):
            try:
                found = client.describe_groups([group])[group]["members"]
                members = [member["member_id"] for member in found]
                if members:
                    chosen = chance.choice(members)
                    client.remove_group_members(group, [MemberToRemove(member_id=chosen)])
                    return f"{chosen} was removed"
            except KafkaError as error:
                said = error
            site.pause(chance, 0.5, 1)
    raise NotSeen(f"no member was removed: {said!r}")


@fault("worker", needs=("apache",), is_slow=True)
def group_forgotten(site: Site, chance: random.Random) -> str:
    """An operator deletes the workers' consumer group, or sets its offsets to where it began."""
    for worker in site.workers:
        worker.down(signal.SIGTERM)
    group = f"{site.settings.group}-worker"
    is_deleted = chance.random() < 0.5
    try:
        with admin(site.settings) as client:
            for _ in range(TRIES):
                try:
                    if is_deleted:
                        client.delete_groups([group])
                        return f"group {group} was deleted"
                    kept = client.list_group_offsets([group])[group]
                    client.alter_group_offsets(
                        group, {place: own._replace(offset=0) for place, own in kept.items()}
                    )
                    return f"{len(kept)} offsets were set to 0"
                except KafkaError as error:
                    # A member that was killed is still counted for some seconds.
                    said = error
                site.pause(chance, 0.5, 1)
        raise NotSeen(f"group {group} stayed as it was: {said!r}")
    finally:
        for worker in site.workers:
            worker.up()


@fault("api")
def api_killed(site: Site, chance: random.Random) -> str:
    """The API is killed -9 with requests under way."""
    return _ended(site.api, signal.SIGKILL, site, chance)


@fault("api")
def api_terminated(site: Site, chance: random.Random) -> str:
    """The API is terminated during requests, as by a deployment, and must end in time."""
    return _ended(site.api, signal.SIGTERM, site, chance)


@fault("api")
def api_paused(site: Site, chance: random.Random) -> str:
    """The API is paused for some seconds."""
    return _paused(site.api, site, chance, 0.5, 4)


def _ended(process: RestartedProcess, by: signal.Signals, site: Site, chance: random.Random) -> str:
    how = process.down(by)
    site.pause(chance, 0, 0.5)
    process.up()
    return how


def _paused(
    process: RestartedProcess, site: Site, chance: random.Random, least_s: float, most_s: float
) -> str:
    with process.paused() as pid:
        site.pause(chance, least_s, most_s)
    return f"process {pid} stood still"
