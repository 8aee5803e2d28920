"""Dataset import jobs: rows of CSV objects become live events and metadata.

First every row is checked, and nothing is sent where too many are bad. Then the good ones are sent
through Kafka like live ones, in chunks; how far that is, is noted once a chunk is acknowledged. Who
goes on with an import reads in Kafka what of the chunk under way was sent: every row takes effect
once. FULL and INCREMENTAL alike add to what is there, and take the place of older metadata.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

import msgspec

from models.events import PutEvents, parse, tracking_id_of
from models.metadata_records import RecordKind
from models.personalize.dataset_rows import pack_by_user
from models.personalize.dataset_schemas import contextual, parse_schema
from models.tokens import Receipt, TopicKind
from streams.jobs.dataset_files import DatasetRow
from streams.jobs.import_rows import Good, ImportSource, ImportSurvey, opened, parsed_rows
from streams.jobs.job import JobContext, JobResult
from streams.jobs.resume import Ends, ends_after, ends_now, event_ids_since, in_effect
from streams.kafka import dead_letters
from streams.kafka.dead_letters import FULL
from streams.kafka.topics import Topics

CHUNK_ROWS = 2000
"""Rows between two notes of how far an import is."""

TELL_EVERY = 500
"""Rows checked between two words on how far an import is."""

LOG_EVERY = 50_000
"""Rows between two lines of the log."""

EVENTS_A_MESSAGE = 10

KINDS: dict[str, tuple[TopicKind, ...]] = {
    "INTERACTIONS": ("clicks", "purchases"),
    "ITEMS": ("items",),
    "USERS": ("users",),
}
"""The topics that the rows of each type of dataset go to."""

log = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """The good ones of some rows, and how many rows have been read after them."""

    row: int
    good: list[Good]


async def import_dataset(context: JobContext) -> JobResult:
    """Bring the rows of an import into effect.

    Raises
    ------
    InvalidInput
        Columns are missing or too many rows are bad; then nothing was sent.
    """
    job = context.job.resource
    dataset = await context.resources.get(job.links[0])
    schema = await context.resources.get(dataset.links[1])
    source = ImportSource(
        job.data["dataSource"]["dataLocation"],
        parse_schema(schema.data["schema"]),
        dataset.data["datasetType"],
    )
    survey = await _surveyed(context, source)
    if source.dataset_type == "INTERACTIONS":
        # Again, for who created the dataset may have been interrupted, or did not know of them yet.
        await context.tenants.name_columns(context.group, contextual(source.schema))
        await _send_events(context, source)
    else:
        await _send_records(context, source, "items" if source.dataset_type == "ITEMS" else "users")
    await in_effect(
        context.settings,
        context.tenants.store(context.settings.group),
        context.checkpointed["ends"],
    )
    remarks = [await context.run_in_thread(_beyond, context, source), survey.remark]
    log.info("%s: %d rows, %d bad", context.job.path, survey.rows, survey.bad)
    return JobResult(hidden={"row": survey.rows}, remark="; ".join(filter(None, remarks)))


async def _surveyed(context: JobContext, source: ImportSource) -> ImportSurvey:
    if "survey" in context.checkpointed:
        return msgspec.convert(context.checkpointed["survey"], ImportSurvey)
    survey = await context.run_in_thread(_survey, context, source)
    survey.check(source.location, context.settings.import_bad_share)
    ends = await context.run_in_thread(ends_now, context.settings, KINDS[source.dataset_type])
    more: dict[str, Any] = {
        "letters": await context.run_in_thread(dead_letters.ends, context.settings)
    }
    if source.dataset_type == "INTERACTIONS":
        # Nobody else knows it, so that what this job has sent can be told from all else.
        more["tracking_id"] = secrets.token_hex(16)
    await context.checkpoint(survey=msgspec.to_builtins(survey), row=0, ends=ends, **more)
    return survey


def _survey(context: JobContext, source: ImportSource) -> ImportSurvey:
    survey = ImportSurvey()
    rows = opened(context.objects, source, context.settings, now_s=context.clock())
    log.info("%s: %s", context.job.path, "; ".join(rows.source.notes))
    done = 0

    def on_bytes(n: int) -> None:
        nonlocal done
        done += n

    for row, one in _said(context, source, rows.read(on_bytes)):
        survey.add(row, one)
        if survey.rows % TELL_EVERY == 0:
            what = f"rows checked ({done / 1e6:.1f} of {rows.n_bytes / 1e6:.1f} MB)"
            context.report_progress(what, survey.rows)
            if survey.rows % LOG_EVERY == 0:
                log.info("%s: %d %s, %d bad", context.job.path, survey.rows, what, survey.bad)
    return survey


async def _send_events(context: JobContext, source: ImportSource) -> None:
    settings, tracking_id = context.settings, context.checkpointed["tracking_id"]
    await context.tenants.register(tracking_id, context.group)
    ends: Ends = context.checkpointed["ends"]
    sent = await context.run_in_thread(event_ids_since, settings, ends, tracking_id)
    if sent:
        # What was sent must take effect too; the ids are of the first chunk below.
        ends = await context.run_in_thread(ends_now, settings, KINDS["INTERACTIONS"])

    def send(chunk: Chunk) -> list[Receipt]:
        tracker = context.tracker()
        events = [one for one in chunk.good if isinstance(one, PutEvents)]
        new = [one for one in events if one.event_list[0].event_id not in sent]
        futures = [
            tracker.put_events(msgspec.structs.replace(message, tracking_id=tracking_id))
            for message in pack_by_user(new, EVENTS_A_MESSAGE)
        ]
        return _receipts(futures)

    await _send(context, source, ends, send)


async def _send_records(context: JobContext, source: ImportSource, kind: RecordKind) -> None:
    group = context.group

    def send(chunk: Chunk) -> list[Receipt]:
        tracker = context.tracker()
        put = tracker.put_items if kind == "items" else tracker.put_users
        # One at a time: a call has all of its records under way at once, however long they are.
        futures = [put(group, [one]) for one in chunk.good if isinstance(one, tuple)]
        return _receipts(futures)

    await _send(context, source, context.checkpointed["ends"], send)


async def _send(
    context: JobContext, source: ImportSource, ends: Ends, send: Callable[[Chunk], list[Receipt]]
) -> None:
    rows = context.checkpointed["survey"]["rows"]
    context.report_progress("rows sent", context.checkpointed["row"], rows)
    chunks = _chunks(context, source, after=context.checkpointed["row"])
    while (chunk := await context.run_in_thread(next, chunks, None)) is not None:
        ends = ends_after(ends, await context.run_in_thread(send, chunk))
        context.report_progress("rows sent", chunk.row, rows)
        if chunk.row % LOG_EVERY < CHUNK_ROWS:
            log.info("%s: %d of %d rows sent", context.job.path, chunk.row, rows)
        await context.checkpoint(row=chunk.row, ends=ends)


def _receipts(futures: Sequence[Future[Receipt]]) -> list[Receipt]:
    """All of them, once nothing is under way any more; raises the first failure then."""
    wait(futures)
    return [future.result() for future in futures]


def _chunks(context: JobContext, source: ImportSource, *, after: int) -> Iterator[Chunk]:
    """The good rows beyond the first so many, in chunks."""
    found = opened(context.objects, source, context.settings, now_s=context.clock())
    rows = itertools.islice(_said(context, source, found.read()), after, None)
    row = after
    while some := list(itertools.islice(rows, CHUNK_ROWS)):
        row += len(some)
        yield Chunk(row, [one for _, one in some if not isinstance(one, Exception)])


def _beyond(context: JobContext, source: ImportSource) -> str:
    """What went beyond the limits of the group, for people; empty if nothing did."""
    kind = "users" if source.dataset_type == "USERS" else "items"
    counts: dict[dead_letters.Origin, int] = {}
    for letter in context.until_stopped(
        dead_letters.since(context.settings, context.checkpointed["letters"])
    ):
        if letter.reason == FULL and letter.group == context.group:
            # One that is there twice has one source.
            counts[letter.source] = _imported(context, source, letter)
    count = sum(counts.values())
    what = "events on further items" if source.dataset_type == "INTERACTIONS" else f"{kind}"
    limit = f"RECOMMENDER_MAX_{kind.upper()}"
    return f"{count} {what} went beyond {limit} and are dead letters" if count else ""


def _imported(context: JobContext, source: ImportSource, letter: dead_letters.DeadLetter) -> int:
    """How many rows of the import a dead letter holds; of metadata, whoever sent it."""
    if source.dataset_type == "INTERACTIONS":
        raw = letter.raw()
        if tracking_id_of(raw) != context.checkpointed["tracking_id"]:
            return 0
        return len(parse(raw, now_s=context.clock(), future_limit_s=math.inf).event_list)
    topics = Topics.of(context.settings)
    return letter.source.topic == (topics.users if source.dataset_type == "USERS" else topics.items)


def _said(
    context: JobContext, source: ImportSource, rows: Iterator[DatasetRow]
) -> Iterator[tuple[DatasetRow, Good | Exception]]:
    """Every row and what it says, until the work is to end."""
    return parsed_rows(context.until_stopped(rows), source, context.settings, now_s=context.clock())
