"""Data deletion jobs, which erase users, and the deletion of whole dataset groups.

The compacted metadata topics keep the newest record of each item and user. A tombstone replaces it,
so that deleted data does not return when a topic is read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from models.action_groups import actions_group
from models.errors import InvalidInput, InvalidRecord
from models.metadata_records import RecordKind, parse_record, validate_properties
from models.personalize.datasets.dataset_schemas import Column, Schema
from models.personalize.resources.job_queue import Jobs
from models.state.users.user_data import user_data_counts
from streams.jobs.dataset_files import DatasetRow, DatasetRows
from streams.jobs.job import JobContext, JobResult
from streams.kafka.consuming.offsets import end_offsets, messages
from streams.kafka.topics import Topics

CHUNK_USERS = 500
"""Most users or records in one call."""

KINDS: tuple[RecordKind, ...] = ("items", "users")

USER_IDS = Schema((Column("USER_ID", frozenset({"string"})),))
"""Schema of the file of a deletion."""


async def delete_users(context: JobContext) -> JobResult:
    """Erase all users in the rows of a file from the group.

    Each erasure is an event in Kafka, as of `DELETE /users/{id}`; the job ends once Kafka has
    them all, and workers apply them. Erasures are idempotent: a resumed job begins at its last
    checkpoint.

    Raises
    ------
    InvalidInput
        A row has no valid user id; the users of earlier chunks of rows are erased.
    Unavailable
        Kafka or S3 does not answer; the same holds.
    """
    location = context.job.resource.data["dataSource"]["dataLocation"]
    stores = [
        context.tenants.store(group) for group in (context.group, actions_group(context.group))
    ]
    row, deleted = context.checkpointed.get("row", 0), context.checkpointed.get("deleted", 0)
    rows = await context.run_in_thread(
        lambda: DatasetRows(context.objects, location, USER_IDS, "users", latest_s=0)
    )
    named = itertools.islice(context.until_stopped(rows.read()), row, None)
    while users := await context.run_in_thread(_users, named):
        # Counted before a worker erases them concurrently.
        for user in dict.fromkeys(users):
            held = [await user_data_counts(one, user, now_s=context.clock()) for one in stores]
            deleted += any(any(counts.values()) for counts in held)
        await context.run_in_thread(_erase, context, users)
        row += len(users)
        context.report_progress("rows erased", row)
        await context.checkpoint(row=row, deleted=deleted)
    return JobResult(data={"numDeleted": deleted})


async def delete_group(context: JobContext) -> None:
    """Delete the stored state of a dataset group, its records in Kafka, and the group itself."""
    # The state first: no record may take effect, or be accepted, after Kafka has been read.
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
    """Write the erasures to Kafka; returns once they are acknowledged."""
    context.tracker().erase(context.group, users).result()


def _remove(context: JobContext, kind: RecordKind, group: str, names: list[str]) -> None:
    """Write tombstones for these records to Kafka; returns once they are acknowledged."""
    tracker = context.tracker()
    put = tracker.put_items if kind == "items" else tracker.put_users
    put(group, [(name, None) for name in names]).result()


def _remove_all(context: JobContext) -> None:
    """Write a tombstone for every record of the group in Kafka.

    The topics are read for them: Redis lacks records that have yet to take effect, and those
    beyond the group's limits.
    """
    for kind in KINDS:
        for group, live in _live_records(context, kind).items():
            names = iter(live)
            while chunk := list(itertools.islice(names, CHUNK_USERS)):
                _remove(context, kind, group, chunk)


def _live_records(context: JobContext, kind: RecordKind) -> dict[str, list[str]]:
    """Ids of records of a kind whose newest message in Kafka is no tombstone, by state group.

    Of the group, and of its actions.
    """
    ends = end_offsets(context.settings, [getattr(Topics.of(context.settings), kind)])
    newest: dict[str, dict[str, bool]] = {context.group: {}, actions_group(context.group): {}}
    for message in context.until_stopped(messages(context.settings, dict.fromkeys(ends, 0))):
        try:
            named = parse_record(kind, message.key or b"", b"", now_s=0)
        except InvalidRecord:
            # An invalid record has never taken effect.
            continue
        if named.group in newest:
            newest[named.group][named.id] = bool(message.value)
    return {
        group: [name for name, is_live in known.items() if is_live]
        for group, known in newest.items()
    }
