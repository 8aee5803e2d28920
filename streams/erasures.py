"""Data that goes for good: the users that a file names, and whole dataset groups."""

from __future__ import annotations

import itertools

from models.errors import InvalidInput, InvalidRecord
from models.jobs import Jobs
from models.schemas import Column, Schema
from streams.rows import Row, read
from streams.work import Outcome, Work

CHUNK_USERS = 500

NAMED = Schema((Column("USER_ID", frozenset({"string"})),))
"""What the file of a deletion must have."""


async def delete_users(work: Work) -> Outcome:
    """Erase every user that the rows of a file name from the group.

    Erasing again is harmless: who goes on with a deletion begins at its last noted row.

    Raises
    ------
    InvalidInput
        A row names nobody; the users of the rows before it are erased.
    """
    location = work.job.resource.data["dataSource"]["dataLocation"]
    store = work.tenants.store(work.group)
    row, deleted = work.noted.get("row", 0), work.noted.get("deleted", 0)
    named = itertools.islice(work.until_stopped(read(work.objects, location, NAMED)), row, None)
    while users := await work.in_thread(_users, named):
        for user in users:
            deleted += any((await store.erase_user(user)).values())
        row += len(users)
        await work.note(row=row, deleted=deleted)
    return Outcome(data={"numDeleted": deleted})


async def delete_group(work: Work) -> None:
    """Erase all that is stored of a dataset group, and the group."""
    await work.tenants.erase(work.group)
    work.is_ending = True
    await Jobs(work.resources).remove(work.job)


def _users(rows: itertools.islice[Row]) -> list[str]:
    users = []
    for row in itertools.islice(rows, CHUNK_USERS):
        if isinstance(row.values, InvalidRecord):
            raise InvalidInput(f"{row.url} line {row.line}: {row.values}")
        users.append(str(row.values["USER_ID"]))
    return users
