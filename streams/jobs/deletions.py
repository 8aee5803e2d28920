"""Data that goes for good: the users that a file names, and whole dataset groups.

Kafka keeps the newest metadata record of everybody. A removal of each takes its place, so that who
was erased does not come back when the topic is read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from models.errors import InvalidInput, InvalidRecord
from models.metadata_records import RecordKind, parse_record, validate_properties
from models.personalize.dataset_schemas import Column, Schema
from models.personalize.job_queue import Jobs
from streams.jobs.dataset_files import DatasetRow, DatasetRows
from streams.jobs.job import JobContext, JobResult
from streams.kafka.offsets import end_offsets, messages
from streams.kafka.topics import Topics

CHUNK_USERS = 500
"""Users whose records are removed in one call, at most."""

KINDS: tuple[RecordKind, ...] = ("items", "users")

NAMED = Schema((Column("USER_ID", frozenset({"string"})),))
"""What the file of a deletion must have."""


async def delete_users(context: JobContext) -> JobResult:
    """Erase every user that the rows of a file name from the group.

    As `DELETE /users/{id}` does: Kafka has the erasures when the job is done, and workers bring
    them into effect. Erasing again is harmless: who goes on begins at the last noted row.

    Raises
    ------
    InvalidInput
        A row names nobody; the users of earlier chunks of rows are erased.
    Unavailable
        Kafka or S3 does not answer; as before.
    """
    location = context.job.resource.data["dataSource"]["dataLocation"]
    store = context.tenants.store(context.group)
    row, deleted = context.checkpointed.get("row", 0), context.checkpointed.get("deleted", 0)
    rows = await context.run_in_thread(
        lambda: DatasetRows(context.objects, location, NAMED, "users", latest_s=0)
    )
    named = itertools.islice(context.until_stopped(rows.read()), row, None)
    while users := await context.run_in_thread(_users, named):
        # Counted first, for a worker erases them behind this job.
        for user in dict.fromkeys(users):
            held = await store.user_data_counts(user, now_s=context.clock())
            deleted += any(held.values())
        await context.run_in_thread(_erase, context, users)
        row += len(users)
        context.report_progress("rows erased", row)
        await context.checkpoint(row=row, deleted=deleted)
    return JobResult(data={"numDeleted": deleted})


async def delete_group(context: JobContext) -> None:
    """Erase all that is stored of a dataset group, its records in Kafka, and the group."""
    # First, so that no record comes into effect, or is taken from anybody, after the look at Kafka.
    await context.tenants.erase(context.group)
    await context.run_in_thread(_remove_all, context)
    context.is_ending = True
    await Jobs(context.resources).remove(context.job)


def _users(rows: Iterator[DatasetRow]) -> list[str]:
    users = []
    for row in itertools.islice(rows, CHUNK_USERS):
        if isinstance(row.values, InvalidRecord):
            raise InvalidInput(f"{row.where}: {row.values}")
        user = str(row.values["USER_ID"])
        try:
            validate_properties("users", user, {})
        except InvalidRecord as error:
            raise InvalidInput(f"{row.where}: {error}") from error
        users.append(user)
    return users


def _erase(context: JobContext, users: list[str]) -> None:
    """Put the erasures into the log; returns once Kafka has acknowledged them."""
    context.tracker().erase(context.group, users).result()


def _remove(context: JobContext, kind: RecordKind, names: list[str]) -> None:
    """Take the place of these records in Kafka; returns once it has acknowledged."""
    tracker = context.tracker()
    put = tracker.put_items if kind == "items" else tracker.put_users
    put(context.group, [(name, None) for name in names]).result()


def _remove_all(context: JobContext) -> None:
    """Take the place of every record of the group in Kafka.

    What counts is what Kafka has: Redis does not know of records that are still to take effect, or
    that went beyond what a group may hold.
    """
    for kind in KINDS:
        names = iter(_kept(context, kind))
        while some := list(itertools.islice(names, CHUNK_USERS)):
            _remove(context, kind, some)


def _kept(context: JobContext, kind: RecordKind) -> list[str]:
    """The ids of the group's records of a kind whose newest message in Kafka is no removal."""
    ends = end_offsets(context.settings, [getattr(Topics.of(context.settings), kind)])
    newest: dict[str, bool] = {}
    for message in context.until_stopped(messages(context.settings, dict.fromkeys(ends, 0))):
        try:
            named = parse_record(kind, message.key or b"", b"", now_s=0)
        except InvalidRecord:
            # Nobody's: it has never taken effect.
            continue
        if named.group == context.group:
            newest[named.id] = bool(message.value)
    return [name for name, is_kept in newest.items() if is_kept]
