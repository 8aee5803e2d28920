"""Faults of workers and of the API: killed, stopped, not scheduled, joined by others."""

from __future__ import annotations

import random
import signal

from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from tests.drill.faults import fault
from tests.drill.site import Site, pause


@fault("worker")
def worker_killed(site: Site, chance: random.Random) -> None:
    """A worker is killed -9, and started again at once or later."""
    worker = chance.choice(site.workers)
    worker.down(signal.SIGKILL)
    pause(chance, 0, 2)
    worker.up()


@fault("worker")
def worker_terminated(site: Site, chance: random.Random) -> None:
    """A worker is terminated, as by a deployment, and must end with exit code 0."""
    worker = chance.choice(site.workers)
    worker.down(signal.SIGTERM)
    worker.up()


@fault("worker", is_slow=True)
def worker_zombie(site: Site, chance: random.Random) -> None:
    """A worker is paused until its partitions are reassigned, and then resumed."""
    with chance.choice(site.workers).stopped():
        pause(chance, 7, 11)


@fault("worker")
def worker_halted(site: Site, chance: random.Random) -> None:
    """A worker is paused for a moment and keeps its partitions."""
    with chance.choice(site.workers).stopped():
        pause(chance, 0.3, 3)


@fault("worker", is_slow=True)
def worker_joins(site: Site, chance: random.Random) -> None:
    """A third worker joins for a while: partitions move twice."""
    guest = site.guest()
    pause(chance, 4, 8)
    guest.down(chance.choice((signal.SIGKILL, signal.SIGTERM)))


@fault("worker")
def workers_killed_at_once(site: Site, chance: random.Random) -> None:
    """All workers are killed -9 within a moment."""
    for worker in site.workers:
        worker.down(signal.SIGKILL)
    pause(chance, 0, 1)
    for worker in site.workers:
        worker.up()
        pause(chance, 0, 1)


@fault("worker")
def members_removed(site: Site, chance: random.Random) -> None:
    """An operator removes the members of the workers' consumer group: they join anew."""
    group = f"{site.stack.settings.group}-worker"
    admin = KafkaAdminClient(bootstrap_servers=site.kafka.address)
    try:
        members = [
            member["member_id"] for member in admin.describe_groups([group])[group]["members"]
        ]
        if members:
            admin.remove_group_members(group, [MemberToRemove(member_id=chance.choice(members))])
    except KafkaError:
        # The group is being balanced anew at this moment: that is a fault of the same kind.
        pause(chance, 0, 0.1)
    finally:
        admin.close()


@fault("worker", is_slow=True)
def group_forgotten(site: Site, chance: random.Random) -> None:
    """An operator deletes the workers' consumer group, or sets its offsets to where it began."""
    for worker in site.workers:
        worker.down(signal.SIGTERM)
    group = f"{site.stack.settings.group}-worker"
    admin = KafkaAdminClient(bootstrap_servers=site.kafka.address)
    try:
        if chance.random() < 0.5:
            admin.delete_groups([group])
        else:
            committed = admin.list_group_offsets([group])[group]
            admin.alter_group_offsets(
                group, {tp: kept._replace(offset=0) for tp, kept in committed.items()}
            )
    except KafkaError:
        # A member that was killed is still counted for some seconds.
        pause(chance, 0, 0.1)
    finally:
        admin.close()
        for worker in site.workers:
            worker.up()


@fault("api")
def api_killed(site: Site, chance: random.Random) -> None:
    """The API is killed -9 with requests under way."""
    site.api.down(signal.SIGKILL)
    pause(chance, 0, 0.5)
    site.api.up()


@fault("api")
def api_terminated(site: Site, chance: random.Random) -> None:
    """The API is terminated during requests."""
    site.api.down(signal.SIGTERM)
    pause(chance, 0, 0.5)
    site.api.up()


@fault("api")
def api_halted(site: Site, chance: random.Random) -> None:
    """The API is paused for some seconds."""
    with site.api.stopped():
        pause(chance, 0.5, 4)
